//! Leaving the swarm, so that none has to notice this node's silence.

use std::{collections::HashSet, time::Duration};

use futures::StreamExt;
use libp2p::{PeerId, swarm::SwarmEvent};
use swarm_types::Transport;
use tokio::time::timeout;

use super::Node;

/// For the last messages: withdrawn registrations, then the closing itself, which tasks of their own send.
const FAREWELL: Duration = Duration::from_millis(30);
/// For all connections to close.
const LEAVE_WITHIN: Duration = Duration::from_millis(300);

impl Node {
    /// Tells every peer that this node leaves.
    pub(super) async fn leave(&mut self) {
        self.swarm.behaviour_mut().close();
        self.publisher.leave(&mut self.swarm.behaviour_mut().kad);
        self.torrents.holder.leave(&mut self.swarm.behaviour_mut().kad);
        if let Some(client) = self.swarm.behaviour_mut().rendezvous_client.get() {
            self.registrations.leave(client);
        }
        let _ = timeout(FAREWELL, self.drain()).await;
        self.say_goodbye().await;
        for listener in std::mem::take(&mut self.listeners) {
            self.swarm.remove_listener(listener);
        }
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            // Not connected any more: nothing to close.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        // Whoever has not heard it until then finds out by the silence.
        let _ = timeout(LEAVE_WITHIN, closed).await;
        let _ = timeout(FAREWELL, self.drain()).await;
    }

    /// Closes what runs by QUIC, which says that this was meant, while life lines are open and the ports as well. A
    /// life line that ended first would look like a death.
    async fn say_goodbye(&mut self) {
        let mut open = HashSet::new();
        for (peer, known) in self.peers.drain() {
            self.links.remove(&peer);
            open.extend(known.over(Transport::Quic));
        }
        open.retain(|connection| self.swarm.close_connection(*connection));
        let closed = async {
            while !open.is_empty() {
                if let SwarmEvent::ConnectionClosed { connection_id, .. } =
                    self.swarm.select_next_some().await
                {
                    open.remove(&connection_id);
                }
            }
        };
        let _ = timeout(LEAVE_WITHIN, closed).await;
        let _ = timeout(FAREWELL, self.drain()).await;
    }

    /// Lets the network work without heeding it.
    async fn drain(&mut self) {
        loop {
            self.swarm.select_next_some().await;
        }
    }
}
