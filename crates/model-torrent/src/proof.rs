//! Proofs that some blocks belong to a piece, so that parts of it can be taken from different peers, and what a peer
//! makes up is seen before the piece is whole.

use std::ops::Range;

use crate::{
    BLOCK,
    error::TorrentError,
    hash::Hash,
    layout::Piece,
    merkle,
    metainfo::{Metainfo, hash_piece},
    piece_set::PieceIndex,
};

/// Blocks of one piece that are a subtree: a power of two of them, beginning at a multiple of their number. In a file's
/// last piece the last run is cut off at the file's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    piece: Piece,
    first: u32,
    blocks: u32,
}

impl Run {
    /// Of which piece.
    #[must_use]
    pub fn piece(&self) -> PieceIndex {
        self.piece.index
    }

    /// Its bytes within the piece.
    #[must_use]
    pub fn bytes(&self) -> Range<u32> {
        let end = (self.first + self.blocks) * BLOCK;
        self.first * BLOCK..end.min(self.piece.length)
    }

    /// How many hashes its proof has.
    fn height(&self) -> u32 {
        self.piece.width.ilog2() - self.blocks.ilog2()
    }
}

impl Metainfo {
    /// The blocks from `first` on, `blocks` of them.
    ///
    /// # Errors
    /// When there are no such blocks, or they are no subtree.
    pub fn run(&self, piece: PieceIndex, first: u32, blocks: u32) -> Result<Run, TorrentError> {
        let (piece, _) = self.piece(piece)?;
        let is_subtree = blocks.is_power_of_two() && blocks <= piece.width && first.is_multiple_of(blocks);
        if !is_subtree || first >= piece.length.div_ceil(BLOCK) {
            let what = format!("run of {blocks} blocks from {first} of piece {}", piece.index);
            return Err(TorrentError::OutOfBounds(what));
        }
        Ok(Run { piece, first, blocks })
    }

    /// The hashes that lead from a run up to its piece, lowest first; from the bytes of the whole piece.
    ///
    /// # Errors
    /// When these are not the piece's bytes.
    pub fn prove(&self, run: &Run, piece: &[u8]) -> Result<Vec<Hash>, TorrentError> {
        self.verify_piece(run.piece(), piece)?;
        Ok(merkle::uncles(merkle::leaves(piece), run.piece.width, run.first, run.blocks))
    }

    /// Checks the bytes of a run by their proof.
    ///
    /// # Errors
    /// When bytes and proof do not lead to the piece's hash.
    pub fn verify(&self, run: &Run, bytes: &[u8], proof: &[Hash]) -> Result<(), TorrentError> {
        let (piece, hash) = self.piece(run.piece())?;
        let fits =
            piece == run.piece && bytes.len() == run.bytes().len() && proof.len() == run.height() as usize;
        let top = || {
            let own = hash_piece(&Piece { width: run.blocks, ..piece }, bytes);
            merkle::climb(own, run.first / run.blocks, proof)
        };
        if fits && top() == *hash { Ok(()) } else { Err(TorrentError::WrongBytes { piece: run.piece() }) }
    }
}
