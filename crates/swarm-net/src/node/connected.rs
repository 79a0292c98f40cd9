//! What the node keeps of a peer while it is connected.

use std::collections::BTreeMap;

use libp2p::{Multiaddr, swarm::ConnectionId};
use swarm_types::Transport;
use tokio::task::AbortHandle;

/// A connected peer.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    /// Once it is admitted.
    pub(super) member: Option<Member>,
}

pub(super) struct Connection {
    pub(super) transport: Transport,
    /// Where this node reached the peer; nothing when the peer has dialled.
    pub(super) dialled: Option<Multiaddr>,
}

/// What this node keeps up with an admitted peer.
pub(super) struct Member {
    /// Tells this time of being a member from the ones before.
    pub(super) epoch: u64,
    /// Listens to its descriptions.
    pub(super) follower: AbortHandle,
}

impl Drop for Member {
    /// Who is no member any more is followed no more.
    fn drop(&mut self) {
        self.follower.abort();
    }
}
