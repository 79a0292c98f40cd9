//! What follows when the swarm's secrets change: members that were admitted by one that holds no more prove themselves
//! again, over a new connection beside the old one, so that nothing that runs is cut off. Who does not, goes.

use std::time::Instant;

use libp2p::{
    PeerId,
    swarm::dial_opts::{DialOpts, PeerCondition},
};

use super::Node;
use crate::{behaviour::MAX_PER_PEER, metrics::WITHDRAWN};

/// So many connections to a peer leave no room for another.
const CROWDED: usize = MAX_PER_PEER as usize - 1;

impl Node {
    /// Follows the file of secrets.
    pub(super) fn check_proofs(&mut self, now: Instant) {
        self.ring.refresh();
        self.roster.forget(|peer| self.peers.contains_key(peer), now);
        let mut withdrawn = self.roster.withdrawn(&self.ring);
        withdrawn.retain(|peer| self.peers.contains_key(peer));
        let due = self.renewals.due(&withdrawn, now);
        for peer in due.done.iter().filter(|peer| self.peers.contains_key(peer)) {
            tracing::info!(%peer, "has proven itself again");
        }
        for peer in due.over {
            self.send_away(peer);
        }
        for peer in due.ask {
            self.ask_again(peer);
        }
        self.metrics.to_prove_again(self.renewals.count());
    }

    fn ask_again(&mut self, peer: PeerId) {
        let Some(known) = self.peers.get(&peer) else { return };
        let dialled = known.connections.values().filter_map(|one| one.dialled.clone());
        let mut addresses: Vec<_> = dialled.chain(self.dialer.addresses(&peer)).collect();
        addresses.sort();
        addresses.dedup();
        if known.connections.len() >= CROWDED
            && let Some((newest, _)) = known.connections.last_key_value()
        {
            // Streams run on the oldest.
            self.swarm.close_connection(*newest);
        }
        if addresses.is_empty() {
            // It has to dial.
            return;
        }
        let dial = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses).build();
        if let Err(error) = self.swarm.dial(dial) {
            tracing::debug!(%peer, %error, "cannot be reached to prove itself again");
        }
    }

    fn send_away(&mut self, peer: PeerId) {
        self.metrics.refused_because(WITHDRAWN);
        tracing::warn!(%peer, "sent away: its secret was withdrawn, and it has proven no other");
        // Gone already: nothing to close.
        let _ = self.swarm.disconnect_peer_id(peer);
    }
}
