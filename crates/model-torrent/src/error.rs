//! What can be wrong with a torrent, its files or its pieces.

use std::{io, ops::Range, path::PathBuf};

use crate::piece_set::PieceIndex;

/// Why something about a torrent failed.
#[derive(Debug, thiserror::Error)]
pub enum TorrentError {
    /// A torrent from outside says something that is not so, or not in the one form that it must have.
    #[error("torrent refused: {field} {reason}")]
    Field {
        /// Which field, as `info.piece length`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A torrent from outside has more bytes than its reader takes.
    #[error("torrent refused: it has {got} bytes, more than the {limit} that are accepted")]
    TooLarge {
        /// How many it has.
        got: usize,
        /// How many it may have.
        limit: usize,
    },
    /// Files that are no model: none, an empty one, more bytes than any model has.
    #[error("these files make no torrent: {0}")]
    Files(String),
    /// Several files that are not the parts of one model.
    #[error(
        "{path} is not a part of the same model as the others: all of NAME-00001-of-0000N.gguf are needed"
    )]
    NotAPart {
        /// Which file.
        path: PathBuf,
    },
    /// The file changed while it was read.
    #[error("{path} changed while it was being read")]
    Changed {
        /// Which file.
        path: PathBuf,
    },
    /// The file is not as long as the torrent says.
    #[error("{path} has {got} bytes, the torrent says {expected}")]
    Length {
        /// Which file.
        path: PathBuf,
        /// How many bytes it should have.
        expected: u64,
        /// How many it has.
        got: u64,
    },
    /// The torrent has no such piece, or the piece no such blocks.
    #[error("there is no {0} in the torrent")]
    OutOfBounds(String),
    /// A range of bytes ends behind the last file.
    #[error("bytes {} to {} are asked for, the torrent has {total}", .range.start, .range.end)]
    Range {
        /// What was asked for.
        range: Range<u64>,
        /// How many bytes there are.
        total: u64,
    },
    /// Bytes do not hash to what the torrent says.
    #[error("these are not the bytes of piece {piece}")]
    WrongBytes {
        /// Of which piece they should be.
        piece: PieceIndex,
    },
    /// The piece is not here.
    #[error("piece {piece} is not here")]
    NotHere {
        /// Which one.
        piece: PieceIndex,
    },
    /// Another process keeps the pieces in this folder.
    #[error("another process uses {path}")]
    Busy {
        /// The file that it has locked.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("no space left for {path}: {missing} bytes of it are not here yet; free some")]
    NoSpace {
        /// Which file.
        path: PathBuf,
        /// How many of its bytes are not on the disk. Who does not need all of the file needs less.
        missing: u64,
    },
    /// The operating system refuses.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

impl TorrentError {
    /// What went wrong at `path`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// What went wrong in writing to `path`, of which so many bytes are still to come.
    pub(crate) fn writing(path: impl Into<PathBuf>, missing: u64) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::NoSpace { path, missing }
            }
            _ => Self::Io { path, source },
        }
    }

    /// A field of a torrent is wrong.
    pub(crate) fn field(field: impl Into<String>, reason: impl ToString) -> Self {
        Self::Field { field: field.into(), reason: reason.to_string() }
    }
}
