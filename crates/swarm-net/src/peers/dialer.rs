//! Which peers to dial, where, and when again. No IO and no clock of its own.
//!
//! Of a peer's addresses the QUIC ones are tried first, all at once; only when none of them answers the TCP ones.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use swarm_types::Transport;

use crate::{peers::upgrades::Upgrades, transport::address};

/// Two nodes that learn of each other at the same moment would both dial. The one with the larger id waits for
/// the other's connection this long.
const YIELD: Duration = Duration::from_millis(100);
/// A node with many connections waits longer, so much for each: a newcomer that all others dial at the same moment can
/// answer none of them in time, and by itself it dials no more than it can bear.
const YIELD_PER_PEER: Duration = Duration::from_millis(20);
const LONGEST_YIELD: Duration = Duration::from_secs(2);
/// Pause after a failed attempt; doubles up to the bound below.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// More peers than this are not dialled.
const MAX_PEERS: usize = 1024;
/// Attempts that run at the same time.
const MAX_ATTEMPTS: usize = 32;
/// The same on a machine that has more to do than it can: of many handshakes none would end in time.
const BUSY_ATTEMPTS: usize = 4;
/// That is one where the node's turn comes so late.
const BUSY: Duration = Duration::from_millis(50);

/// A dial to make.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dial {
    pub(crate) peer: PeerId,
    /// Empty: wherever the DHT knows it.
    pub(crate) addresses: Vec<Multiaddr>,
}

/// The peers that are known and not connected, or connected.
#[derive(Debug)]
pub(crate) struct Dialer {
    me: PeerId,
    peers: HashMap<PeerId, Known>,
    upgrades: Upgrades,
    /// How late the node's turns came lately.
    late: Duration,
}

#[derive(Debug)]
struct Known {
    addresses: Vec<Multiaddr>,
    /// They came while others were being dialled.
    are_new: bool,
    keep_until: Instant,
    state: DialState,
    /// Failed since it was last connected.
    failures: u32,
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum DialState {
    Waiting(Instant),
    Dialling,
    Connected,
}

impl Known {
    fn over(&self, transport: Transport) -> Vec<Multiaddr> {
        let over = |address: &&Multiaddr| address::transport(address) == Some(transport);
        self.addresses.iter().filter(over).cloned().collect()
    }

    /// QUIC and TCP take turns, QUIC first.
    fn next_addresses(&self) -> Vec<Multiaddr> {
        let (quic, tcp) = (self.over(Transport::Quic), self.over(Transport::Tcp));
        let try_tcp = quic.is_empty() || (self.failures % 2 == 1 && !tcp.is_empty());
        if try_tcp { tcp } else { quic }
    }

    fn pause(&self) -> Duration {
        let both = !self.over(Transport::Quic).is_empty() && !self.over(Transport::Tcp).is_empty();
        match (both, self.failures) {
            // The other transport is still to be tried.
            (true, failures) if failures % 2 == 1 => Duration::ZERO,
            (true, failures) => backoff(failures / 2),
            (false, failures) => backoff(failures),
        }
    }
}

/// The pause after this many failures, from 1.
pub(crate) fn backoff(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

impl Dialer {
    pub(crate) fn new(me: PeerId) -> Self {
        Self { me, peers: HashMap::new(), upgrades: Upgrades::new(me), late: Duration::ZERO }
    }

    /// A peer may be found at these addresses; dial it for as long as `keep`.
    pub(crate) fn learn(&mut self, peer: PeerId, addresses: &[Multiaddr], keep: Duration, now: Instant) {
        if peer == self.me || (self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer)) {
            return;
        }
        let start = now + if self.me < peer { Duration::ZERO } else { YIELD } + self.patience();
        let known = self.peers.entry(peer).or_insert_with(|| Known {
            addresses: vec![],
            are_new: false,
            keep_until: now,
            state: DialState::Waiting(start),
            failures: 0,
        });
        known.keep_until = known.keep_until.max(now + keep);
        let addresses = address::dialable_all(addresses);
        if !addresses.is_empty() {
            known.are_new |= known.state == DialState::Dialling && known.addresses != addresses;
            known.addresses = addresses;
        }
    }

    /// The node had a turn, so late.
    pub(crate) fn turn_was_late(&mut self, by: Duration) {
        self.late = by.max(self.late / 2);
    }

    /// How long a peer that is new may take to dial this node.
    fn patience(&self) -> Duration {
        let connected = self.peers.values().filter(|known| known.state == DialState::Connected).count();
        YIELD_PER_PEER.saturating_mul(u32::try_from(connected).unwrap_or(u32::MAX)).min(LONGEST_YIELD)
    }

    /// Dial a peer now, if it is known and not connected.
    pub(crate) fn hurry(&mut self, peer: &PeerId, now: Instant) {
        if let Some(known) = self.peers.get_mut(peer)
            && matches!(known.state, DialState::Waiting(_))
        {
            known.state = DialState::Waiting(now);
        }
    }

    /// The dials that are due; they count as started.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Dial> {
        let running = self.peers.values().filter(|known| known.state == DialState::Dialling).count();
        let most = if self.late < BUSY { MAX_ATTEMPTS } else { BUSY_ATTEMPTS };
        let due = |known: &Known| matches!(known.state, DialState::Waiting(at) if at <= now);
        self.peers
            .iter_mut()
            .filter(|(_, known)| due(known))
            .take(most.saturating_sub(running))
            .map(|(peer, known)| {
                known.state = DialState::Dialling;
                known.are_new = false;
                Dial { peer: *peer, addresses: known.next_addresses() }
            })
            .collect()
    }

    /// Of the peers that are connected by TCP alone the dials by QUIC that are due; they count as started.
    pub(crate) fn due_by_quic(&mut self, by_tcp_alone: &HashSet<PeerId>, now: Instant) -> Vec<Dial> {
        let due = self.upgrades.due(by_tcp_alone, now).into_iter();
        let by_quic =
            |peer: &PeerId| self.peers.get(peer).map(|known| known.over(Transport::Quic)).unwrap_or_default();
        let dials = due.map(|peer| Dial { peer, addresses: by_quic(&peer) });
        dials.filter(|dial| !dial.addresses.is_empty()).collect()
    }

    /// An attempt failed. The first says nothing of addresses that came meanwhile: QUIC once more.
    pub(crate) fn failed(&mut self, peer: &PeerId, now: Instant) {
        if let Some(known) = self.peers.get_mut(peer)
            && known.state == DialState::Dialling
        {
            if known.are_new && known.failures == 0 {
                known.failures = 2;
                known.state = DialState::Waiting(now);
                return;
            }
            known.failures = known.failures.saturating_add(1);
            known.state = DialState::Waiting(now + known.pause());
        }
    }

    /// An attempt was not made because another one to the same peer is under way.
    pub(crate) fn postponed(&mut self, peer: &PeerId, now: Instant) {
        if let Some(known) = self.peers.get_mut(peer)
            && known.state == DialState::Dialling
        {
            known.state = DialState::Waiting(now + FIRST_PAUSE);
        }
    }

    /// A connection is open, whoever dialled.
    pub(crate) fn connected(&mut self, peer: PeerId, now: Instant) {
        let new = || Known {
            addresses: vec![],
            are_new: false,
            keep_until: now,
            state: DialState::Connected,
            failures: 0,
        };
        let known = self.peers.entry(peer).or_insert_with(new);
        known.state = DialState::Connected;
        known.failures = 0;
    }

    /// The last connection is closed; try to have it back for as long as `keep`. Who never said where to be reached
    /// is forgotten: the bound holds only for those who are learned of.
    pub(crate) fn disconnected(&mut self, peer: &PeerId, keep: Duration, now: Instant) {
        self.peers.retain(|id, known| id != peer || !known.addresses.is_empty());
        if let Some(known) = self.peers.get_mut(peer) {
            known.keep_until = now + keep;
            // As for a new peer: QUIC first.
            known.failures = 0;
            known.state = DialState::Waiting(now + FIRST_PAUSE);
        }
    }

    /// Where the peer may be found.
    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.peers.get(peer).map(|known| known.addresses.clone()).unwrap_or_default()
    }

    /// Forgets peers that could not be reached for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.peers.retain(|_, known| known.state == DialState::Connected || known.keep_until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(60);

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Two ids, the smaller first.
    fn two_peers() -> (PeerId, PeerId) {
        let (a, b) = (PeerId::random(), PeerId::random());
        (a.min(b), a.max(b))
    }

    #[test]
    fn quic_is_tried_first_then_tcp_then_both_rest() {
        let (me, peer) = two_peers();
        let (mut dialer, start) = (Dialer::new(me), Instant::now());
        let both = addresses(&["/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/udp/1/quic-v1"]);
        dialer.learn(peer, &both, KEEP, start);
        assert_eq!(dialer.due(start), [Dial { peer, addresses: vec![both[1].clone()] }]);
        assert_eq!(dialer.due(start), [], "one attempt at a time");
        dialer.failed(&peer, start);
        assert_eq!(dialer.due(start), [Dial { peer, addresses: vec![both[0].clone()] }]);
        dialer.failed(&peer, start);
        assert_eq!(dialer.due(start), []);
        assert_eq!(dialer.due(start + FIRST_PAUSE), [Dial { peer, addresses: vec![both[1].clone()] }]);
    }

    #[test]
    fn of_two_that_meet_only_one_dials_at_once() {
        let (small, large) = two_peers();
        let start = Instant::now();
        let where_to = addresses(&["/ip4/10.0.0.1/tcp/1"]);
        let (mut first, mut second) = (Dialer::new(small), Dialer::new(large));
        first.learn(large, &where_to, KEEP, start);
        second.learn(small, &where_to, KEEP, start);
        assert_eq!((first.due(start).len(), second.due(start).len()), (1, 0));
        second.connected(small, start);
        assert_eq!(second.due(start + YIELD), [], "the other's connection came in time");
    }

    #[test]
    fn who_has_many_connections_lets_a_newcomer_dial() {
        let (me, peer) = two_peers();
        let (mut dialer, now) = (Dialer::new(me), Instant::now());
        let where_to = addresses(&["/ip4/10.0.0.1/tcp/1"]);
        for _ in 0..30 {
            dialer.connected(PeerId::random(), now);
        }
        dialer.learn(peer, &where_to, KEEP, now);
        let patience = 30 * YIELD_PER_PEER;
        assert_eq!((dialer.due(now).len(), dialer.due(now + patience).len()), (0, 1));
        for _ in 0..300 {
            dialer.connected(PeerId::random(), now);
        }
        let another = PeerId::random();
        dialer.learn(another, &where_to, KEEP, now);
        dialer.hurry(&another, now);
        assert_eq!(dialer.due(now).len(), 1, "unless somebody waits for it");
        let last = PeerId::random();
        dialer.learn(last, &where_to, KEEP, now);
        assert_eq!(dialer.due(now + LONGEST_YIELD + YIELD).len(), 1);
    }

    #[test]
    fn a_lost_peer_is_dialled_with_growing_pauses_until_it_is_given_up() {
        let (me, peer) = two_peers();
        let (mut dialer, mut now) = (Dialer::new(me), Instant::now());
        dialer.learn(peer, &addresses(&["/ip4/10.0.0.1/tcp/1"]), KEEP, now);
        dialer.due(now);
        dialer.connected(peer, now);
        dialer.expire(now + 2 * KEEP);
        assert!(dialer.peers.contains_key(&peer), "connected peers do not expire");
        dialer.disconnected(&peer, KEEP, now);
        let end = now + KEEP;
        let mut attempts = 0;
        while now < end {
            now += Duration::from_millis(50);
            for _ in dialer.due(now) {
                attempts += 1;
                dialer.failed(&peer, now);
            }
        }
        assert!((10..20).contains(&attempts), "{attempts} attempts in a minute");
        dialer.expire(now);
        assert!(!dialer.peers.contains_key(&peer));
    }

    #[test]
    fn strangers_without_end_are_neither_remembered_nor_dialled_all_at_once() {
        let (mut dialer, now) = (Dialer::new(PeerId::random()), Instant::now());
        for _ in 0..2000 {
            dialer.learn(PeerId::random(), &addresses(&["/ip4/10.0.0.1/tcp/1"]), KEEP, now);
        }
        assert_eq!(dialer.peers.len(), MAX_PEERS);
        assert_eq!(dialer.due(now + YIELD).len(), MAX_ATTEMPTS);
        assert_eq!(dialer.due(now + YIELD).len(), 0);
        for _ in 0..2000 {
            let visitor = PeerId::random();
            dialer.connected(visitor, now);
            dialer.disconnected(&visitor, KEEP, now);
        }
        assert_eq!(dialer.peers.len(), MAX_PEERS, "visitors without an address leave nothing behind");
    }

    #[test]
    fn a_busy_machine_dials_few_at_a_time() {
        let (mut dialer, now) = (Dialer::new(PeerId::random()), Instant::now());
        for _ in 0..MAX_ATTEMPTS {
            dialer.learn(PeerId::random(), &addresses(&["/ip4/10.0.0.1/tcp/1"]), KEEP, now);
        }
        dialer.turn_was_late(4 * BUSY);
        assert_eq!(dialer.due(now + YIELD).len(), BUSY_ATTEMPTS);
        dialer.turn_was_late(BUSY / 10);
        assert_eq!(dialer.due(now + YIELD).len(), 0, "one turn in time is not enough");
        (0..2).for_each(|_| dialer.turn_was_late(BUSY / 10));
        assert_eq!(dialer.due(now + YIELD).len(), MAX_ATTEMPTS - BUSY_ATTEMPTS);
    }

    #[test]
    fn who_has_moved_is_tried_by_quic_once_more() {
        let (me, peer) = two_peers();
        let (mut dialer, now) = (Dialer::new(me), Instant::now());
        let at = |port| addresses(&[&format!("/ip4/10.0.0.1/udp/{port}/quic-v1"), "/ip4/10.0.0.1/tcp/1"]);
        dialer.learn(peer, &at(1), KEEP, now);
        assert_eq!(dialer.due(now), [Dial { peer, addresses: at(1)[..1].to_vec() }]);
        dialer.learn(peer, &at(2), KEEP, now);
        dialer.failed(&peer, now);
        assert_eq!(dialer.due(now), [Dial { peer, addresses: at(2)[..1].to_vec() }]);
        dialer.learn(peer, &at(3), KEEP, now);
        dialer.failed(&peer, now);
        assert_eq!(dialer.due(now), [Dial { peer, addresses: at(3)[1..].to_vec() }], "not for ever");
    }

    #[test]
    fn an_attempt_that_another_one_forestalled_is_no_failure() {
        let (me, peer) = two_peers();
        let (mut dialer, now) = (Dialer::new(me), Instant::now());
        let both = addresses(&["/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/udp/1/quic-v1"]);
        dialer.learn(peer, &both, KEEP, now);
        let quic = [Dial { peer, addresses: vec![both[1].clone()] }];
        assert_eq!(dialer.due(now), quic);
        dialer.postponed(&peer, now);
        assert_eq!(dialer.due(now), []);
        assert_eq!(dialer.due(now + FIRST_PAUSE), quic, "still QUIC's turn");
    }
}
