//! Whom a node watches. Who watches is watched as well: it asks, and hears whether the other still answers, who hears
//! whether it still asks. In a small swarm there is one who watches for every pair. In a large one that would cost
//! more with each node that joins: there a node watches those that it works with, and a few others, chosen so that
//! everybody is watched by somebody; who notices a loss tells all. Pure.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::PeerId;

/// Up to so many peers every pair is watched, by the one with the smaller id.
pub(crate) const ALL_UP_TO: usize = 16;
/// Beyond that, so many: those that come next in the circle of all ids. So each node is watched by as many, and as each
/// of two notices when the other is silent, by twice as many in all. Who has lost both neighbours has new ones at once.
const NEXT_IN_CIRCLE: usize = 1;

/// Of these peers those to watch. `peers` says of each whether this node works with it.
pub(crate) fn watched(me: &PeerId, peers: &BTreeMap<PeerId, bool>) -> BTreeSet<PeerId> {
    let after = peers.range(me..).map(|(peer, _)| peer);
    if peers.len() <= ALL_UP_TO {
        return after.copied().collect();
    }
    let circle = after.chain(peers.keys()).take(NEXT_IN_CIRCLE);
    let in_use = peers.iter().filter(|(_, in_use)| **in_use).map(|(peer, _)| peer);
    circle.chain(in_use).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(all: &[PeerId], me: &PeerId) -> BTreeMap<PeerId, bool> {
        all.iter().filter(|peer| *peer != me).map(|peer| (*peer, false)).collect()
    }

    #[test]
    fn in_a_small_swarm_every_pair_is_watched_and_in_a_large_one_each_by_as_many() {
        for (nodes, watchers) in [(2, 1), (17, 16), (18, 2 * NEXT_IN_CIRCLE), (200, 2 * NEXT_IN_CIRCLE)] {
            let all: Vec<PeerId> = (0..nodes).map(|_| PeerId::random()).collect();
            let mut times: BTreeMap<PeerId, usize> = BTreeMap::new();
            for me in &all {
                for peer in watched(me, &others(&all, me)) {
                    assert_ne!(peer, *me);
                    *times.entry(peer).or_default() += 1;
                    *times.entry(*me).or_default() += 1;
                }
            }
            assert_eq!(times.len(), nodes, "nobody is left out of {nodes}");
            assert!(times.values().all(|times| *times == watchers), "{nodes}: {times:?}");
        }
    }

    #[test]
    fn who_is_worked_with_is_watched_too() {
        let all: Vec<PeerId> = (0..50).map(|_| PeerId::random()).collect();
        let mut peers = others(&all, &all[0]);
        let before = watched(&all[0], &peers);
        let other = *peers.keys().find(|peer| !before.contains(peer)).unwrap();
        peers.insert(other, true);
        assert!(watched(&all[0], &peers).contains(&other));
        assert_eq!(watched(&all[0], &peers).len(), NEXT_IN_CIRCLE + 1);
    }
}
