//! How much an exchange takes of the machine and of the network.

use std::num::{NonZeroU64, NonZeroUsize};

/// What seeding may take.
#[derive(Clone, Copy, Debug)]
pub struct SeedLimits {
    /// Peers that are served at once. Who comes when there are as many takes the place of one that asks nothing, or is
    /// sent away.
    pub peers: usize,
    /// Streams of one peer.
    pub streams_a_peer: usize,
    /// Pieces that may wait on one stream; a request more is refused.
    pub requests_a_stream: usize,
    /// Bytes that are read and not sent yet, on all streams.
    pub bytes_in_flight: usize,
    /// Reads from disk at once. Each takes a blocking thread for a moment.
    pub reads: usize,
    /// Bytes of pieces that are sent in a second, shared by all streams. Nothing: as many as the network takes.
    pub bytes_per_second: Option<NonZeroU64>,
    /// The same while the process has something better to do (see [`crate::Seeder::give_way_while`]).
    pub bytes_per_second_beside_work: NonZeroU64,
}

/// A worker that takes a lost one's place must not wait for long, so it is not little.
const BESIDE_WORK: NonZeroU64 = NonZeroU64::new(16 << 20).expect("it is above none");

impl Default for SeedLimits {
    fn default() -> Self {
        Self {
            peers: 64,
            // One, and the next one while the end of the first is not noticed yet.
            streams_a_peer: 2,
            requests_a_stream: 32,
            bytes_in_flight: 16 << 20,
            // More would not be faster where it matters, and each takes a core while it hashes.
            reads: 1,
            bytes_per_second: None,
            bytes_per_second_beside_work: BESIDE_WORK,
        }
    }
}

/// What fetching may take.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// Peers that are fetched from at once.
    pub peers: usize,
    /// Pieces that are under way with one peer: enough that the network never waits for the next request.
    pub requests_a_peer: usize,
    /// Pieces that are hashed and written at once, each on a blocking thread.
    pub writes: usize,
    /// Threads that hash what is in the folder already, if its record is not believed.
    pub hashing_threads: NonZeroUsize,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { peers: 8, requests_a_peer: 4, writes: 2, hashing_threads: NonZeroUsize::MIN }
    }
}
