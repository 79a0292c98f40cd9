//! What the node says of itself: makes signed announcements of what its service offers, and knows which change
//! must go out how.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::identity::Keypair;
use swarm_types::{Announcement, Capabilities, ModelId, NodeId, ShardId};

use crate::directory::{publisher::RECORD_TTL, records::Keys, signed};

/// How busy a worker is changes with every session; peers hear of it at most this often.
const DESCRIBE_EVERY: Duration = Duration::from_millis(200);

/// A shard that this node serves. Who it is, where, and of how many shards, the network adds.
#[derive(Clone, PartialEq, Debug)]
pub struct ShardOffer {
    /// Which shard.
    pub shard_id: ShardId,
    /// Whether its weights are in memory.
    pub loaded: bool,
    /// What it is a shard of.
    pub model: ModelId,
    /// What the worker can do with it.
    pub capabilities: Capabilities,
}

impl ShardOffer {
    /// Without what changes all the time, which only connected peers hear.
    fn lasting(&self) -> Self {
        let capabilities = Capabilities {
            loaded_percent: 0,
            active_sessions: 0,
            round_trips_us: BTreeMap::new(),
            fetching: None,
            stalled: false,
            ..self.capabilities.clone()
        };
        Self { capabilities, ..self.clone() }
    }
}

/// How far a change must be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// Connected peers, soon.
    Peers,
    /// Connected peers and the DHT, now.
    Everyone,
}

/// Makes the node's announcements.
pub(crate) struct Announcer {
    key: Keypair,
    me: NodeId,
    keys: Keys,
    offers: Vec<ShardOffer>,
    addresses: Vec<String>,
    sequence: u64,
    last_told: Option<Instant>,
    tell_at: Option<Instant>,
}

impl Announcer {
    pub(crate) fn new(key: Keypair, me: NodeId, keys: Keys) -> Self {
        Self { key, me, keys, offers: vec![], addresses: vec![], sequence: 0, last_told: None, tell_at: None }
    }

    /// The service offers these shards now and no others.
    pub(crate) fn offer(&mut self, offers: Vec<ShardOffer>, now: Instant) -> Reach {
        let lasting = |offers: &[ShardOffer]| offers.iter().map(ShardOffer::lasting).collect::<Vec<_>>();
        let reach = if lasting(&offers) == lasting(&self.offers) { Reach::Peers } else { Reach::Everyone };
        let earliest = self.last_told.filter(|_| reach == Reach::Peers).map(|last| last + DESCRIBE_EVERY);
        if offers != self.offers {
            let at = earliest.map_or(now, |earliest| earliest.max(now));
            self.tell_at = Some(self.tell_at.map_or(at, |tell_at| tell_at.min(at)));
        }
        self.offers = offers;
        reach
    }

    /// The node is reached at other addresses.
    pub(crate) fn moved(&mut self, addresses: Vec<String>, now: Instant) {
        if self.addresses != addresses {
            self.addresses = addresses;
            self.tell_at = Some(now);
        }
    }

    /// Whether connected peers must be told now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.tell_at.is_some_and(|at| at <= now)
    }

    /// Peers are being told.
    pub(crate) fn told(&mut self, now: Instant) {
        self.last_told = Some(now);
        self.tell_at = None;
    }

    /// The announcements as of now, each with its signed text. An offer that no peer would take is left out.
    pub(crate) fn announcements(&mut self, now_ms: u64) -> Vec<(Announcement, Vec<u8>)> {
        // Also grows over restarts, as long as the clock does.
        self.sequence = now_ms.max(self.sequence + 1);
        self.offers.iter().filter_map(|offer| self.announcement(offer, now_ms)).collect()
    }

    fn announcement(&self, offer: &ShardOffer, now_ms: u64) -> Option<(Announcement, Vec<u8>)> {
        let announcement = Announcement {
            peer_id: self.me.clone(),
            shard_id: offer.shard_id,
            shard_loaded: offer.loaded,
            addresses: self.addresses.clone(),
            total_shards: self.keys.total_shards(),
            model: offer.model.clone(),
            capabilities: offer.capabilities.clone(),
            sequence: self.sequence,
            expires_at_ms: now_ms.saturating_add(RECORD_TTL.as_millis() as u64),
        };
        let value = signed::sign(&self.key, self.keys.cluster(), &announcement);
        match signed::verify(self.keys.cluster(), self.keys.total_shards(), &value) {
            Ok(announcement) => Some((announcement, value)),
            Err(error) => {
                tracing::error!(shard = %offer.shard_id, %error, "this node's own offer would be refused");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_types::fixture;

    use super::*;
    use crate::peer;

    fn offer(shard: u32) -> ShardOffer {
        let (model, capabilities) = (fixture::model(), fixture::capabilities());
        ShardOffer { shard_id: ShardId(shard), loaded: false, model, capabilities }
    }

    fn announcer() -> Announcer {
        let key = Keypair::generate_ed25519();
        let me = peer::node_id(&key.public().to_peer_id());
        Announcer::new(key, me, Keys::new("c".into(), 8))
    }

    #[test]
    fn how_busy_a_worker_is_goes_to_peers_now_and_then_all_else_to_everyone_at_once() {
        let (mut announcer, start) = (announcer(), Instant::now());
        assert_eq!(announcer.offer(vec![offer(1)], start), Reach::Everyone);
        assert!(announcer.is_due(start));
        announcer.told(start);
        let mut busy = offer(1);
        busy.capabilities.active_sessions = 3;
        assert_eq!(announcer.offer(vec![busy.clone()], start), Reach::Peers);
        assert!(!announcer.is_due(start) && announcer.is_due(start + DESCRIBE_EVERY));
        busy.loaded = true;
        assert_eq!(announcer.offer(vec![busy.clone()], start), Reach::Everyone);
        assert!(announcer.is_due(start));
        announcer.told(start);
        announcer.offer(vec![busy], start + DESCRIBE_EVERY);
        assert!(!announcer.is_due(start + DESCRIBE_EVERY), "nothing changed");
    }

    #[test]
    fn each_announcement_is_newer_than_the_last_whatever_the_clock_does() {
        let (mut announcer, now) = (announcer(), Instant::now());
        announcer.offer(vec![offer(0)], now);
        let sequence = |announcer: &mut Announcer, now_ms| announcer.announcements(now_ms)[0].0.sequence;
        let first = sequence(&mut announcer, 5000);
        assert!(first < sequence(&mut announcer, 4000));
    }

    #[test]
    fn an_offer_that_cannot_be_is_not_announced() {
        let (mut announcer, now) = (announcer(), Instant::now());
        announcer.offer(vec![offer(8), offer(2)], now);
        let shards: Vec<_> =
            announcer.announcements(1).into_iter().map(|(told, _)| told.shard_id.0).collect();
        assert_eq!(shards, [2]);
    }
}
