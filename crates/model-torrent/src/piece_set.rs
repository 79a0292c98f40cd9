//! Which pieces: wanted, here, or at a peer.

use std::fmt;

/// A piece's number, over all files from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PieceIndex(pub u32);

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A set of a torrent's pieces. As bytes it is BitTorrent's bit field: the first piece is the highest bit of the first
/// byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PieceSet {
    bits: Vec<u8>,
    pieces: u32,
}

impl PieceSet {
    /// None of so many pieces.
    #[must_use]
    pub fn empty(pieces: u32) -> Self {
        Self { bits: vec![0; pieces.div_ceil(8) as usize], pieces }
    }

    /// All of so many pieces.
    #[must_use]
    pub fn full(pieces: u32) -> Self {
        let mut set = Self { bits: vec![0xff; pieces.div_ceil(8) as usize], pieces };
        if let Some(last) = set.bits.last_mut().filter(|_| !pieces.is_multiple_of(8)) {
            *last <<= 8 - pieces % 8;
        }
        set
    }

    /// From a bit field; nothing when it is not one of so many pieces, to the last bit.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], pieces: u32) -> Option<Self> {
        let whole = Self::full(pieces);
        let fits = bytes.len() == whole.bits.len()
            && bytes.iter().zip(&whole.bits).all(|(byte, whole)| byte & !whole == 0);
        fits.then(|| Self { bits: bytes.into(), pieces })
    }

    /// As a bit field.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Of how many pieces this is a set.
    #[must_use]
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// How many are in it.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.bits.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Whether all are in it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count() == self.pieces
    }

    /// Whether the piece is in it; one that there is not never is.
    #[must_use]
    pub fn contains(&self, piece: PieceIndex) -> bool {
        piece.0 < self.pieces && self.bits[piece.0 as usize / 8] & bit(piece) != 0
    }

    /// Puts a piece into it. One that there is not changes nothing.
    pub fn insert(&mut self, piece: PieceIndex) {
        if piece.0 < self.pieces {
            self.bits[piece.0 as usize / 8] |= bit(piece);
        }
    }

    /// Takes a piece out of it.
    pub fn remove(&mut self, piece: PieceIndex) {
        if piece.0 < self.pieces {
            self.bits[piece.0 as usize / 8] &= !bit(piece);
        }
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let theirs = other.bits.iter().chain(std::iter::repeat(&0));
        Self { bits: self.bits.iter().zip(theirs).map(|(ours, theirs)| ours & !theirs).collect(), ..*self }
    }

    /// Whether everything in the other set is in this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|piece| self.contains(piece))
    }

    /// What is in it, in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        (0..self.pieces).map(PieceIndex).filter(|piece| self.contains(*piece))
    }
}

fn bit(piece: PieceIndex) -> u8 {
    0x80 >> (piece.0 % 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_the_bit_field_of_bittorrent() {
        let mut set = PieceSet::empty(11);
        [0, 3, 10, 11, 400].into_iter().for_each(|piece| set.insert(PieceIndex(piece)));
        assert_eq!(set.as_bytes(), [0b1001_0000, 0b0010_0000]);
        assert_eq!(set.iter().map(|piece| piece.0).collect::<Vec<_>>(), [0, 3, 10]);
        assert_eq!(PieceSet::from_bytes(set.as_bytes(), 11).as_ref(), Some(&set));
        assert!(!set.contains(PieceIndex(11)) && PieceSet::full(11).covers(&set) && !set.is_full());
        let others = PieceSet::full(11).without(&set);
        assert_eq!(others.as_bytes(), [0b0110_1111, 0b1100_0000]);
        assert_eq!((PieceSet::full(11).count(), PieceSet::full(16).count()), (11, 16));
    }

    #[test]
    fn a_bit_field_of_another_length_is_none() {
        for wrong in [&[0][..], &[0, 0, 0], &[0, 0b0001_0000]] {
            assert_eq!(PieceSet::from_bytes(wrong, 11), None);
        }
    }
}
