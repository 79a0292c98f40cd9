//! What handles ask of the node's loop.

use libp2p::PeerId;
use tokio::sync::oneshot;

use crate::calls::streams::OpenRequest;

/// What handles ask of the node.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open a stream to an admitted peer.
    Open(PeerId, OpenRequest),
    /// Reach a peer, if it is known. Answers whether it is admitted.
    Connect(PeerId, oneshot::Sender<bool>),
    /// Leave the swarm and end.
    Leave(oneshot::Sender<()>),
}
