//! A node, strangers that try to get by without the secret, and members that lie, over real sockets.

use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, Transport as _,
    core::{muxing::StreamMuxerExt, transport::ListenerId},
    identify,
    identity::Keypair,
    kad::{self, Quorum, Record, RecordKey, store::MemoryStore},
    rendezvous,
    swarm::{self, ConnectionId, NetworkBehaviour, SwarmEvent},
};
use prometheus_client::registry::Registry;
use swarm_types::{Announcement, ShardId, Transport, fixture};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{
    Identity, NetConfig, PeerListener, Role, Secret, SwarmNet,
    admission::{
        doors::MAX_PER_ADDRESS,
        exchange,
        gate::{ADMIT_WITHIN, Gate},
        keyring::{Keyring, Source},
        roster::Roster,
    },
    behaviour::stream_protocol,
    calls::streams::{Intake, OpenRequest, Streams},
    config::Settings,
    metrics::Metrics,
    peer_server,
    transport::{self, activity::Activity},
};

const CLUSTER: &str = "test";
/// Nothing here takes this long, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A rendezvous of a swarm of two shards, with what it has counted.
async fn node(secret: &Secret, listen: &str) -> (SwarmNet, PeerListener, Registry) {
    let listen = listen.split(',').map(str::to_owned).collect();
    let config = NetConfig { cluster: CLUSTER.into(), listen, total_shards: 2, ..NetConfig::default() };
    let settings = Settings::check(config, Role::Rendezvous).unwrap();
    let settings = Settings { secrets: Source::Fixed(vec![secret.clone()]), ..settings };
    let (net, listener) = SwarmNet::start(settings, Role::Rendezvous, Identity::ephemeral()).await.unwrap();
    let mut counters = Registry::default();
    net.metrics(&mut counters);
    (net, listener, counters)
}

fn address(net: &SwarmNet) -> Multiaddr {
    net.addresses()[0].parse().unwrap()
}

/// How often a node refused something for this cause.
fn refused(registry: &Registry, cause: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let line = text.lines().find(|line| line.contains(&format!("cause=\"{cause}\"")));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// All that a member speaks, said by somebody who says what it likes.
#[derive(NetworkBehaviour)]
struct Liar {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
    rendezvous: rendezvous::client::Behaviour,
    streams: Streams,
}

fn liar(key: &Keypair) -> Liar {
    let me = key.public().to_peer_id();
    let mut config = kad::Config::new(StreamProtocol::new("/llama-swarm/test/kad/1.0.0"));
    config.set_max_packet_size(4 << 20);
    let mut kad = kad::Behaviour::with_config(me, MemoryStore::new(me), config);
    kad.set_mode(Some(kad::Mode::Server));
    let version = "/llama-swarm/test/1.0.0".into();
    let protocol = stream_protocol(CLUSTER).unwrap();
    Liar {
        identify: identify::Behaviour::new(identify::Config::new(version, key.public())),
        kad,
        rendezvous: rendezvous::client::Behaviour::new(key.clone()),
        streams: Streams::new(
            protocol,
            Transport::Quic,
            Intake::default(),
            Roster::default(),
            Metrics::default(),
        ),
    }
}

fn stranger(key: &Keypair) -> Swarm<Liar> {
    let transport = transport::ungated(key, &Activity::new()).unwrap();
    let config = swarm::Config::with_tokio_executor();
    let mut swarm = Swarm::new(transport, liar(key), key.public().to_peer_id(), config);
    swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
    swarm
}

fn gate(key: &Keypair, secret: &Secret) -> Gate {
    let ring = Keyring::new(CLUSTER, Source::Fixed(vec![secret.clone()])).unwrap();
    let (me, protocol) = (key.public().to_peer_id(), exchange::protocol(CLUSTER).unwrap());
    Gate::new(me, Role::Worker, protocol, (ring, Roster::default()), Metrics::default())
}

fn member(key: &Keypair, secret: &Secret) -> Swarm<Liar> {
    let transport = transport::build(key, &Activity::new(), &gate(key, secret)).unwrap();
    let config = swarm::Config::with_tokio_executor();
    Swarm::new(transport, liar(key), key.public().to_peer_id(), config)
}

/// Connects, and waits until the other has said where it listens.
async fn enter(liar: &mut Swarm<Liar>, node: &SwarmNet) -> PeerId {
    liar.dial(address(node)).unwrap();
    loop {
        if let SwarmEvent::Behaviour(LiarEvent::Identify(identify::Event::Received { peer_id, .. })) =
            liar.select_next_some().await
        {
            return peer_id;
        }
    }
}

fn shard_key(shard: &str) -> RecordKey {
    RecordKey::new(&format!("/llama-cluster/test/shard/{shard}"))
}

/// Tries all that members do, until its connection is closed. Gives what came of it.
async fn try_everything(swarm: &mut Swarm<Liar>, node: &SwarmNet) -> Vec<String> {
    let (answer, mut stream) = oneshot::channel();
    let (mut answer, mut learnt) = (Some(answer), vec![]);
    swarm.dial(address(node)).unwrap();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                let liar = swarm.behaviour_mut();
                let record = Record::new(shard_key("1"), b"listen to me".to_vec());
                liar.kad.add_address(&peer_id, address(node));
                liar.kad.put_record_to(record, [peer_id].into_iter(), Quorum::One);
                liar.kad.get_record(shard_key("0"));
                liar.kad.start_providing(shard_key("0")).unwrap();
                let namespace = rendezvous::Namespace::from_static("test");
                liar.rendezvous.discover(Some(namespace), None, None, peer_id);
                liar.streams.open(peer_id, OpenRequest(answer.take().expect("connected once")));
            }
            SwarmEvent::Behaviour(LiarEvent::Identify(identify::Event::Received { .. })) => {
                learnt.push("who it is".to_owned());
            }
            SwarmEvent::Behaviour(LiarEvent::Rendezvous(
                rendezvous::client::Event::Discovered { .. } | rendezvous::client::Event::Registered { .. },
            )) => learnt.push("who else is there".into()),
            SwarmEvent::Behaviour(LiarEvent::Kad(kad::Event::OutboundQueryProgressed { result, .. })) => {
                match result {
                    kad::QueryResult::GetRecord(Ok(found)) => learnt.push(format!("{found:?}")),
                    kad::QueryResult::PutRecord(Ok(stored)) => learnt.push(format!("{stored:?}")),
                    _ => {}
                }
            }
            SwarmEvent::ConnectionClosed { .. } => break,
            _ => {}
        }
    }
    if let Ok(Ok(_)) = stream.try_recv() {
        learnt.push("a stream".into());
    }
    learnt
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_prove_the_secret_is_served_nothing_and_sent_away() {
    for listen in ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"] {
        let (net, mut listener, counters) = node(&Secret::generate(), listen).await;
        let (key, start) = (Keypair::generate_ed25519(), Instant::now());
        let mut stranger = stranger(&key);
        let learnt = timeout(PATIENCE, try_everything(&mut stranger, &net)).await.expect("sent away");
        assert_eq!(learnt, Vec::<String>::new(), "{listen}");
        assert!(start.elapsed() < ADMIT_WITHIN + Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(listener.next().now_or_never().is_none(), "its stream was never handed over");
        let status = net.status().borrow().clone();
        assert_eq!((status.revision, net.round_trips().len()), (0, 0), "nothing of it is known");
        let kept_out = ["late", "protocol", "foreign_swarm"].map(|cause| refused(&counters, cause));
        assert!(kept_out.iter().sum::<u64>() > 0, "and it was counted");
    }
}

/// A connection of its own kind: set up, and nothing is ever said on it.
async fn silent(key: &Keypair, address: &Multiaddr) -> bool {
    let mut transport = transport::ungated(key, &Activity::new()).unwrap();
    let options = libp2p::core::transport::DialOpts {
        role: libp2p::core::Endpoint::Dialer,
        port_use: libp2p::core::transport::PortUse::New,
    };
    let mut place = address.clone();
    place.pop();
    let Ok((_, mut muxer)) = transport.dial(place, options).unwrap().await else { return false };
    let closed = std::future::poll_fn(|cx| match muxer.poll_inbound_unpin(cx) {
        std::task::Poll::Ready(Err(_)) => std::task::Poll::Ready(()),
        std::task::Poll::Ready(Ok(_)) => panic!("a stream to a stranger"),
        std::task::Poll::Pending => std::task::Poll::Pending,
    });
    timeout(PATIENCE, closed).await.expect("it is closed");
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_says_nothing_keeps_no_member_out() {
    let secret = Secret::generate();
    let (net, listener, counters) = node(&secret, "/ip4/127.0.0.1/tcp/0").await;
    let server = peer_server().add_service(net.peer_service()).serve_with_incoming(listener);
    let server = tokio::spawn(async { server.await.unwrap() });
    let address = address(&net);
    let crowd = async {
        let one = |_| {
            let address = address.clone();
            async move { silent(&Keypair::generate_ed25519(), &address).await }
        };
        futures::future::join_all((0..4 * MAX_PER_ADDRESS).map(one)).await
    };
    let newcomer = async {
        // The crowd has all places by now, and keeps them for some seconds.
        sleep(Duration::from_millis(700)).await;
        let start = Instant::now();
        let key = Keypair::generate_ed25519();
        let mut member = member(&key, &secret);
        while timeout(Duration::from_secs(1), enter(&mut member, &net)).await.is_err() {}
        start.elapsed()
    };
    let (_, took) = timeout(PATIENCE, async { tokio::join!(crowd, newcomer) }).await.unwrap();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(refused(&counters, "crowded") > 0);
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_nobody_signed_are_refused_by_cause_and_the_swarm_goes_on() {
    let secret = Secret::generate();
    let (victim, _listener, counters) = node(&secret, "/ip4/127.0.0.1/udp/0/quic-v1").await;
    let key = Keypair::generate_ed25519();
    let mut liar = member(&key, &secret);
    let node = timeout(PATIENCE, enter(&mut liar, &victim)).await.unwrap();
    // Everything is right but the signature.
    let (peer_id, shard_id) = (victim.id().clone(), ShardId(1));
    let unsigned = Announcement { peer_id, shard_id, total_shards: 2, ..fixture::announcement() }.to_json();
    let mut forged: serde_json::Value = serde_json::from_slice(&unsigned).unwrap();
    forged["signature"] = "00".repeat(64).into();
    let records = [
        Record::new(shard_key("1"), b"not JSON".to_vec()),
        Record::new(shard_key("2"), b"a shard that does not exist".to_vec()),
        Record::new(shard_key("1"), forged.to_string().into_bytes()),
        Record::new(shard_key("1"), vec![b' '; 20 << 10]),
        // More than the DHT's messages may have: its stream is cut off.
        Record::new(shard_key("1"), vec![b' '; 1 << 20]),
    ];
    for record in records {
        liar.behaviour_mut().kad.put_record_to(record, [node].into_iter(), Quorum::One);
    }
    let causes = ["malformed", "wrong_key", "signature", "too_large"];
    let counted = async {
        while causes.iter().any(|cause| refused(&counters, cause) == 0) {
            let _ = timeout(Duration::from_millis(50), liar.select_next_some()).await;
        }
    };
    timeout(PATIENCE, counted).await.expect("each lie is counted");
    let status = victim.status().borrow().clone();
    assert!(status.shards[1].replicas.is_empty(), "{:?}", status.shards[1]);
}

/// A node and a member of its swarm, who are connected by QUIC and by a life line.
struct Pair {
    /// The node runs for as long as there is this.
    _net: SwarmNet,
    counters: Registry,
    member: Swarm<Liar>,
    /// The member's TCP port.
    port: ListenerId,
    quic: ConnectionId,
    line: ConnectionId,
}

impl Pair {
    /// Who has the smaller id makes the line.
    async fn connected(by_the_node: bool) -> Self {
        let secret = Secret::generate();
        let both = "/ip4/127.0.0.1/udp/0/quic-v1,/ip4/127.0.0.1/tcp/0";
        let (net, _, counters) = node(&secret, both).await;
        let id = crate::peer::peer_id(net.id()).unwrap();
        let key = std::iter::repeat_with(Keypair::generate_ed25519)
            .find(|key| (id < key.public().to_peer_id()) == by_the_node)
            .unwrap();
        let mut member = member(&key, &secret);
        let listening = |event| matches!(event, SwarmEvent::NewListenAddr { .. }).then_some(());
        member.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
        until(&mut member, listening).await;
        let port = member.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        until(&mut member, listening).await;
        member.dial(address(&net)).unwrap();
        let quic = until(&mut member, opened).await;
        if !by_the_node {
            let tcp = net.addresses()[1].parse::<Multiaddr>().unwrap();
            let dial = swarm::dial_opts::DialOpts::peer_id(id).addresses(vec![tcp]);
            let dial = dial.condition(swarm::dial_opts::PeerCondition::Always).build();
            // It is known by then where the member listens.
            let told = |event| match event {
                SwarmEvent::Behaviour(LiarEvent::Identify(identify::Event::Sent { .. })) => Some(()),
                _ => None,
            };
            until(&mut member, told).await;
            member.dial(dial).unwrap();
        }
        let line = until(&mut member, opened).await;
        let mut pair = Self { _net: net, counters, member, port, quic, line };
        // The node has it a moment later.
        while pair.counted("connections{transport=\"TCP\"}") == 0 {
            let _ = timeout(Duration::from_millis(10), pair.member.select_next_some()).await;
        }
        pair
    }

    /// How many peers the node has noticed as gone: by their life lines, by silence, by their own words.
    fn gone(&self) -> [u64; 3] {
        let gone = |cause| self.counted(&format!("peers_gone_total{{cause=\"{cause}\"}}"));
        ["closed", "silent", "left"].map(gone)
    }

    fn counted(&self, series: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.counters).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(series));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }
}

/// Waits for an event.
async fn until<T>(member: &mut Swarm<Liar>, mut so: impl FnMut(SwarmEvent<LiarEvent>) -> Option<T>) -> T {
    let seen = async {
        loop {
            if let Some(seen) = so(member.select_next_some().await) {
                return seen;
            }
        }
    };
    timeout(PATIENCE, seen).await.expect("in time")
}

fn opened(event: SwarmEvent<LiarEvent>) -> Option<ConnectionId> {
    match event {
        SwarmEvent::ConnectionEstablished { connection_id, .. } => Some(connection_id),
        _ => None,
    }
}

fn closed(event: SwarmEvent<LiarEvent>) -> Option<ConnectionId> {
    match event {
        SwarmEvent::ConnectionClosed { connection_id, .. } => Some(connection_id),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_closed_its_line_and_its_port_is_gone_although_quic_is_open() {
    for by_the_node in [true, false] {
        let mut pair = Pair::connected(by_the_node).await;
        assert!(pair.member.remove_listener(pair.port));
        let port_closed = |event| matches!(event, SwarmEvent::ListenerClosed { .. }).then_some(());
        until(&mut pair.member, port_closed).await;
        assert!(pair.member.close_connection(pair.line));
        assert_eq!(until(&mut pair.member, closed).await, pair.line);
        assert_eq!(until(&mut pair.member, closed).await, pair.quic, "the node has closed it");
        assert_eq!(pair.gone(), [1, 0, 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_its_line_alone_is_there_and_has_another_soon() {
    let mut pair = Pair::connected(true).await;
    assert!(pair.member.close_connection(pair.line));
    assert_eq!(until(&mut pair.member, closed).await, pair.line);
    let mut next = |event| match event {
        SwarmEvent::ConnectionClosed { .. } => panic!("{event:?}"),
        event => opened(event),
    };
    until(&mut pair.member, &mut next).await;
    assert_eq!(pair.member.network_info().connection_counters().num_established(), 2);
    assert_eq!(pair.gone(), [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_goodbye_by_quic_has_left_and_keeps_no_line() {
    let mut pair = Pair::connected(true).await;
    assert!(pair.member.close_connection(pair.quic));
    assert_eq!(until(&mut pair.member, closed).await, pair.quic);
    assert_eq!(until(&mut pair.member, closed).await, pair.line, "the node has closed it");
    assert_eq!(pair.gone(), [0, 0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_has_dialled_by_tcp_lives_on_when_quic_ends_and_quic_comes_back() {
    let mut pair = Pair::connected(false).await;
    assert!(pair.member.close_connection(pair.quic));
    assert_eq!(until(&mut pair.member, closed).await, pair.quic);
    // The node knows where the member listens, and dials it there.
    let mut next = |event| match event {
        SwarmEvent::ConnectionClosed { .. } => panic!("{event:?}"),
        SwarmEvent::ConnectionEstablished { endpoint, .. } => Some(endpoint.get_remote_address().clone()),
        _ => None,
    };
    let from = until(&mut pair.member, &mut next).await;
    assert_eq!(transport::address::transport(&from), Some(Transport::Quic));
    assert_eq!(pair.gone(), [0, 0, 0]);
    let connections = pair.counted("connections{transport=\"TCP\"}");
    assert_eq!(connections, 1, "the line that the member had dialled");
}
