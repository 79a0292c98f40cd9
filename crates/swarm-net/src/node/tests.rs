//! A node and strangers, over real sockets.

use std::{
    io,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt};
use hyper_util::rt::TokioIo;
use libp2p::{
    Multiaddr, Swarm, identify,
    identity::Keypair,
    swarm::{self, NetworkBehaviour, SwarmEvent},
};
use swarm_proto::wire::{DescribeRequest, DescribeResponse, peer_service_client::PeerServiceClient};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::Endpoint;
use tower::service_fn;

use crate::{
    Identity, NetConfig, NetError, PeerListener, PeerStream, Role, SwarmNet,
    behaviour::{stream_protocol, swarm_version},
    calls::streams::{OpenError, OpenRequest, Streams},
    config::Settings,
    metrics::Metrics,
    peer::node_id,
    peer_server,
    transport::{self, activity::Activity},
};

const CLUSTER: &str = "test";
/// Strangers have so long here, so that nobody waits for ten seconds.
const ADMIT_WITHIN: Duration = Duration::from_secs(1);
/// Nothing here takes this long, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

async fn node() -> (SwarmNet, PeerListener) {
    let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()];
    let config = NetConfig { cluster: CLUSTER.into(), listen, total_shards: 1, ..NetConfig::default() };
    let settings = Settings::check(config, Role::Worker).unwrap();
    let settings = Settings { admit_within: ADMIT_WITHIN, ..settings };
    SwarmNet::start(settings, Role::Worker, Identity::ephemeral()).await.unwrap()
}

fn address(net: &SwarmNet) -> Multiaddr {
    net.addresses()[0].parse().unwrap()
}

fn swarm_of<B: NetworkBehaviour>(key: &Keypair, behaviour: B) -> Swarm<B> {
    let transport = transport::build(key, &Activity::new()).unwrap();
    Swarm::new(transport, behaviour, key.public().to_peer_id(), swarm::Config::with_tokio_executor())
}

/// Runs a swarm until its connection is closed.
async fn until_closed<B: NetworkBehaviour>(mut swarm: Swarm<B>) {
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {}
}

/// A stranger that opens one stream and says nothing of itself. The task ends when its connection does.
fn stranger(
    key: &Keypair,
    net: &SwarmNet,
) -> (oneshot::Receiver<Result<libp2p::Stream, OpenError>>, JoinHandle<()>) {
    let streams = Streams::new(stream_protocol(CLUSTER).unwrap(), mpsc::channel(1).0, Metrics::default());
    let mut swarm = swarm_of(key, streams);
    swarm.dial(address(net)).unwrap();
    let (answer, stream) = oneshot::channel();
    let run = async move {
        let peer = loop {
            if let SwarmEvent::ConnectionEstablished { peer_id, .. } = swarm.select_next_some().await {
                break peer_id;
            }
        };
        swarm.behaviour_mut().admit(peer);
        swarm.behaviour_mut().open(peer, OpenRequest(answer));
        until_closed(swarm).await;
    };
    (stream, tokio::spawn(run))
}

/// Asks the node what it is, over one stream.
async fn describe(net: &SwarmNet, stream: libp2p::Stream) -> anyhow::Result<Option<DescribeResponse>> {
    let mut stream = Some(TokioIo::new(PeerStream::new(net.id().clone(), stream, Metrics::default())));
    let again = || io::Error::from(io::ErrorKind::NotConnected);
    let only_once = service_fn(move |_| std::future::ready(stream.take().ok_or_else(again)));
    let channel = Endpoint::from_static("http://peer.invalid").connect_with_connector(only_once).await?;
    let answer = PeerServiceClient::new(channel).describe(DescribeRequest {}).await?;
    Ok(answer.into_inner().message().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_says_that_it_belongs_here_is_served_nothing_and_sent_away() {
    let (net, mut listener) = node().await;
    let (key, start) = (Keypair::generate_ed25519(), Instant::now());
    let (stream, gone) = stranger(&key, &net);
    let id = node_id(&key.public().to_peer_id());
    let stream = timeout(PATIENCE, stream).await.unwrap().unwrap().unwrap();
    let (channel, answer) =
        timeout(PATIENCE, async { tokio::join!(net.channel(&id), describe(&net, stream)) }).await.unwrap();
    assert!(matches!(channel, Err(NetError::NotConnected(_))), "no link: {channel:?}");
    assert!(answer.is_err(), "no answer: {answer:?}");
    timeout(PATIENCE, gone).await.unwrap().unwrap();
    assert!(start.elapsed() >= ADMIT_WITHIN, "it had its time: {:?}", start.elapsed());
    assert!(listener.next().now_or_never().is_none(), "its stream was never handed over");
    let status = net.status().borrow().clone();
    assert_eq!((status.revision, net.round_trips().len()), (0, 0), "nothing of it is known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_from_before_admission_is_served_right_after_it() {
    let (net, listener) = node().await;
    let server = peer_server().add_service(net.peer_service()).serve_with_incoming(listener);
    let server = tokio::spawn(async { server.await.unwrap() });
    let key = Keypair::generate_ed25519();
    let (stream, gone) = stranger(&key, &net);
    let stream = timeout(PATIENCE, stream).await.unwrap().unwrap().unwrap();
    let mut answer = Box::pin(describe(&net, stream));
    assert!(futures::poll!(&mut answer).is_pending());
    // The same peer says over another connection what it is.
    let config = identify::Config::new(swarm_version(CLUSTER), key.public());
    let mut named = swarm_of(&key, identify::Behaviour::new(config));
    named.dial(address(&net)).unwrap();
    let named = tokio::spawn(until_closed(named));
    let description = timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap();
    assert_eq!(description.role, "worker");
    assert!(!gone.is_finished(), "over the connection that it was opened on");
    named.abort();
    server.abort();
}
