//! What all fetchers of a process share.

use crate::{
    limits::FetchLimits,
    metrics::Metrics,
    peers::{Banned, Peers},
    shelf::Shelf,
};

/// Where fetchers fetch from, and within which bounds.
#[derive(Clone, Debug)]
pub struct Fetchers<P> {
    /// The other nodes.
    pub peers: P,
    /// What is fetched is served from here meanwhile.
    pub shelf: Shelf,
    /// Who is not asked.
    pub banned: Banned,
    /// Bounds of each fetcher.
    pub limits: FetchLimits,
    /// Counts for all of them.
    pub metrics: Metrics,
}

impl<P: Peers> Fetchers<P> {
    /// With the usual limits, and nobody banned.
    pub fn new(peers: P, shelf: Shelf, metrics: Metrics) -> Self {
        Self { peers, shelf, banned: Banned::default(), limits: FetchLimits::default(), metrics }
    }
}
