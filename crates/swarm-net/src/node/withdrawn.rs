//! What follows when the swarm's secrets change: members that were admitted by one that holds no more prove themselves
//! again, over a new connection beside the old one, so that nothing that runs is cut off. Who does not, goes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    swarm::dial_opts::{DialOpts, PeerCondition},
};

use super::Node;

/// For a member to prove itself again: files do not reach all machines at the same moment.
const RENEW_WITHIN: Duration = Duration::from_secs(30);
/// Between attempts to reach it.
const TRY_EVERY: Duration = Duration::from_secs(3);
/// So many connections to a peer leave no room for another.
const CROWDED: usize = 3;

/// Who has to prove itself again.
#[derive(Default)]
pub(super) struct Withdrawn(HashMap<PeerId, Renewal>);

struct Renewal {
    until: Instant,
    tried: Option<Instant>,
}

impl Node {
    /// Follows the file of secrets.
    pub(super) fn check_proofs(&mut self, now: Instant) {
        self.ring.refresh();
        self.roster.forget(|peer| self.peers.contains_key(peer), now);
        let mut stale = self.roster.withdrawn(&self.ring);
        stale.retain(|peer| self.peers.contains_key(peer));
        for (peer, _) in self.withdrawn.0.extract_if(|peer, _| !stale.contains(peer)) {
            if self.peers.contains_key(&peer) {
                tracing::info!(%peer, "has proven itself again");
            }
        }
        for peer in stale {
            let new = Renewal { until: now + RENEW_WITHIN, tried: None };
            let renewal = self.withdrawn.0.entry(peer).or_insert(new);
            let (over, due) =
                (now >= renewal.until, renewal.tried.is_none_or(|last| now >= last + TRY_EVERY));
            if over {
                self.send_away(peer);
            } else if due {
                renewal.tried = Some(now);
                self.renew(peer);
            }
        }
    }

    fn renew(&mut self, peer: PeerId) {
        let Some(known) = self.peers.get(&peer) else { return };
        let dialled = known.connections.values().filter_map(|one| one.dialled.clone());
        let mut addresses: Vec<_> = dialled.chain(self.dialer.addresses(&peer)).collect();
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
        self.withdrawn.0.remove(&peer);
        self.metrics.refused_because("secret_withdrawn");
        tracing::warn!(%peer, "sent away: its secret was withdrawn, and it has proven no other");
        // Gone already: nothing to close.
        let _ = self.swarm.disconnect_peer_id(peer);
    }
}
