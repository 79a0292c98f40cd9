//! gRPC inside libp2p streams.
// What fails here fails a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    net::SocketAddr,
    pin::Pin,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use support::{PATIENCE, QUIC, QUIC_AND_TCP, TCP, config, offer, replica_state};
use swarm_net::{
    Identity, MethodLimit, NetConfig, NetError, PeerCalls, PeerInfo, Role, SwarmNet, peer_server_for,
};
use swarm_proto::wire::{
    CollectRequest, CollectResponse, ForwardRequest, ForwardResponse, HopFailed, Step, forward_request,
    forward_response,
    shard_service_client::ShardServiceClient,
    shard_service_server::{ShardService, ShardServiceServer},
};
use swarm_types::{NodeId, ReplicaState};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{interval, timeout},
};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

const FORWARD: &str = "/swarm.v1.ShardService/Forward";
const CALLS: PeerCalls =
    PeerCalls { sessions: 64, limits: &[MethodLimit { path: FORWARD, first: 4 << 20, later: 16 << 20 }] };

/// Answers each step with who asked and as many bytes as came.
struct Echo;

#[tonic::async_trait]
impl ShardService for Echo {
    type ForwardStream = Pin<Box<dyn Stream<Item = Result<ForwardResponse, Status>> + Send>>;
    type CollectStream = Pin<Box<dyn Stream<Item = Result<CollectResponse, Status>> + Send>>;

    async fn forward(
        &self,
        request: Request<Streaming<ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let PeerInfo { node: caller, .. } = request.extensions().get::<PeerInfo>().unwrap().clone();
        let answers = request.into_inner().map(move |step| {
            let Some(forward_request::Message::Step(step)) = step?.message else {
                return Err(Status::invalid_argument("a step is expected"));
            };
            let message = "x".repeat(step.activations.len());
            let failed = HopFailed { worker: caller.to_string(), message, ..HopFailed::default() };
            Ok(ForwardResponse { message: Some(forward_response::Message::Failed(failed)) })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn collect(&self, _: Request<CollectRequest>) -> Result<Response<Self::CollectStream>, Status> {
        Err(Status::unimplemented("only forward is tested"))
    }
}

/// A node that answers and serves shard 0, so that others see when it is there.
async fn echo_node(listen: &str, entry: Option<&SwarmNet>) -> SwarmNet {
    let config = NetConfig {
        listen: listen.split(',').map(str::to_owned).collect(),
        rendezvous: entry.map(|entry| entry.addresses().remove(0)).into_iter().collect(),
        ..config(1, None)
    };
    start_echo(config, Identity::ephemeral()).await
}

async fn start_echo(config: NetConfig, identity: Identity) -> SwarmNet {
    let (net, peers) = SwarmNet::bind(config, Role::Worker, identity).await.unwrap();
    let server =
        peer_server_for(CALLS).add_service(ShardServiceServer::new(Echo)).add_service(net.peer_service());
    tokio::spawn(server.serve_with_incoming(peers));
    net.announce(vec![offer(0, true)]);
    net
}

/// The channel to a node that is just being found.
async fn channel(net: &SwarmNet, node: &NodeId) -> Channel {
    sees(net, node, ReplicaState::Loaded).await;
    net.channel(node).await.unwrap()
}

/// Waits until a node is seen so.
async fn sees(net: &SwarmNet, node: &NodeId, state: ReplicaState) {
    let mut status = net.status();
    let seen = status.wait_for(|status| replica_state(status, 0, node) == Some(state));
    timeout(PATIENCE, seen).await.expect("seen in time").unwrap();
}

/// Sends steps of this size one after the other; gives who the other side took the caller for.
async fn exchange(channel: Channel, bytes: usize, count: usize) -> Vec<String> {
    let step = Step { activations: vec![7; bytes].into(), ..Step::default() };
    let request = ForwardRequest { message: Some(forward_request::Message::Step(step)) };
    let requests = futures::stream::iter(vec![request; count]);
    let mut answers = ShardServiceClient::new(channel).forward(requests).await.unwrap().into_inner();
    let mut callers = vec![];
    while let Some(answer) = answers.message().await.unwrap() {
        let Some(forward_response::Message::Failed(answer)) = answer.message else { panic!("{answer:?}") };
        assert_eq!(answer.message.len(), bytes);
        callers.push(answer.worker);
    }
    callers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_megabyte_goes_both_ways_and_the_caller_is_known() {
    for listen in [QUIC_AND_TCP, QUIC, TCP] {
        let server = echo_node(listen, None).await;
        let client = echo_node(listen, Some(&server)).await;
        let start = Instant::now();
        let callers = exchange(channel(&client, server.id()).await, 1 << 20, 4).await;
        println!("{listen}: connect and 4 × 1 MiB both ways: {:?}", start.elapsed());
        assert_eq!(callers, vec![client.id().to_string(); 4]);
        // The connection that the client made carries the server's calls too.
        let callers = exchange(channel(&server, client.id()).await, 1 << 20, 1).await;
        assert_eq!(callers, [server.id().to_string()]);
    }
}

/// A link to a socket on this machine that carries 150 KB a second in the direction to that socket.
async fn slow_link(to: SocketAddr) -> SocketAddr {
    const PIECE: usize = 1500;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let (mut from, mut back) = near.into_split();
        let (mut answers, mut far) = TcpStream::connect(to).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
        let (mut piece, mut pace) = ([0; PIECE], interval(Duration::from_millis(10)));
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            pace.tick().await;
            far.write_all(&piece[..count]).await.unwrap();
        }
    });
    here
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_step_on_a_slow_tcp_link_is_no_silence() {
    let server = echo_node(TCP, None).await;
    let address = server.addresses()[0].clone();
    let port = address.split('/').nth(4).unwrap();
    let link = slow_link(format!("127.0.0.1:{port}").parse().unwrap()).await;
    let entry = format!("/ip4/127.0.0.1/tcp/{}", link.port());
    let config = NetConfig { listen: vec![TCP.into()], rendezvous: vec![entry], ..config(1, None) };
    let client = start_echo(config, Identity::ephemeral()).await;
    let channel = channel(&client, server.id()).await;
    let start = Instant::now();
    let callers = exchange(channel, 1 << 19, 1).await;
    let took = start.elapsed();
    assert_eq!(callers, [client.id().to_string()]);
    assert!(took > Duration::from_secs(2), "pings had to wait longer than silence is borne: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_is_rebuilt_after_its_peer_came_back() {
    let folder = tempfile::tempdir().unwrap();
    let entry = echo_node(QUIC_AND_TCP, None).await;
    let start = || async {
        let config = NetConfig {
            rendezvous: vec![entry.addresses().remove(0)],
            identity: Some(folder.path().join("identity")),
            ..config(1, None)
        };
        let identity = config.load_identity("peer").unwrap();
        start_echo(config, identity).await
    };
    let peer = start().await;
    let id = peer.id().clone();
    let old = channel(&entry, &id).await;
    exchange(old.clone(), 10, 1).await;
    peer.leave().await;
    drop(peer);
    let failed = ShardServiceClient::new(old).collect(CollectRequest::default()).await.unwrap_err();
    assert_eq!(failed.code(), tonic::Code::Unavailable, "{failed:?}");

    sees(&entry, &id, ReplicaState::Offline).await;
    let peer = start().await;
    assert_eq!(*peer.id(), id, "the identity was free again");
    let callers = exchange(channel(&entry, &id).await, 10, 1).await;
    assert_eq!(callers, [entry.id().to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_not_there_is_refused_in_bounded_time() {
    let node = echo_node(QUIC_AND_TCP, None).await;
    let stranger = Identity::ephemeral().id().clone();
    let start = Instant::now();
    for absent in [&stranger, node.id(), &"22".parse().unwrap()] {
        let refused = node.channel(absent).await;
        assert!(matches!(refused, Err(NetError::NotConnected(_))), "{refused:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(4));
    node.leave().await;
    assert!(matches!(node.channel(&stranger).await, Err(NetError::Left)));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    for listen in [QUIC, TCP] {
        let node = echo_node(listen, None).await;
        let taken = node.addresses()[0].split("/p2p").next().unwrap().to_owned();
        let config = NetConfig { listen: vec![taken.clone()], ..config(1, None) };
        let bound = SwarmNet::bind(config, Role::Worker, Identity::ephemeral()).await;
        let error = bound.unwrap_err().to_string();
        assert!(error.contains(&taken) && error.contains("--listen"), "{error}");
    }
}
