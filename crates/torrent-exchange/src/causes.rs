//! Why a peer does not do what it is asked for. Part of the protocol.

use std::fmt;

/// Why a piece is not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It is not here.
    NotHere,
    /// Too many are requested already.
    Full,
    /// It was cancelled.
    Cancelled,
    /// The disk does not give it.
    Unreadable,
}

/// Why a peer ends the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Away {
    /// It does not serve this torrent, or not any more.
    NotServed,
    /// It serves as many as it can.
    Busy,
    /// Nothing was asked of it for a while.
    Idle,
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotServed => "it does not serve this torrent",
            Self::Busy => "it serves as many as it can",
            Self::Idle => "nothing was asked of it for a while",
        })
    }
}
