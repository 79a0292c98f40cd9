//! A torrent: where its pieces lie, and what they hash to.

use swarm_types::ModelDigest;

use crate::{
    BLOCK,
    error::TorrentError,
    hash::Hash,
    info,
    layout::{Layout, Piece},
    merkle,
    piece_set::PieceIndex,
};

/// A model's files by content. If there is one, its hashes lead up to its info-hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metainfo {
    layout: Layout,
    pieces: Vec<Hash>,
    roots: Vec<Hash>,
    info_hash: ModelDigest,
}

impl Metainfo {
    /// From the hash of each piece.
    pub(crate) fn new(layout: Layout, pieces: Vec<Hash>) -> Self {
        assert_eq!(pieces.len(), layout.pieces() as usize, "each piece has its hash");
        let roots: Vec<_> = (0..layout.files()).map(|file| root(&pieces, &layout, file)).collect();
        let info_hash = ModelDigest(Hash::of(&info::encode(&layout, &roots)).0);
        Self { layout, pieces, roots, info_hash }
    }

    /// Which model this is.
    #[must_use]
    pub fn info_hash(&self) -> ModelDigest {
        self.info_hash
    }

    /// Where files and pieces lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The top of each file's tree.
    pub(crate) fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// The hashes of a file's pieces.
    pub(crate) fn hashes_of(&self, file: usize) -> &[Hash] {
        hashes_of(&self.pieces, &self.layout, file)
    }

    /// A piece, and what it hashes to.
    pub(crate) fn piece(&self, index: PieceIndex) -> Result<(Piece, &Hash), TorrentError> {
        let none = || TorrentError::OutOfBounds(format!("piece {index}"));
        let piece = self.layout.piece(index).ok_or_else(none)?;
        Ok((piece, &self.pieces[index.0 as usize]))
    }

    /// Checks the bytes of a piece.
    ///
    /// # Errors
    /// When these are not its bytes, or there is no such piece.
    pub fn verify_piece(&self, index: PieceIndex, bytes: &[u8]) -> Result<(), TorrentError> {
        let (piece, hash) = self.piece(index)?;
        let right = bytes.len() == piece.length as usize && hash_piece(&piece, bytes) == *hash;
        if right { Ok(()) } else { Err(TorrentError::WrongBytes { piece: index }) }
    }
}

/// What the bytes of a whole piece hash to.
pub(crate) fn hash_piece(piece: &Piece, bytes: &[u8]) -> Hash {
    merkle::top(merkle::leaves(bytes), piece.width, Hash::NOTHING)
}

fn hashes_of<'a>(pieces: &'a [Hash], layout: &Layout, file: usize) -> &'a [Hash] {
    let range = layout.pieces_of(file).unwrap_or_default();
    &pieces[range.start as usize..range.end as usize]
}

/// The top of a file's tree.
fn root(pieces: &[Hash], layout: &Layout, file: usize) -> Hash {
    let layer = hashes_of(pieces, layout, file).to_vec();
    let width = (layer.len() as u32).next_power_of_two();
    merkle::top(layer, width, merkle::padding(layout.piece_length() / BLOCK))
}
