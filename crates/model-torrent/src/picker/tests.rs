//! A swarm of made-up peers, seen from the picker.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::Picker;
use crate::{PieceIndex, PieceSet};

fn set(pieces: u32, members: &[u32]) -> PieceSet {
    let mut set = PieceSet::empty(pieces);
    members.iter().for_each(|piece| set.insert(PieceIndex(*piece)));
    set
}

const NONE: [u32; 0] = [];

/// Asks one peer until nothing comes.
fn all_of(picker: &mut Picker<char>, peer: char) -> Vec<u32> {
    std::iter::from_fn(|| picker.next(&peer)).map(|piece| piece.0).collect()
}

#[test]
fn the_rarest_comes_first_and_what_nobody_has_never() {
    let mut picker = Picker::new(&set(8, &[0, 1, 2, 3]), 7, 10);
    picker.peer_has(&'a', set(8, &[0, 1, 2, 7]));
    picker.peer_has(&'b', set(8, &[0, 1]));
    picker.peer_has(&'c', set(8, &[0]));
    assert_eq!(all_of(&mut picker, 'a'), [2, 1, 0]);
    picker.peer_got(&'c', PieceIndex(3));
    assert_eq!(picker.next(&'c'), Some(PieceIndex(3)), "and not 0, which is under way");
    picker.peer_left(&'a');
    picker.peer_got(&'b', PieceIndex(2));
    assert_eq!(picker.next(&'b'), Some(PieceIndex(2)), "what was under way with who left is open again");
}

#[test]
fn equally_rare_ones_come_in_the_order_of_the_seed() {
    let order = |seed| {
        let mut picker = Picker::new(&PieceSet::full(32), seed, 32);
        picker.peer_has(&'a', PieceSet::full(32));
        all_of(&mut picker, 'a')
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    assert_ne!(order(1), (0..32).collect::<Vec<_>>());
}

#[test]
fn only_what_is_late_and_the_last_is_asked_of_a_second_peer() {
    let mut picker = Picker::new(&PieceSet::full(3), 7, 2);
    for peer in ['a', 'b', 'c'] {
        picker.peer_has(&peer, PieceSet::full(3));
    }
    let first = all_of(&mut picker, 'a');
    assert_eq!(first.len(), 2, "no more than two at once");
    picker.late(&'a', PieceIndex(first[0]));
    let second = all_of(&mut picker, 'b');
    assert_eq!(second.len(), 2, "the third, and then the late one, now that nothing else is left");
    assert_eq!(second[1], first[0]);
    assert_eq!(all_of(&mut picker, 'c'), NONE, "two have the late one, and the others are not late");
    picker.late(&'c', PieceIndex(first[1]));
    assert_eq!(all_of(&mut picker, 'c'), NONE, "it is not under way with that peer");
    picker.failed(&'a', PieceIndex(first[0]));
    assert_eq!(all_of(&mut picker, 'c'), NONE, "the one that is left is not late");
    picker.late(&'b', PieceIndex(first[0]));
    assert_eq!(all_of(&mut picker, 'c'), [first[0]]);
    assert_eq!(picker.arrived(PieceIndex(first[0])), ['b', 'c']);
    assert_eq!(picker.arrived(PieceIndex(first[0])), [], "it comes once");
    picker.late(&'a', PieceIndex(first[1]));
    picker.peer_left(&'a');
    assert_eq!(all_of(&mut picker, 'c'), [first[1]], "what was under way with who left is open again");
    assert_eq!(all_of(&mut picker, 'b'), NONE, "and late with nobody");
}

#[test]
fn who_failed_a_piece_is_not_asked_again_not_even_after_coming_back() {
    let mut picker = Picker::new(&set(4, &[1]), 7, 2);
    picker.peer_has(&'a', PieceSet::full(4));
    assert_eq!(all_of(&mut picker, 'a'), [1]);
    picker.failed(&'a', PieceIndex(1));
    picker.peer_left(&'a');
    picker.peer_has(&'a', PieceSet::full(4));
    assert_eq!(all_of(&mut picker, 'a'), NONE);
    picker.peer_has(&'b', PieceSet::full(4));
    assert_eq!(all_of(&mut picker, 'b'), [1]);
    picker.arrived(PieceIndex(1));
    assert!(picker.is_done());
}

/// What happens next, to the peer and among its pieces that the indices choose.
#[derive(Clone, Debug)]
enum Event {
    Ask(Index),
    Late(Index),
    Arrive(Index),
    Fail(Index),
    Leave(Index),
    Come(Index, Vec<bool>),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => any::<Index>().prop_map(Event::Ask),
        2 => any::<Index>().prop_map(Event::Late),
        3 => any::<Index>().prop_map(Event::Arrive),
        1 => any::<Index>().prop_map(Event::Fail),
        1 => any::<Index>().prop_map(Event::Leave),
        1 => (any::<Index>(), vec(any::<bool>(), PIECES as usize)).prop_map(|(peer, has)| Event::Come(peer, has)),
    ]
}

const PIECES: u32 = 20;
const AT_ONCE: usize = 3;
/// Has everything, fails nothing and stays.
const FAITHFUL: u32 = 0;
const PEERS: u32 = 5;

/// The truth that the picker's answers are held against.
struct World {
    picker: Picker<u32>,
    missing: BTreeSet<PieceIndex>,
    peers: BTreeMap<u32, PieceSet>,
    under_way: Vec<(u32, PieceIndex)>,
    late: BTreeSet<PieceIndex>,
    failed: BTreeSet<(u32, PieceIndex)>,
}

impl World {
    fn new(wanted: &PieceSet, seed: u64) -> Self {
        let missing = wanted.iter().collect();
        let mut world = Self {
            picker: Picker::new(wanted, seed, AT_ONCE),
            missing,
            peers: BTreeMap::new(),
            under_way: vec![],
            late: BTreeSet::new(),
            failed: BTreeSet::new(),
        };
        world.come(FAITHFUL, PieceSet::full(PIECES));
        world
    }

    fn come(&mut self, peer: u32, has: PieceSet) {
        self.picker.peer_has(&peer, has.clone());
        self.peers.insert(peer, has);
    }

    fn can(&self, peer: u32, piece: PieceIndex) -> bool {
        self.peers.get(&peer).is_some_and(|has| has.contains(piece)) && !self.failed.contains(&(peer, piece))
    }

    fn asked(&self, piece: PieceIndex) -> usize {
        self.under_way.iter().filter(|(_, one)| *one == piece).count()
    }

    /// Everything that anybody could be asked for is under way.
    fn is_endgame(&self) -> bool {
        let open = |piece: &&PieceIndex| {
            self.asked(**piece) == 0 && self.peers.keys().any(|peer| self.can(*peer, **piece))
        };
        !self.missing.iter().any(|piece| open(&piece))
    }

    fn ask(&mut self, peer: u32) -> bool {
        let Some(piece) = self.picker.next(&peer) else { return false };
        assert!(self.missing.contains(&piece) && self.can(peer, piece));
        assert!(!self.under_way.contains(&(peer, piece)));
        assert!(self.under_way.iter().filter(|(one, _)| *one == peer).count() < AT_ONCE);
        match self.asked(piece) {
            0 => {}
            1 => {
                assert!(self.is_endgame(), "asked of two while others are open");
                assert!(self.late.contains(&piece), "asked of two though not late");
            }
            more => panic!("asked of {more} already"),
        }
        self.under_way.push((peer, piece));
        true
    }

    fn arrive(&mut self, at: usize) {
        let (_, piece) = self.under_way[at];
        let told: BTreeSet<_> = self.picker.arrived(piece).into_iter().collect();
        let with: Vec<_> = self.under_way.extract_if(.., |(_, one)| *one == piece).collect();
        assert_eq!(told, with.iter().map(|(peer, _)| *peer).collect());
        self.missing.remove(&piece);
    }

    fn happens(&mut self, event: Event) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        let one_under_way =
            |index: Index| (!self.under_way.is_empty()).then(|| index.index(self.under_way.len()));
        match event {
            Event::Ask(peer) => drop(self.ask(*peer.get(&peers))),
            Event::Late(index) => {
                if let Some((peer, piece)) = one_under_way(index).map(|at| self.under_way[at]) {
                    self.picker.late(&peer, piece);
                    if self.asked(piece) == 1 {
                        self.late.insert(piece);
                    }
                }
            }
            Event::Arrive(index) => {
                if let Some(at) = one_under_way(index) {
                    self.arrive(at);
                }
            }
            Event::Fail(index) => {
                let at = one_under_way(index).filter(|at| self.under_way[*at].0 != FAITHFUL);
                if let Some((peer, piece)) = at.map(|at| self.under_way.remove(at)) {
                    self.picker.failed(&peer, piece);
                    self.late.remove(&piece);
                    self.failed.insert((peer, piece));
                }
            }
            Event::Leave(peer) => {
                let peer = *peer.get(&peers);
                if peer != FAITHFUL {
                    self.picker.peer_left(&peer);
                    self.peers.remove(&peer);
                    for (_, piece) in self.under_way.extract_if(.., |(one, _)| *one == peer) {
                        self.late.remove(&piece);
                    }
                }
            }
            Event::Come(peer, has) => {
                let members: Vec<_> = (0..PIECES).filter(|piece| has[*piece as usize]).collect();
                self.come(1 + peer.index(PEERS as usize) as u32, set(PIECES, &members));
            }
        }
    }
}

proptest! {
    #[test]
    fn everything_is_got_and_twice_asked_only_in_the_endgame(
        wanted in vec(any::<bool>(), PIECES as usize),
        seed in any::<u64>(),
        events in vec(event(), 0..200),
    ) {
        let wanted: Vec<_> = (0..PIECES).filter(|piece| wanted[*piece as usize]).collect();
        let mut world = World::new(&set(PIECES, &wanted), seed);
        for event in events {
            world.happens(event);
        }
        // Whatever happened: the faithful one ends it, when each answers what it was asked.
        while !world.missing.is_empty() {
            let asked = world.ask(FAITHFUL);
            prop_assert!(asked || !world.under_way.is_empty(), "nothing is under way, and nothing asked");
            if !asked {
                world.arrive(0);
            }
        }
        prop_assert!(world.picker.is_done());
    }
}
