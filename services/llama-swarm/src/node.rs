//! Asks any node of the swarm how it sees the swarm, over its TCP gRPC port.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{Stream, StreamExt};
use swarm_proto::wire::{GetStatusRequest, WatchStatusRequest, swarm_service_client::SwarmServiceClient};
use swarm_types::SwarmStatus;
use tonic::transport::{Channel, Endpoint};

/// A node answers from memory, so a longer silence means that it is not there.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// A status lists every replica of every shard; a swarm of some thousand workers stays below this.
const MAX_STATUS_BYTES: usize = 16 << 20;

/// Opens a channel to a gRPC port given as `host:port`.
///
/// # Errors
/// When nobody answers there within five seconds.
pub(crate) async fn connect(address: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .with_context(|| format!("{address:?} is not an address like 127.0.0.1:50050"))?
        .connect_timeout(CALL_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(CALL_TIMEOUT);
    endpoint.connect().await.with_context(|| {
        format!(
            "no node answers at {address}: start one (`llama-swarm up`) or name its gRPC port with --addr"
        )
    })
}

/// The swarm as the node sees it now.
///
/// # Errors
/// When the node does not answer, or not with a status.
pub(crate) async fn status(channel: Channel) -> Result<SwarmStatus> {
    let mut client = client(channel);
    let answer = tokio::time::timeout(CALL_TIMEOUT, client.get_status(GetStatusRequest {}));
    let status = answer.await.context("the node does not answer within 5 s")??;
    Ok(SwarmStatus::try_from(status.into_inner())?)
}

/// The swarm as the node sees it now and again on every change, until the node ends.
///
/// # Errors
/// When the node does not answer.
pub(crate) async fn watch(channel: Channel) -> Result<impl Stream<Item = Result<SwarmStatus>> + Unpin> {
    let mut client = client(channel);
    let answer = tokio::time::timeout(CALL_TIMEOUT, client.watch_status(WatchStatusRequest {}));
    let changes = answer.await.context("the node does not answer within 5 s")??.into_inner();
    Ok(changes.map(|status| Ok(SwarmStatus::try_from(status?)?)))
}

fn client(channel: Channel) -> SwarmServiceClient<Channel> {
    SwarmServiceClient::new(channel).max_decoding_message_size(MAX_STATUS_BYTES)
}
