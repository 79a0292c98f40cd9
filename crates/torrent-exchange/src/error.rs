//! What can go wrong between two nodes.

use std::{io, sync::Arc};

use model_torrent::TorrentError;

use crate::causes::Away;

/// Why a stream ended, or a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The other end said something that it must not say.
    #[error("message refused: {field} {reason}")]
    Message {
        /// Which field of which message, as `request.piece`.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The other end said that it goes, and why.
    #[error("the peer went: {0}")]
    Away(Away),
    /// The other end neither speaks nor listens.
    #[error("the peer is silent: {0}")]
    Silent(&'static str),
    /// The stream broke or could not be opened.
    #[error("stream: {0}")]
    Stream(#[from] io::Error),
    /// The pieces cannot be kept, or there are no such pieces. A full disk is one of these.
    #[error(transparent)]
    Torrent(Arc<TorrentError>),
    /// The torrent that is known already is another one.
    #[error("the known torrent is not the one that is asked for")]
    OtherTorrent,
    /// The fetcher ended before the pieces were here.
    #[error("the fetcher ended")]
    Ended,
}

impl ExchangeError {
    /// A field of a message is wrong.
    pub(crate) fn field(field: &'static str, reason: impl ToString) -> Self {
        Self::Message { field, reason: reason.to_string() }
    }
}

impl From<TorrentError> for ExchangeError {
    fn from(error: TorrentError) -> Self {
        Self::Torrent(Arc::new(error))
    }
}
