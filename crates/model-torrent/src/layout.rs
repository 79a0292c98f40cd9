//! How the bytes of a torrent's files lie in pieces. Follows from the files' lengths alone.

use std::{ops::Range, path::PathBuf};

use crate::{
    BLOCK,
    error::TorrentError,
    piece_set::{PieceIndex, PieceSet},
};

/// The piece of small models. Smaller ones would not be checked faster.
const SHORTEST_PIECE: u64 = 256 * 1024;
/// The piece of the largest models. What is wrong in a piece, or half fetched at the end of a layer, is fetched again:
/// with more than this it would be felt.
const LONGEST_PIECE: u64 = 4 * 1024 * 1024;
/// So many pieces keep the metainfo of usual models (up to 32 GiB) below 256 KiB, which travels before anything else.
const MANY_PIECES: u64 = 8192;
/// 4 TiB of the longest pieces, more than any model has; their hashes take 32 MiB.
const MAX_PIECES: u64 = 1 << 20;
/// The largest models have some hundred parts.
pub(crate) const MAX_FILES: usize = 1024;

/// Where a piece lies. A piece is in one file only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Its number.
    pub index: PieceIndex,
    /// In which file, from 0.
    pub file: usize,
    /// Where in that file it begins, in bytes.
    pub offset: u64,
    /// Its bytes. Only a file's last piece is shorter than the others.
    pub length: u32,
    /// How many leaves the tree over the piece has, those behind the file's end too: a power of two.
    pub(crate) width: u32,
}

/// Pieces and files of a torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    piece_length: u64,
    files: Vec<Span>,
    total: u64,
    pieces: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Span {
    length: u64,
    start: u64,
    first_piece: u32,
}

impl Layout {
    /// Of files with these lengths, in this order.
    ///
    /// # Errors
    /// Says in words what no model has: no file, an empty one, too many files, bytes or pieces.
    pub(crate) fn new(lengths: &[u64]) -> Result<Self, String> {
        if lengths.is_empty() || lengths.len() > MAX_FILES {
            return Err(format!("there are {} files, not 1 to {MAX_FILES}", lengths.len()));
        }
        let total = lengths.iter().try_fold(0u64, |sum, length| sum.checked_add(*length));
        let total = total.filter(|total| total.div_ceil(LONGEST_PIECE) <= MAX_PIECES);
        let total = total.ok_or("there are more bytes than any model has")?;
        let piece_length = piece_length(total);
        let (mut files, mut start, mut pieces) = (vec![], 0, 0u64);
        for length in lengths {
            if *length == 0 {
                return Err(format!("file {} is empty", files.len() + 1));
            }
            files.push(Span { length: *length, start, first_piece: pieces as u32 });
            start += length;
            pieces += length.div_ceil(piece_length);
        }
        Ok(Self { piece_length, files, total, pieces: pieces as u32 })
    }

    /// Bytes of a piece that is not a file's last.
    #[must_use]
    pub fn piece_length(&self) -> u32 {
        self.piece_length as u32
    }

    /// How many pieces there are.
    #[must_use]
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many files there are.
    #[must_use]
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Bytes of each file.
    pub fn lengths(&self) -> impl Iterator<Item = u64> {
        self.files.iter().map(|file| file.length)
    }

    /// Where a file begins among the bytes of all files.
    #[must_use]
    pub fn start(&self, file: usize) -> Option<u64> {
        self.files.get(file).map(|span| span.start)
    }

    /// A file's pieces.
    #[must_use]
    pub fn pieces_of(&self, file: usize) -> Option<Range<u32>> {
        let first = self.files.get(file)?.first_piece;
        Some(first..self.files.get(file + 1).map_or(self.pieces, |next| next.first_piece))
    }

    /// Where a piece lies.
    #[must_use]
    pub fn piece(&self, index: PieceIndex) -> Option<Piece> {
        if index.0 >= self.pieces {
            return None;
        }
        let file = self.files.partition_point(|span| span.first_piece <= index.0) - 1;
        let span = &self.files[file];
        let offset = u64::from(index.0 - span.first_piece) * self.piece_length;
        let length = (span.length - offset).min(self.piece_length) as u32;
        // BEP 52: the tree over a file of one piece is no wider than its blocks need.
        let alone = span.length <= self.piece_length;
        let width =
            if alone { length.div_ceil(BLOCK).next_power_of_two() } else { self.piece_length() / BLOCK };
        Some(Piece { index, file, offset, length, width })
    }

    /// The pieces that hold ranges of the bytes of all files, one behind the other. A header is from 0 to where the
    /// tensors begin.
    ///
    /// # Errors
    /// When a range ends behind the last byte.
    pub fn covering(&self, ranges: impl IntoIterator<Item = Range<u64>>) -> Result<PieceSet, TorrentError> {
        let mut pieces = PieceSet::empty(self.pieces);
        for range in ranges {
            if range.end > self.total {
                return Err(TorrentError::Range { range, total: self.total });
            }
            if range.start < range.end {
                let (first, last) = (self.piece_at(range.start), self.piece_at(range.end - 1));
                (first..=last).for_each(|piece| pieces.insert(PieceIndex(piece)));
            }
        }
        Ok(pieces)
    }

    /// The torrent's name. Fixed, since it is part of the info-hash: a model is the same under any name.
    pub(crate) fn name(&self) -> &'static str {
        if self.files.len() == 1 { "model.gguf" } else { "model" }
    }

    /// A file's name in the torrent, fixed for the same reason; the parts of a model have the names of parts.
    pub(crate) fn file_name(&self, file: usize) -> String {
        match self.files.len() {
            1 => "model.gguf".into(),
            count => format!("model-{:05}-of-{count:05}.gguf", file + 1),
        }
    }

    /// Where a file lies below a folder, as BitTorrent has it: several files are in a folder of the torrent's name.
    #[must_use]
    pub fn path(&self, file: usize) -> PathBuf {
        match self.files.len() {
            1 => self.name().into(),
            _ => [self.name(), &self.file_name(file)].iter().collect(),
        }
    }

    /// The piece with this byte, which there is.
    fn piece_at(&self, byte: u64) -> u32 {
        let file = self.files.partition_point(|span| span.start <= byte) - 1;
        let span = &self.files[file];
        span.first_piece + ((byte - span.start) / self.piece_length) as u32
    }
}

/// A function of the bytes of all files: the same on every node, or the same model would have several info-hashes.
/// Never change it.
fn piece_length(total: u64) -> u64 {
    let mut length = SHORTEST_PIECE;
    while length < LONGEST_PIECE && total.div_ceil(length) > MANY_PIECES {
        length *= 2;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    #[test]
    fn large_models_have_longer_pieces_up_to_a_bound() {
        let gib = KIB * KIB * KIB;
        let table = [
            (1, 256),
            (98_362_432, 256),
            (2 * gib, 256),
            (2 * gib + 1, 512),
            (5 * gib, 1024),
            (17 * gib, 4096),
            (900 * gib, 4096),
        ];
        for (total, expected) in table {
            assert_eq!(piece_length(total), expected * KIB, "{total}");
        }
    }

    #[test]
    fn a_piece_is_in_one_file_and_the_last_ones_are_shorter() {
        let layout = Layout::new(&[600 * KIB, 5, 256 * KIB]).unwrap();
        let pieces: Vec<_> = (0..6).map(|index| layout.piece(PieceIndex(index))).collect();
        let told: Vec<_> = pieces.iter().flatten().map(|p| (p.file, p.offset, p.length, p.width)).collect();
        let (whole, kib) = (256 * 1024, 1024);
        let first = [(0, 0, whole, 16), (0, 256 * KIB, whole, 16), (0, 512 * KIB, 88 * kib, 16)];
        assert_eq!(told, [&first[..], &[(1, 0, 5, 1), (2, 0, whole, 16)]].concat());
        assert_eq!(layout.pieces_of(0), Some(0..3));
        assert_eq!(layout.pieces_of(2), Some(4..5));
        assert_eq!(layout.path(1).to_str(), Some("model/model-00002-of-00003.gguf"));
    }

    #[test]
    fn ranges_are_covered_by_the_pieces_that_they_touch() {
        let layout = Layout::new(&[600 * KIB, 5, 256 * KIB]).unwrap();
        let covering = |ranges: &[(u64, u64)]| {
            let pieces = layout.covering(ranges.iter().map(|(start, end)| *start..*end));
            pieces.map(|set| set.iter().map(|piece| piece.0).collect::<Vec<_>>())
        };
        let (file, total) = (600 * KIB, layout.total());
        assert_eq!(covering(&[(0, 1)]).unwrap(), [0]);
        assert_eq!(covering(&[(256 * KIB - 1, 256 * KIB + 1)]).unwrap(), [0, 1]);
        assert_eq!(covering(&[(file - 1, file + 6), (7, 7)]).unwrap(), [2, 3, 4]);
        assert_eq!(covering(&[(0, total)]).unwrap(), [0, 1, 2, 3, 4]);
        assert!(matches!(covering(&[(0, total + 1)]), Err(TorrentError::Range { .. })));
    }

    #[test]
    fn lengths_that_no_model_has_are_refused() {
        let many = vec![1; MAX_FILES + 1];
        for lengths in [&[][..], &[0], &[5, 0], &[u64::MAX], &[u64::MAX, 1], &[1 << 43], &many] {
            assert!(Layout::new(lengths).is_err(), "{:?}", lengths.first());
        }
    }
}
