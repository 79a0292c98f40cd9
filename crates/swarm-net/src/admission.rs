//! Who takes part. A peer is *opened* when it is connected, and *admitted* when it has shown that it belongs to this
//! swarm: only then it gets streams served, channels, and a place in the status and the routing table. No IO and no
//! clock of its own.
//!
//! What admits is decided here and nowhere else. For now it is that the peer calls itself by this swarm's name.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};

/// A stranger that does not show within this that it belongs here is sent away.
pub(crate) const IDENTIFY_WITHIN: Duration = Duration::from_secs(10);
/// Connections that strangers have made to this node: as many may come at the same time, for example after a restart of
/// the node that they enter by. Who belongs here shows it in a few round trips, so of more than this the oldest makes
/// room for the newest, and a crowd of idle strangers keeps nobody out.
pub(crate) const MAX_STRANGERS: usize = 256;

/// All that are connected, and whether they take part.
#[derive(Debug)]
pub(crate) struct Admission {
    /// What members of this swarm call themselves.
    swarm: String,
    within: Duration,
    /// Oldest first, numbered as their connections opened. Ids of connections are given when a handshake begins.
    strangers: BTreeMap<u64, Stranger>,
    next: u64,
    admitted: HashSet<PeerId>,
}

/// A connection to a peer that is not admitted.
#[derive(Debug)]
struct Stranger {
    peer: PeerId,
    connection: ConnectionId,
    since: Instant,
    /// The peer made it. Those that this node makes are bounded by what it dials.
    incoming: bool,
}

/// What follows from what a peer has shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It takes part from now on.
    Admitted,
    /// It took part before.
    Member,
    /// It belongs elsewhere and must go.
    Foreign,
    /// It is not here any more, or already on its way out.
    Gone,
}

impl Admission {
    /// `swarm` is what members call themselves; strangers have until `within`.
    pub(crate) fn new(swarm: String, within: Duration) -> Self {
        Self { swarm, within, strangers: BTreeMap::new(), next: 0, admitted: HashSet::new() }
    }

    /// A connection is open. Gives the stranger that has to make room for it: none that this node has dialled as well.
    #[must_use]
    pub(crate) fn opened(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        incoming: bool,
        now: Instant,
    ) -> Option<PeerId> {
        if self.admitted.contains(&peer) {
            return None;
        }
        self.strangers.insert(self.next, Stranger { peer, connection, since: now, incoming });
        self.next += 1;
        let of_all = self.strangers.values();
        let dialled: HashSet<_> = of_all.clone().filter(|one| !one.incoming).map(|one| one.peer).collect();
        let mut crowd = of_all.map(|one| one.peer).filter(|peer| !dialled.contains(peer));
        let oldest = crowd.next()?;
        // The first was taken out.
        if crowd.count() < MAX_STRANGERS {
            return None;
        }
        self.forget(&oldest);
        Some(oldest)
    }

    /// The peer has said what it calls itself.
    pub(crate) fn identified(&mut self, peer: &PeerId, name: &str) -> Verdict {
        if name != self.swarm {
            return Verdict::Foreign;
        }
        if self.admitted.contains(peer) {
            return Verdict::Member;
        }
        if !self.forget(peer) {
            return Verdict::Gone;
        }
        self.admitted.insert(*peer);
        Verdict::Admitted
    }

    /// A connection is closed, the peer's last or one of several.
    pub(crate) fn closed(&mut self, peer: &PeerId, connection: ConnectionId, last: bool) {
        self.strangers.retain(|_, stranger| stranger.connection != connection);
        if last {
            self.admitted.remove(peer);
        }
    }

    /// Whether the peer takes part.
    pub(crate) fn admits(&self, peer: &PeerId) -> bool {
        self.admitted.contains(peer)
    }

    /// The strangers whose time is over. Each is given once.
    pub(crate) fn late(&mut self, now: Instant) -> BTreeSet<PeerId> {
        let over = |stranger: &&Stranger| now.duration_since(stranger.since) > self.within;
        let late: BTreeSet<_> = self.strangers.values().filter(over).map(|stranger| stranger.peer).collect();
        self.strangers.retain(|_, stranger| !late.contains(&stranger.peer));
        late
    }

    /// Whether there was such a stranger.
    fn forget(&mut self, peer: &PeerId) -> bool {
        let before = self.strangers.len();
        self.strangers.retain(|_, stranger| stranger.peer != *peer);
        self.strangers.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWARM: &str = "/llama-swarm/c/1.0.0";

    fn admission() -> Admission {
        Admission::new(SWARM.into(), IDENTIFY_WITHIN)
    }

    fn connection(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    #[test]
    fn a_peer_takes_part_from_when_it_has_shown_that_it_belongs_here_until_its_last_connection_closes() {
        let (mut admission, peer, now) = (admission(), PeerId::random(), Instant::now());
        assert_eq!(admission.identified(&peer, SWARM), Verdict::Gone, "not connected");
        assert_eq!(admission.opened(peer, connection(1), true, now), None);
        assert!(!admission.admits(&peer));
        assert_eq!(admission.identified(&peer, "/llama-swarm/d/1.0.0"), Verdict::Foreign);
        assert!(!admission.admits(&peer));
        assert_eq!(admission.identified(&peer, SWARM), Verdict::Admitted);
        assert_eq!(admission.identified(&peer, SWARM), Verdict::Member);
        assert_eq!(admission.opened(peer, connection(2), true, now), None);
        assert!(admission.late(now + 2 * IDENTIFY_WITHIN).is_empty(), "members have all the time");
        admission.closed(&peer, connection(1), false);
        assert!(admission.admits(&peer));
        admission.closed(&peer, connection(2), true);
        assert!(!admission.admits(&peer));
    }

    #[test]
    fn a_stranger_that_shows_nothing_is_late_once() {
        let (mut admission, peer, start) = (admission(), PeerId::random(), Instant::now());
        assert_eq!(admission.opened(peer, connection(1), false, start), None);
        assert_eq!(admission.opened(peer, connection(2), true, start + IDENTIFY_WITHIN), None);
        assert!(admission.late(start + IDENTIFY_WITHIN).is_empty());
        let over = start + IDENTIFY_WITHIN + Duration::from_millis(1);
        assert_eq!(admission.late(over), [peer].into());
        assert!(admission.late(over).is_empty());
        assert_eq!(admission.identified(&peer, SWARM), Verdict::Gone, "it is being sent away");
        admission.closed(&peer, connection(1), true);
        assert!(admission.strangers.is_empty());
    }

    #[test]
    fn of_a_crowd_of_strangers_the_oldest_makes_room() {
        let (mut admission, now) = (admission(), Instant::now());
        let (dialled, by_both) = (PeerId::random(), PeerId::random());
        for (number, peer, incoming) in [(0, dialled, false), (1, by_both, true), (2, by_both, false)] {
            assert_eq!(admission.opened(peer, connection(number), incoming, now), None);
        }
        let crowd: Vec<_> = (0..=MAX_STRANGERS).map(|_| PeerId::random()).collect();
        for (number, peer) in crowd.iter().enumerate() {
            // Whose handshake began last may be the first to end it.
            let connection = connection(2 * MAX_STRANGERS - number);
            let makes_room = admission.opened(*peer, connection, true, now);
            assert_eq!(makes_room, (number == MAX_STRANGERS).then_some(crowd[0]));
        }
        assert_eq!(admission.identified(&crowd[0], SWARM), Verdict::Gone);
        assert_eq!(admission.identified(&crowd[1], SWARM), Verdict::Admitted);
        for wanted in [dialled, by_both] {
            assert_eq!(admission.identified(&wanted, SWARM), Verdict::Admitted, "this node wanted it");
        }
    }
}
