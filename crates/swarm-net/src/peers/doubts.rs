//! Peers that may be gone: their life line has ended, they are silent, or others miss them. What is found out counts
//! only for what was open when the doubt arose. No IO and no clock of its own.

use std::collections::HashMap;

use libp2p::{PeerId, swarm::ConnectionId};

use crate::{metrics::Gone, transport::knock::Answer};

/// All that is doubted, of each peer one thing at most.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// Tells a doubt from the ones before.
    number: u64,
    open: HashMap<PeerId, Doubt>,
}

#[derive(Debug)]
struct Doubt {
    number: u64,
    why: Why,
    /// What was open to it. Whoever comes back meanwhile has others.
    connections: Vec<ConnectionId>,
}

/// Why a peer is doubted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// Its life line has ended.
    Closed,
    /// It does not answer this node.
    Silent,
    /// Others have lost it. Between it and this node all may be well.
    Missed,
}

impl Why {
    /// How it was noticed, if it is gone.
    fn gone(self) -> Gone {
        match self {
            Self::Closed => Gone::Closed,
            Self::Silent | Self::Missed => Gone::Silent,
        }
    }
}

/// What came of a doubt.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) peer: PeerId,
    pub(crate) number: u64,
    pub(crate) answer: Answer,
}

/// What came of a doubt.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Judged {
    Lost(Lost),
    /// Others do not hear it. It does not answer by TCP, which may not get through, or its kernel alone does: this node
    /// watches it for itself.
    ToBeWatched,
}

/// A peer that is gone.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Lost {
    pub(crate) how: Gone,
    pub(crate) connections: Vec<ConnectionId>,
}

impl Doubts {
    /// The peer is doubted, with all that is open to it. Gives the doubt's number.
    pub(crate) fn doubt(&mut self, peer: PeerId, why: Why, connections: Vec<ConnectionId>) -> u64 {
        self.number += 1;
        self.open.insert(peer, Doubt { number: self.number, why, connections });
        self.number
    }

    /// Whether somebody is finding out about the peer.
    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.open.contains_key(peer)
    }

    /// The peer has shown that it is there, or is not connected any more.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.open.remove(peer);
    }

    /// Ends a doubt. Gives what came of it, if anything.
    pub(crate) fn judge(&mut self, verdict: &Verdict) -> Option<Judged> {
        self.open.get(&verdict.peer).filter(|doubt| doubt.number == verdict.number)?;
        let Doubt { why, connections, .. } = self.open.remove(&verdict.peer)?;
        match verdict.answer {
            Answer::Unheard | Answer::Alive if why == Why::Missed => Some(Judged::ToBeWatched),
            Answer::Gone | Answer::Unheard => Some(Judged::Lost(Lost { how: why.gone(), connections })),
            Answer::Alive | Answer::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_counts_for_the_doubt_that_it_is_of() {
        let (mut doubts, peer) = (Doubts::default(), PeerId::random());
        let connections = |number| vec![ConnectionId::new_unchecked(number)];
        let verdict = |number, answer| Verdict { peer, number, answer };
        let first = doubts.doubt(peer, Why::Closed, connections(1));
        let second = doubts.doubt(peer, Why::Silent, connections(2));
        assert!(doubts.judge(&verdict(first, Answer::Gone)).is_none(), "it is of what was before");
        let lost = Judged::Lost(Lost { how: Gone::Silent, connections: connections(2) });
        assert_eq!(doubts.judge(&verdict(second, Answer::Gone)), Some(lost));
        assert!(doubts.judge(&verdict(second, Answer::Gone)).is_none(), "it counts once");
        for answer in [Answer::Alive, Answer::Unknown] {
            let number = doubts.doubt(peer, Why::Silent, connections(3));
            assert!(doubts.judge(&verdict(number, answer)).is_none());
            assert!(!doubts.contains(&peer), "it is over");
        }
        let number = doubts.doubt(peer, Why::Missed, connections(4));
        assert_eq!(doubts.judge(&verdict(number, Answer::Unheard)), Some(Judged::ToBeWatched));
        let number = doubts.doubt(peer, Why::Missed, connections(4));
        assert_eq!(
            doubts.judge(&verdict(number, Answer::Alive)),
            Some(Judged::ToBeWatched),
            "others hear nothing"
        );
        let number = doubts.doubt(peer, Why::Silent, connections(4));
        doubts.forget(&peer);
        assert!(doubts.judge(&verdict(number, Answer::Gone)).is_none(), "it has answered meanwhile");
    }
}
