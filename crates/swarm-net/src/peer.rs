//! Peers as the rest of the system names them.

use libp2p::PeerId;
use swarm_types::NodeId;

/// The text form of a peer id.
pub(crate) fn node_id(peer: &PeerId) -> NodeId {
    peer.to_base58().parse().expect("a peer id in base58 is a node id")
}

/// The peer of that name, if it is one.
pub(crate) fn peer_id(node: &NodeId) -> Option<PeerId> {
    node.as_str().parse().ok()
}
