//! Says to all members that a peer is not to be missed.

use std::time::Duration;

use futures::future::join_all;
use libp2p::PeerId;
use swarm_proto::wire::{ForgetPeerRequest, peer_service_client::PeerServiceClient};
use tokio::time::timeout;

use super::links::Links;

/// Each member with whether it had lost the peer, or now knows that this node leaves; nothing of one that has not
/// answered in time. They are asked at the same time.
pub(crate) async fn tell_all(links: &Links, peer: PeerId, within: Duration) -> Vec<(PeerId, Option<bool>)> {
    let told = links.peers().into_iter().map(|member| async move {
        let answer = timeout(within, tell(links, member, peer)).await;
        (member, answer.ok().flatten())
    });
    join_all(told).await
}

async fn tell(links: &Links, member: PeerId, peer: PeerId) -> Option<bool> {
    let mut client = PeerServiceClient::new(links.channel(member).await.ok()?);
    match client.forget_peer(ForgetPeerRequest { peer: peer.to_base58() }).await {
        Ok(answer) => Some(answer.into_inner().forgotten),
        Err(error) => {
            tracing::debug!(%member, %peer, %error, "it does not say whether it has forgotten the peer");
            None
        }
    }
}
