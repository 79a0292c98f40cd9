//! What a node answers its peers while it does not know its model yet.

use std::{pin::pin, time::Duration};

use swarm_net::{NetError, PeerListener, SwarmNet, peer_server};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::FilesError;

/// Calls that are under way have so long to end. Peers call again, on a stream of their own.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// Does some work while peers can ask what this node is. After that the listener is free for the node's own server.
///
/// # Errors
/// Those of the work, or when the node has left.
pub async fn describe_until<T>(
    net: &SwarmNet,
    peers: &mut PeerListener,
    work: impl Future<Output = Result<T, FilesError>>,
) -> Result<T, FilesError> {
    let done = CancellationToken::new();
    let server = peer_server().add_service(net.peer_service());
    let mut serving = pin!(server.serve_with_incoming_shutdown(peers, done.clone().cancelled_owned()));
    let result = tokio::select! {
        result = work => result?,
        ended = &mut serving => {
            ended?;
            return Err(NetError::Left.into());
        }
    };
    done.cancel();
    // Who has not ended by then takes no new calls at least.
    if let Ok(ended) = timeout(ENDS_WITHIN, serving).await {
        ended?;
    }
    Ok(result)
}
