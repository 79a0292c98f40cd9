//! What nodes tell each other of the torrents they hold.

use crate::{ModelDigest, Source, id::MAX_TEXT, visible::is_visible};

/// One node tells of no more torrents than this: a machine has room for a few models, not for hundreds.
pub const MAX_HELD_TORRENTS: usize = 64;

/// A torrent that cannot be as it is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TorrentError {
    /// More bytes than a name may have.
    #[error("must have at most {MAX_TEXT} bytes, got {0}")]
    LongName(usize),
    /// A name with characters that terminals obey instead of showing them.
    #[error("has control characters, or such that turn the order of writing around")]
    HiddenName,
    /// No pieces, or more than bytes.
    #[error("must be at least 1 and at most one for each of {bytes} bytes, got {pieces}")]
    Pieces {
        /// As told.
        bytes: u64,
        /// As told.
        pieces: u32,
    },
    /// More pieces are there than there are.
    #[error("must be at most {pieces}, got {held}")]
    Held {
        /// As told.
        held: u32,
        /// All there are.
        pieces: u32,
    },
}

impl TorrentError {
    /// The field to blame.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::LongName(_) | Self::HiddenName => "name",
            Self::Pieces { .. } => "pieces",
            Self::Held { .. } => "pieces_held",
        }
    }
}

/// A torrent of which a node has all pieces or some.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldTorrent {
    /// Which torrent. A model's digest is the info-hash of its torrent.
    pub info_hash: ModelDigest,
    /// For people; two torrents may share it.
    pub name: String,
    /// Of all its files.
    pub bytes: u64,
    /// How many pieces the node has.
    pub pieces_held: u32,
    /// How many there are, at least one.
    pub pieces: u32,
    /// Where the node knows that it comes from.
    pub source: Option<Source>,
}

impl HeldTorrent {
    /// The same torrent, if it can be.
    ///
    /// # Errors
    /// Names the first field that cannot.
    pub fn validated(self) -> Result<Self, TorrentError> {
        let (bytes, held, pieces) = (self.bytes, self.pieces_held, self.pieces);
        if self.name.len() > MAX_TEXT {
            return Err(TorrentError::LongName(self.name.len()));
        }
        if !is_visible(&self.name) {
            return Err(TorrentError::HiddenName);
        }
        if pieces == 0 || u64::from(pieces) > bytes {
            return Err(TorrentError::Pieces { bytes, pieces });
        }
        if held > pieces {
            return Err(TorrentError::Held { held, pieces });
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::held_torrent;

    #[test]
    fn a_torrent_that_cannot_be_is_refused_by_field() {
        let refused = |change: fn(&mut HeldTorrent)| {
            let mut torrent = held_torrent(7);
            change(&mut torrent);
            torrent.validated().map_err(|error| error.field())
        };
        assert_eq!(refused(|_| {}), Ok(held_torrent(7)));
        assert!(refused(|torrent| torrent.pieces_held = torrent.pieces).is_ok());
        assert!(refused(|torrent| torrent.pieces_held = 0).is_ok());
        assert_eq!(refused(|torrent| torrent.name = "x".repeat(257)), Err("name"));
        assert_eq!(refused(|torrent| torrent.name = "a\u{1b}[2J".into()), Err("name"));
        assert_eq!(refused(|torrent| (torrent.pieces, torrent.pieces_held) = (0, 0)), Err("pieces"));
        assert_eq!(refused(|torrent| torrent.bytes = 3), Err("pieces"));
        assert_eq!(refused(|torrent| torrent.pieces_held = 5), Err("pieces_held"));
    }
}
