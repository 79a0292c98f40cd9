//! A place outside of the swarm that has a torrent's files too, as far as an exchange needs to know of it.

use std::{fmt, pin::Pin};

use model_torrent::Piece;

/// A place that has all files of a torrent and gives ranges of their bytes: a web seed, in the words of BitTorrent
/// (<https://www.bittorrent.org/beps/bep_0019.html>). It is believed no more than a peer.
pub trait Origin: fmt::Debug + Send + Sync + 'static {
    /// For people.
    fn name(&self) -> String;

    /// The bytes of a piece, as many as it has. Ends within a bound. Cancel safe.
    fn read(&self, piece: Piece) -> Reading<'_>;
}

/// Bytes that are on their way from an origin.
pub type Reading<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, OriginError>> + Send + 'a>>;

/// Why an origin does not give a piece.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OriginError {
    /// It may give it later.
    #[error("{0}")]
    Unavailable(String),
    /// It will not, nor any other piece.
    #[error("{0}")]
    Useless(String),
}
