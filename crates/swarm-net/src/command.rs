//! What handles ask of the node's loop.

use libp2p::PeerId;
use swarm_types::ModelDigest;
use tokio::sync::oneshot;

use crate::{calls::streams::OpenRequest, directory::lookups::Answer};

/// What handles ask of the node.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open a stream for gRPC to an admitted peer.
    Open(PeerId, OpenRequest),
    /// Open a stream for torrents to an admitted peer.
    OpenTorrent(PeerId, OpenRequest),
    /// Open a stream to an admitted peer by which to watch it.
    OpenWatch(PeerId, OpenRequest),
    /// Reach a peer, if it is known. Answers whether it is admitted.
    Connect(PeerId, oneshot::Sender<bool>),
    /// Ask the DHT who else holds a torrent, and reach them.
    FindTorrent(ModelDigest, Answer),
    /// A peer is not to be missed, says this member, or somebody here. Answers whether it was lost, or leaves.
    Forget { peer: PeerId, by: Option<PeerId>, answer: oneshot::Sender<bool> },
    /// Leave the swarm and end.
    Leave(oneshot::Sender<()>),
}
