//! Members that were admitted by a secret that was withdrawn, and have to prove another. No IO and no clock of its own.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// For a member to prove itself again: files do not reach all machines at the same moment.
const WITHIN: Duration = Duration::from_secs(30);
/// Between attempts to reach it.
const TRY_EVERY: Duration = Duration::from_secs(3);

/// Who has to prove itself again.
#[derive(Debug, Default)]
pub(crate) struct Renewals(HashMap<PeerId, Renewal>);

#[derive(Debug)]
struct Renewal {
    until: Instant,
    tried: Option<Instant>,
}

/// What to do about them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Has proven itself again, or is gone.
    pub(crate) done: Vec<PeerId>,
    /// Ask it for its proof.
    pub(crate) ask: Vec<PeerId>,
    /// Has had its time.
    pub(crate) over: Vec<PeerId>,
}

impl Renewals {
    /// `withdrawn` are all whose secret holds no more.
    pub(crate) fn due(&mut self, withdrawn: &[PeerId], now: Instant) -> Due {
        let done = self.0.extract_if(|peer, _| !withdrawn.contains(peer)).map(|(peer, _)| peer).collect();
        let mut due = Due { done, ..Due::default() };
        for peer in withdrawn {
            let new = || Renewal { until: now + WITHIN, tried: None };
            let renewal = self.0.entry(*peer).or_insert_with(new);
            if now >= renewal.until {
                due.over.push(*peer);
            } else if renewal.tried.is_none_or(|last| now >= last + TRY_EVERY) {
                renewal.tried = Some(now);
                due.ask.push(*peer);
            }
        }
        for peer in &due.over {
            self.0.remove(peer);
        }
        due
    }

    /// How many are left.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_to_prove_itself_again_is_asked_now_and_then_and_not_for_ever() {
        let (mut renewals, mut now) = (Renewals::default(), Instant::now());
        let (quick, slow) = (PeerId::random(), PeerId::random());
        let due = renewals.due(&[quick, slow], now);
        assert_eq!(due.ask, [quick, slow]);
        assert_eq!(renewals.due(&[quick, slow], now), Due::default(), "it is under way");
        now += TRY_EVERY;
        let due = renewals.due(&[slow], now);
        assert_eq!((due.done, due.ask), (vec![quick], vec![slow]));
        now += WITHIN;
        let due = renewals.due(&[slow], now);
        assert_eq!((due.over, due.ask), (vec![slow], vec![]));
        assert_eq!(renewals.count(), 0);
    }
}
