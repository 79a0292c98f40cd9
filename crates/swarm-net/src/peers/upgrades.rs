//! Peers that are connected by TCP alone, and when they are dialled by QUIC: two that met while UDP did not get through
//! need not stay so. No IO and no clock of its own.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// The first attempt so long after they met: the peer may be dialling by QUIC itself.
const FIRST: Duration = Duration::from_secs(1);
/// Of the two the one with the larger id comes so much later, in case only it can reach the other.
const YIELD: Duration = Duration::from_secs(2);
/// The pause after an attempt; doubles up to the bound below.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// When whom to dial by QUIC.
#[derive(Debug)]
pub(crate) struct Upgrades {
    me: PeerId,
    /// The next attempt, and how many there were.
    next: HashMap<PeerId, (Instant, u32)>,
}

impl Upgrades {
    pub(crate) fn new(me: PeerId) -> Self {
        Self { me, next: HashMap::new() }
    }

    /// Of the peers that are connected by TCP alone those to dial by QUIC now. The attempts count as made.
    pub(crate) fn due(&mut self, by_tcp_alone: &HashSet<PeerId>, now: Instant) -> Vec<PeerId> {
        self.next.retain(|peer, _| by_tcp_alone.contains(peer));
        let mut due = vec![];
        for peer in by_tcp_alone {
            let first = if self.me < *peer { FIRST } else { FIRST + YIELD };
            let (at, attempts) = self.next.entry(*peer).or_insert((now + first, 0));
            if *at <= now {
                *at = now + PAUSE.saturating_mul(1 << (*attempts).min(10)).min(LONGEST_PAUSE);
                *attempts = attempts.saturating_add(1);
                due.push(*peer);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_connected_by_tcp_alone_is_dialled_with_growing_pauses_until_it_is_not() {
        let (a, b) = (PeerId::random(), PeerId::random());
        let (small, large) = (a.min(b), a.max(b));
        let start = Instant::now();
        let (mut first, mut second) = (Upgrades::new(small), Upgrades::new(large));
        assert!(first.due(&[large].into(), start).is_empty());
        assert!(second.due(&[small].into(), start).is_empty());
        assert_eq!(first.due(&[large].into(), start + FIRST), [large]);
        assert!(second.due(&[small].into(), start + FIRST).is_empty(), "it yields");
        assert_eq!(second.due(&[small].into(), start + FIRST + YIELD), [small]);
        let minutes = (1..=20 * 60).map(|second| start + FIRST + Duration::from_secs(second));
        let attempts: usize = minutes.map(|now| first.due(&[large].into(), now).len()).sum();
        assert_eq!(attempts, 8, "after 5, 15, 35, 75, 155, 315, 615, 915 s");
        let late = start + Duration::from_secs(3600);
        assert!(first.due(&HashSet::new(), late).is_empty());
        assert!(first.due(&[large].into(), late).is_empty(), "it begins again");
    }
}
