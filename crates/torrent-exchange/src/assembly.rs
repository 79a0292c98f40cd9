//! Pieces that are under way on one stream, put together from their messages. Pure. Memory is for one piece at a time,
//! and only for one that was asked for.

use std::collections::BTreeMap;

use bytes::Bytes;
use model_torrent::{Piece, PieceIndex};

use crate::error::ExchangeError;

/// What was asked and is not answered completely.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    asked: BTreeMap<PieceIndex, Asked>,
    /// The piece whose bytes are coming.
    current: Option<(PieceIndex, Vec<u8>)>,
}

#[derive(Debug)]
struct Asked {
    length: u32,
    is_cancelled: bool,
}

impl Assembly {
    /// A piece is asked for.
    pub(crate) fn ask(&mut self, piece: &Piece) {
        self.asked.insert(piece.index, Asked { length: piece.length, is_cancelled: false });
    }

    /// A piece is not needed any more. Says whether the peer must be told.
    pub(crate) fn cancel(&mut self, piece: PieceIndex) -> bool {
        let asked = self.asked.get_mut(&piece).filter(|asked| !asked.is_cancelled);
        asked.map(|asked| asked.is_cancelled = true).is_some()
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// Some bytes came. Gives the whole piece with its last ones, unless it is not needed any more.
    pub(crate) fn take(
        &mut self,
        piece: PieceIndex,
        offset: u32,
        bytes: &Bytes,
    ) -> Result<Option<Vec<u8>>, ExchangeError> {
        let Some(asked) = self.asked.get(&piece) else {
            return Err(ExchangeError::field("piece.piece", "is not under way"));
        };
        let (current, whole) = self.current.get_or_insert_with(|| (piece, vec![]));
        if *current != piece {
            return Err(ExchangeError::field("piece.piece", "comes in the middle of another one"));
        }
        if offset as usize != whole.len() {
            return Err(ExchangeError::field("piece.offset", "is not where the last bytes ended"));
        }
        if whole.len() + bytes.len() > asked.length as usize {
            return Err(ExchangeError::field("piece.bytes", "are more than the piece has"));
        }
        whole.extend_from_slice(bytes);
        if whole.len() < asked.length as usize {
            return Ok(None);
        }
        let is_needed = !asked.is_cancelled;
        self.asked.remove(&piece);
        Ok(self.current.take().map(|(_, whole)| whole).filter(|_| is_needed))
    }

    /// A piece is refused. Says whether it was still needed.
    pub(crate) fn refused(&mut self, piece: PieceIndex) -> Result<bool, ExchangeError> {
        let Some(asked) = self.asked.remove(&piece) else {
            return Err(ExchangeError::field("refused.piece", "is not under way"));
        };
        self.current.take_if(|(current, _)| *current == piece);
        Ok(!asked.is_cancelled)
    }
}

#[cfg(test)]
mod tests {
    use model_torrent::{Hashing, Layout, Metainfo};

    use super::*;

    /// Three pieces: two of 256 KiB, one of 5 bytes.
    fn layout() -> Layout {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made.gguf");
        std::fs::write(&path, vec![7; 2 * 256 * 1024 + 5]).unwrap();
        let hashing = Hashing { threads: std::num::NonZeroUsize::MIN, progress: &|_| {} };
        Metainfo::of_files(&[path], &hashing).unwrap().layout().clone()
    }

    #[test]
    fn a_piece_is_put_together_and_what_does_not_belong_is_refused() {
        let (layout, mut assembly) = (layout(), Assembly::default());
        let pieces = [0, 1, 2].map(PieceIndex);
        pieces.iter().for_each(|piece| assembly.ask(&layout.piece(*piece).unwrap()));
        let half = Bytes::from(vec![7; 128 * 1024]);
        let some = Bytes::from_static(b"some");
        assert_eq!(assembly.take(pieces[0], 0, &half).unwrap(), None);
        for (piece, offset, bytes, words) in [
            (9, 0, &some, "piece.piece is not under way"),
            (1, 0, &some, "piece.piece comes in the middle"),
            (0, 0, &some, "piece.offset is not"),
            (0, 128 * 1024, &Bytes::from(vec![0; 128 * 1024 + 1]), "piece.bytes are more"),
        ] {
            let refused = assembly.take(PieceIndex(piece), offset, bytes).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
        assert_eq!(
            assembly.take(pieces[0], 128 * 1024, &half).unwrap().map(|piece| piece.len()),
            Some(256 * 1024)
        );
        assert!(assembly.take(pieces[0], 0, &half).is_err(), "it came");
        assert!(assembly.cancel(pieces[2]) && !assembly.cancel(pieces[2]) && !assembly.cancel(pieces[0]));
        assert_eq!(assembly.take(pieces[2], 0, &Bytes::from_static(b"bytes")).unwrap(), None, "not needed");
        assert_eq!(assembly.take(pieces[1], 0, &half).unwrap(), None);
        assert!(assembly.refused(pieces[1]).unwrap() && assembly.refused(pieces[1]).is_err());
        assert!(assembly.is_idle());
    }
}
