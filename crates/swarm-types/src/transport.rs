//! What connections between nodes run over.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// What a connection runs over, the preferred one first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// Over UDP, encrypted by TLS.
    Quic,
    /// With Noise and Yamux, where QUIC does not get through.
    Tcp,
}

/// Neither `QUIC` nor `TCP`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown: {0:?}")]
pub struct UnknownTransport(String);

impl Transport {
    /// As status and log show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "QUIC",
            Self::Tcp => "TCP",
        }
    }
}

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(name: &str) -> Result<Self, UnknownTransport> {
        let all = [Self::Quic, Self::Tcp];
        let named = all.into_iter().find(|transport| transport.name() == name);
        named.ok_or_else(|| UnknownTransport(name.to_owned()))
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Transport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
