//! How far a fetch is.

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
}
