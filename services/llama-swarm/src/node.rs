//! Asks any node of the swarm how it sees the swarm, and tells it what to forget, over its TCP gRPC port.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use futures::{Stream, StreamExt};
use swarm_proto::wire::{
    ForgetRequest, GetStatusRequest, WatchStatusRequest, swarm_service_client::SwarmServiceClient,
};
use swarm_types::{Forgotten, SwarmStatus, visible};
use tonic::{Code, service::interceptor::InterceptedService, transport::Endpoint};

use crate::credentials::{Credentials, KEY_FIX, ShowKey};

/// A node answers from memory, so a longer silence means that it is not there.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// It asks all others, and waits for the slowest.
const FORGET_TIMEOUT: Duration = Duration::from_secs(10);
/// A status lists every replica of every shard; a swarm of some thousand workers stays below this.
const MAX_STATUS_BYTES: usize = 16 << 20;

/// A connection to a node's gRPC port, on which each call shows the key.
pub(crate) type Channel = InterceptedService<tonic::transport::Channel, ShowKey>;

/// Opens a channel to a gRPC port given as `host:port`, where nobody asks for a key.
///
/// # Errors
/// When nobody answers there within five seconds.
pub(crate) async fn connect(address: &str) -> Result<Channel> {
    connect_with(address, &Credentials::default()).await
}

/// Opens a channel to a gRPC port given as `host:port`, or `https://host:port` where it speaks TLS.
///
/// # Errors
/// When nobody answers there within five seconds.
pub(crate) async fn connect_with(address: &str, credentials: &Credentials) -> Result<Channel> {
    connect_as(address, credentials, None).await
}

/// The same, where the server's certificate may be for another name than the address has.
///
/// # Errors
/// When nobody answers there within five seconds.
pub(crate) async fn connect_as(
    address: &str,
    credentials: &Credentials,
    tls_name: Option<&str>,
) -> Result<Channel> {
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let mut endpoint = Endpoint::from_shared(url.clone())
        .with_context(|| format!("{address:?} is not an address like 127.0.0.1:50050"))?;
    let has_port = endpoint.uri().port().is_some() || address.contains("://");
    ensure!(has_port, "{address} has no port: gRPC is at {address}:50050 on a gateway, :50051 on a worker");
    if url.starts_with("https://") {
        endpoint = endpoint.tls_config(credentials.tls(tls_name)?).context("--tls-ca")?;
    }
    let endpoint = endpoint
        .connect_timeout(CALL_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(CALL_TIMEOUT);
    let show_key = credentials.over_grpc()?;
    let channel = endpoint.connect().await.with_context(|| {
        format!(
            "no node answers at {address}: start one (`llama-swarm up`) or name its gRPC port with --addr"
        )
    })?;
    Ok(InterceptedService::new(channel, show_key))
}

/// The swarm as the node sees it now.
///
/// # Errors
/// When the node does not answer, or not with a status.
pub(crate) async fn status(channel: Channel) -> Result<SwarmStatus> {
    let mut client = client(channel);
    let answer = tokio::time::timeout(CALL_TIMEOUT, client.get_status(GetStatusRequest {}));
    let status = answer.await.context("the node does not answer within 5 s")?.map_err(with_fix)?;
    Ok(SwarmStatus::try_from(status.into_inner())?)
}

/// The swarm as the node sees it now and again on every change, until the node ends.
///
/// # Errors
/// When the node does not answer.
pub(crate) async fn watch(channel: Channel) -> Result<impl Stream<Item = Result<SwarmStatus>> + Unpin> {
    let mut client = client(channel);
    let answer = tokio::time::timeout(CALL_TIMEOUT, client.watch_status(WatchStatusRequest {}));
    let changes =
        answer.await.context("the node does not answer within 5 s")?.map_err(with_fix)?.into_inner();
    Ok(changes.map(|status| Ok(SwarmStatus::try_from(status?)?)))
}

/// Has a lost worker taken out of service that is called so, by all nodes.
///
/// # Errors
/// When the node does not answer, or says why it does not.
pub(crate) async fn forget(channel: Channel, name: String) -> Result<Forgotten> {
    let mut client = client(channel);
    let answer = tokio::time::timeout(FORGET_TIMEOUT, client.forget(ForgetRequest { node: name }));
    let answer = answer.await.context("the node does not answer within 10 s")?;
    let answer = answer.map_err(|status| match status.code() {
        Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition => {
            anyhow!("{}", visible::one_line(status.message()))
        }
        Code::Unimplemented => anyhow!("the node is of a version that does not know it"),
        _ => with_fix(status),
    })?;
    Ok(Forgotten::try_from(answer.into_inner())?)
}

/// Says what to do where a key is asked for.
fn with_fix(status: tonic::Status) -> anyhow::Error {
    let asks_for_key = status.code() == Code::Unauthenticated;
    let error = anyhow::Error::new(status);
    if asks_for_key { error.context(KEY_FIX) } else { error }
}

fn client(channel: Channel) -> SwarmServiceClient<Channel> {
    SwarmServiceClient::new(channel).max_decoding_message_size(MAX_STATUS_BYTES)
}
