//! How far a fetch is.

use swarm_types::Fetching;

/// Counted over all pieces that were asked for so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Pieces that are wanted, here or not.
    pub pieces_wanted: u32,
    /// Of these, how many are here.
    pub pieces_here: u32,
    /// Bytes that are wanted.
    pub bytes_wanted: u64,
    /// Of these, how many are here.
    pub bytes_here: u64,
    /// Bytes that came, from peers and from an origin, in the last seconds, in one second.
    pub bytes_per_second: u64,
    /// Peers that are talked to.
    pub peers: usize,
    /// Peers that have given pieces so far.
    pub givers: usize,
}

impl Progress {
    /// What others are told of it.
    #[must_use]
    pub fn fetching(&self) -> Fetching {
        let peers = u32::try_from(self.peers).unwrap_or(u32::MAX);
        Fetching { peers, bytes_per_second: self.bytes_per_second }.bounded()
    }
}
