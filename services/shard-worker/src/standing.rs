//! Where a session stands on this hop and on those below, and what follows from it: which rows this hop has to be
//! given, which ones it sends again, and which ones it hands on.
//!
//! A hop that was lost lacks rows that all others have. The hop above it has kept what it sent (`replays.rs`) and sends
//! it again; rows that are there already below go no further. So one hop computes, and the others wait.

use std::ops::Range;

use swarm_proto::Opened;
use swarm_types::{Step, StepInput};

use crate::replays::Sent;

/// One attempt's view.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Positions that were computed here when the attempt came.
    own: u32,
    /// From where on the hops below need rows; 0 as long as they have not said it.
    below: u32,
    /// Some step of this attempt was passed: what was sent before may be another one's.
    has_begun: bool,
}

impl Standing {
    pub(crate) fn new(own: u32) -> Self {
        Self { own, below: 0, has_begun: false }
    }

    /// What the last hop tells.
    pub(crate) fn of_the_last(&self) -> Opened {
        Opened { positions: self.own, below: self.own, replays: 0 }
    }

    /// All hops below have the session. What is told up, and which rows are to be sent down again before any others.
    pub(crate) fn opened(&mut self, below: Opened, sent: &Sent) -> (Opened, Range<u32>) {
        let (own, needed) = (self.own, below.positions);
        self.below = needed;
        if own <= needed {
            return (Opened { positions: own, below: needed, replays: below.replays }, needed..needed);
        }
        if self.has_begun || !sent.has(needed..own) {
            return (Opened { positions: needed, below: needed, replays: below.replays }, needed..needed);
        }
        let replays = below.replays.saturating_add(own - needed);
        (Opened { positions: own, below: own, replays }, needed..own)
    }

    /// A step was computed. What of its result goes down: of rows that are computed again what the hops below lack.
    pub(crate) fn hands_on(&mut self, step: Step) -> Option<Step> {
        self.has_begun = true;
        let known = self.below.saturating_sub(step.position);
        if !step.rebuilds || known == 0 {
            return Some(step);
        }
        let StepInput::Activations { rows, mut values } = step.input else { return None };
        let left = rows.checked_sub(known).filter(|left| *left > 0)?;
        values.drain(..known as usize * (values.len() / rows as usize));
        let input = StepInput::Activations { rows: left, values };
        Some(Step { position: step.position + known, input, ..step })
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::replays::Replays;

    fn opened(positions: u32, below: u32, replays: u32) -> Opened {
        Opened { positions, below, replays }
    }

    #[test]
    fn a_hop_sends_again_what_it_kept_and_asks_for_what_it_cannot() {
        let replays = Replays::new(1 << 20, Gauge::default());
        let (whole, half, nothing) = (replays.begin(), replays.begin(), replays.begin());
        whole.keep(0, 10, &[0.5; 10]);
        half.keep(5, 5, &[0.5; 5]);
        // Own positions, what those below say, what was kept; what is told up and sent down.
        let cases = [
            ("nobody has lost anything", 10, opened(10, 10, 0), &nothing, opened(10, 10, 0), 10..10),
            ("the hop below is new", 10, opened(0, 10, 0), &whole, opened(10, 10, 10), 0..10),
            ("and lacks less than was kept", 10, opened(7, 9, 0), &half, opened(10, 10, 3), 7..10),
            ("and lacks more than was kept", 10, opened(4, 9, 0), &half, opened(4, 4, 0), 4..4),
            ("this hop is new", 0, opened(10, 10, 0), &nothing, opened(0, 10, 0), 10..10),
            ("both are", 0, opened(0, 10, 0), &nothing, opened(0, 0, 0), 0..0),
            (
                "a hop further down was sent something",
                10,
                opened(10, 10, 4),
                &whole,
                opened(10, 10, 4),
                10..10,
            ),
            ("a step was under way", 9, opened(10, 10, 0), &whole, opened(9, 10, 0), 10..10),
        ];
        for (what, own, below, sent, told, again) in cases {
            assert_eq!(Standing::new(own).opened(below, sent), (told, again), "{what}");
        }
        let mut eager = Standing::new(10);
        eager.hands_on(Step::default());
        assert_eq!(eager.opened(opened(0, 10, 0), &whole).0, opened(0, 0, 0), "a step has come before");
    }

    #[test]
    fn rows_that_are_there_below_go_no_further() {
        let step = |position, rebuilds| {
            let input = StepInput::Activations { rows: 3, values: vec![1., 1., 2., 2., 3., 3.] };
            Step { position, input, rebuilds, ..Step::default() }
        };
        let mut standing = Standing::new(0);
        let sent = Replays::new(0, Gauge::default()).begin();
        standing.opened(opened(5, 5, 0), &sent);
        assert_eq!(standing.hands_on(step(0, true)), None);
        assert_eq!(standing.hands_on(step(2, true)), None);
        let StepInput::Activations { rows, values } =
            standing.hands_on(step(3, true)).expect("one is new").input
        else {
            panic!("activations")
        };
        assert_eq!((rows, values), (1, vec![3., 3.]));
        assert_eq!(standing.hands_on(step(5, true)), Some(step(5, true)));
        assert_eq!(
            standing.hands_on(step(3, false)),
            Some(step(3, false)),
            "what is answered goes all the way"
        );
    }
}
