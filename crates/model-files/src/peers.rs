//! The other nodes, as an exchange of pieces sees them.

use std::io;

use swarm_net::{PeerStream, SwarmNet};
use swarm_types::{ModelDigest, NodeId};
use torrent_exchange::Peers;

/// The other nodes of the swarm.
#[derive(Clone, Debug)]
pub(crate) struct SwarmPeers(pub(crate) SwarmNet);

impl Peers for SwarmPeers {
    type Stream = PeerStream;

    async fn open(&self, peer: &NodeId) -> io::Result<PeerStream> {
        self.0.open_torrent(peer).await.map_err(io::Error::other)
    }

    /// Those that say so themselves; while none does, those that the DHT knows.
    async fn holders(&self, info_hash: ModelDigest) -> Vec<NodeId> {
        let told = self.0.torrents().borrow().clone();
        let holds = |node: &NodeId| told[node].iter().any(|torrent| torrent.info_hash == info_hash);
        let told: Vec<NodeId> = told.keys().filter(|node| holds(node)).cloned().collect();
        match told.is_empty() {
            false => told,
            true => self.0.find_torrent(&info_hash).await.unwrap_or_default(),
        }
    }
}
