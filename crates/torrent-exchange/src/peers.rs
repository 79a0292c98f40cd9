//! The other nodes, as an exchange sees them.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use swarm_types::{ModelDigest, NodeId};
use tokio::io::{AsyncRead, AsyncWrite};

/// Who can be reached, and how.
pub trait Peers: Clone + Send + Sync + 'static {
    /// Between two nodes. Who is at the other end is sure.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// A stream to a peer, which serves it with a [`crate::Seeder`]. Cancel safe.
    fn open(&self, peer: &NodeId) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Who is known now to hold at least some of a torrent, this node not among them. May differ from call to call: it
    /// is asked again and again while something is missing. Cancel safe.
    fn holders(&self, info_hash: ModelDigest) -> impl Future<Output = Vec<NodeId>> + Send;
}

/// Peers that sent wrong bytes: they are not asked again while this process lives. Cheap to clone; all fetchers of a
/// process share one.
#[derive(Clone, Debug, Default)]
pub struct Banned(Arc<Mutex<HashSet<NodeId>>>);

impl Banned {
    /// Whether a peer is banned.
    #[must_use]
    pub fn contains(&self, peer: &NodeId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }

    pub(crate) fn insert(&self, peer: NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
    }
}
