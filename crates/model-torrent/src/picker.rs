//! Which piece to ask of which peer next. Pure: it is told what happens, and decides.

use std::collections::{BTreeMap, BTreeSet};

use crate::piece_set::{PieceIndex, PieceSet};

/// A piece is asked of one peer, and in the endgame of one more if the first is late: whose answer comes first ends the
/// wait.
const MOST_ASKED: usize = 2;

/// What is still wanted, and who has it. `P` names a peer.
///
/// The rarest piece comes first, so that none dies out; among equally rare ones the seed decides, so that workers with
/// different seeds ask for different ones and can give them to each other. A piece is under way with one peer only,
/// until nothing else is left that anybody could be asked for (the endgame); then a second one may be asked for what is
/// late with the first. What is late, the picker is told. Who failed a piece is not asked for it again.
#[derive(Clone, Debug)]
pub struct Picker<P> {
    seed: u64,
    at_once: usize,
    missing: BTreeMap<PieceIndex, Missing<P>>,
    /// Those under way with nobody, rarest first: peers that can be asked, the seed's order, the piece.
    open: BTreeSet<(usize, u64, PieceIndex)>,
    peers: BTreeMap<P, Peer>,
}

/// A piece that is wanted and not here.
#[derive(Clone, Debug)]
struct Missing<P> {
    /// How many present peers have it and did not fail it.
    holders: usize,
    /// With whom it is under way.
    asked: Vec<P>,
    /// Whether it is late with the one with whom it is under way.
    is_late: bool,
    /// Who failed it, present or not: coming back does not help.
    failed: BTreeSet<P>,
}

#[derive(Clone, Debug)]
struct Peer {
    has: PieceSet,
    /// How many pieces are under way with it.
    asked: usize,
}

impl<P: PartialEq> Missing<P> {
    fn new(holders: usize) -> Self {
        Self { holders, asked: vec![], is_late: false, failed: BTreeSet::new() }
    }

    /// It is not under way with this peer. Who is left is not known to be late.
    fn not_asked(&mut self, peer: &P) {
        self.asked.retain(|asked| asked != peer);
        self.is_late = false;
    }
}

impl<P: Ord + Clone> Picker<P> {
    /// For the pieces that are wanted and not here. At most `at_once` are under way with one peer.
    pub fn new(missing: &PieceSet, seed: u64, at_once: usize) -> Self {
        let mut picker =
            Self { seed, at_once, missing: BTreeMap::new(), open: BTreeSet::new(), peers: BTreeMap::new() };
        picker.want(missing);
        picker
    }

    /// These are wanted too. They must not be here.
    pub fn want(&mut self, missing: &PieceSet) {
        for piece in missing.iter().filter(|piece| !self.missing.contains_key(piece)).collect::<Vec<_>>() {
            let holders = self.peers.values().filter(|peer| peer.has.contains(piece)).count();
            self.missing.insert(piece, Missing::new(holders));
            self.open.insert((holders, self.tie(piece), piece));
        }
    }

    /// A peer came, or tells again all that it has.
    pub fn peer_has(&mut self, peer: &P, pieces: PieceSet) {
        let nothing = Peer { has: PieceSet::empty(pieces.pieces()), asked: 0 };
        let before = self.peers.entry(peer.clone()).or_insert(nothing);
        let before = std::mem::replace(&mut before.has, pieces.clone());
        self.count(peer, &before, &pieces);
    }

    /// A peer got one more piece.
    pub fn peer_got(&mut self, peer: &P, piece: PieceIndex) {
        let known = self.peers.get_mut(peer).filter(|known| !known.has.contains(piece));
        if let Some(known) = known {
            known.has.insert(piece);
            self.change(piece, |missing| missing.holders += usize::from(!missing.failed.contains(peer)));
        }
    }

    /// A peer went. What was under way with it is to be asked of others.
    pub fn peer_left(&mut self, peer: &P) {
        let Some(gone) = self.peers.remove(peer) else { return };
        self.count(peer, &gone.has, &PieceSet::empty(gone.has.pieces()));
        let pieces: Vec<_> = self.missing.iter().filter(|(_, piece)| piece.asked.contains(peer)).collect();
        for piece in pieces.into_iter().map(|(piece, _)| *piece).collect::<Vec<_>>() {
            self.change(piece, |piece| piece.not_asked(peer));
        }
    }

    /// What to ask of this peer next; from then on it is under way with it. Nothing when enough is under way with it,
    /// or it has nothing to be asked for.
    pub fn next(&mut self, peer: &P) -> Option<PieceIndex> {
        let known = self.peers.get(peer).filter(|known| known.asked < self.at_once)?;
        let can = |piece: &PieceIndex| {
            known.has.contains(*piece)
                && self.missing.get(piece).is_some_and(|missing| !missing.failed.contains(peer))
        };
        let mut available = self.open.range((1, 0, PieceIndex(0))..).map(|(_, _, piece)| piece);
        let in_order = available.clone().find(|piece| can(piece)).copied();
        let piece = match in_order {
            None if available.next().is_none() => self.endgame(peer, can)?,
            in_order => in_order?,
        };
        self.change(piece, |missing| missing.asked.push(peer.clone()));
        self.asked(peer, 1);
        Some(piece)
    }

    /// A piece is here. Gives those it is under way with, who need not send it any more.
    pub fn arrived(&mut self, piece: PieceIndex) -> Vec<P> {
        let Some(missing) = self.missing.remove(&piece) else { return vec![] };
        self.open.remove(&(missing.holders, self.tie(piece), piece));
        missing.asked.iter().for_each(|peer| self.asked(peer, -1));
        missing.asked
    }

    /// A peer refused a piece, sent other bytes, or sent nothing for too long.
    pub fn failed(&mut self, peer: &P, piece: PieceIndex) {
        let has = self.peers.get(peer).is_some_and(|known| known.has.contains(piece));
        let was_asked = self.missing.get(&piece).is_some_and(|missing| missing.asked.contains(peer));
        self.change(piece, |missing| {
            missing.not_asked(peer);
            if missing.failed.insert(peer.clone()) && has {
                missing.holders -= 1;
            }
        });
        if was_asked {
            self.asked(peer, -1);
        }
    }

    /// A piece that is under way with this peer should have come: one more may be asked.
    pub fn late(&mut self, peer: &P, piece: PieceIndex) {
        if let Some(missing) = self.missing.get_mut(&piece) {
            missing.is_late |= missing.asked == [peer.clone()];
        }
    }

    /// Whether everything that is wanted is here.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.missing.is_empty()
    }

    /// A piece that is late with one other peer.
    fn endgame(&self, peer: &P, can: impl Fn(&PieceIndex) -> bool) -> Option<PieceIndex> {
        let is_late =
            |missing: &Missing<P>| missing.is_late && (1..MOST_ASKED).contains(&missing.asked.len());
        let late = self.missing.iter().filter(|(_, piece)| is_late(piece) && !piece.asked.contains(peer));
        let pieces = late.map(|(piece, _)| *piece).filter(can);
        pieces.min_by_key(|piece| self.tie(*piece))
    }

    /// Counts the holders again where a peer has something else than before.
    fn count(&mut self, peer: &P, before: &PieceSet, now: &PieceSet) {
        let changed = |piece: &PieceIndex| before.contains(*piece) != now.contains(*piece);
        for piece in self.missing.keys().copied().filter(changed).collect::<Vec<_>>() {
            self.change(piece, |missing| match now.contains(piece) {
                _ if missing.failed.contains(peer) => {}
                true => missing.holders += 1,
                false => missing.holders -= 1,
            });
        }
    }

    /// Changes what is known of a missing piece, and where it stands among the open ones.
    fn change(&mut self, piece: PieceIndex, change: impl FnOnce(&mut Missing<P>)) {
        let tie = self.tie(piece);
        let Some(missing) = self.missing.get_mut(&piece) else { return };
        self.open.remove(&(missing.holders, tie, piece));
        change(missing);
        if missing.asked.is_empty() {
            self.open.insert((missing.holders, tie, piece));
        }
    }

    fn asked(&mut self, peer: &P, change: isize) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.asked = known.asked.saturating_add_signed(change);
        }
    }

    /// The seed's order: SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>).
    fn tie(&self, piece: PieceIndex) -> u64 {
        let mut mixed = self.seed.wrapping_add(u64::from(piece.0).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests;
