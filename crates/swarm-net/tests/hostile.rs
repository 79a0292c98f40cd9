//! Peers that lie.
// What fails here fails a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify,
    kad::{self, Quorum, Record, RecordKey, store::MemoryStore},
    swarm::{NetworkBehaviour, SwarmEvent},
};
use prometheus_client::registry::Registry;
use support::{Node, config, offer};
use swarm_net::{Identity, NetConfig, Role, SwarmNet, peer_server};
use swarm_proto::wire::{
    DescribeRequest, DescribeResponse,
    peer_service_client::PeerServiceClient,
    peer_service_server::{PeerService, PeerServiceServer},
};
use swarm_types::{Announcement, ReplicaState::Loaded, ShardId, fixture};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

/// A bare DHT node of the same cluster that says what it likes.
#[derive(NetworkBehaviour)]
struct Liar {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

fn liar() -> Swarm<Liar> {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_quic()
        .with_behaviour(|key| {
            let me = key.public().to_peer_id();
            let mut config = kad::Config::new(StreamProtocol::new("/llama-swarm/test/kad/1.0.0"));
            config.set_max_packet_size(4 << 20);
            let mut kad = kad::Behaviour::with_config(me, MemoryStore::new(me), config);
            kad.set_mode(Some(kad::Mode::Server));
            let version = "/llama-swarm/test/1.0.0".into();
            Liar { identify: identify::Behaviour::new(identify::Config::new(version, key.public())), kad }
        })
        .unwrap()
        .build();
    swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
    swarm
}

/// Connects and waits until both know each other.
async fn enter(liar: &mut Swarm<Liar>, node: &Node) -> PeerId {
    let address: Multiaddr = node.entry().parse().unwrap();
    liar.dial(address).unwrap();
    loop {
        if let SwarmEvent::Behaviour(LiarEvent::Identify(identify::Event::Received { peer_id, .. })) =
            liar.select_next_some().await
        {
            return peer_id;
        }
    }
}

/// How often a node refused something for this cause.
fn refused(registry: &Registry, cause: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let line = text.lines().find(|line| line.contains(&format!("cause=\"{cause}\"")));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_nobody_signed_are_refused_by_cause_and_the_swarm_goes_on() {
    let victim = Node::worker(2, 0, None).await;
    let mut counters = Registry::default();
    victim.net.metrics(&mut counters);
    let mut liar = liar();
    let node = enter(&mut liar, &victim).await;

    let key = |shard: &str| RecordKey::new(&format!("/llama-cluster/test/shard/{shard}"));
    // Everything is right but the signature: what the worker says of itself, with another shard.
    let (peer_id, shard_id) = (victim.net.id().clone(), ShardId(1));
    let unsigned = Announcement { peer_id, shard_id, total_shards: 2, ..fixture::announcement() }.to_json();
    let mut forged: serde_json::Value = serde_json::from_slice(&unsigned).unwrap();
    forged["signature"] = "00".repeat(64).into();
    let records = [
        Record::new(key("1"), b"not JSON".to_vec()),
        Record::new(key("2"), b"a shard that does not exist".to_vec()),
        Record::new(key("1"), forged.to_string().into_bytes()),
        Record::new(key("1"), vec![b' '; 20 << 10]),
        // More than the DHT's messages may have: its stream is cut off.
        Record::new(key("1"), vec![b' '; 1 << 20]),
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
    timeout(Duration::from_secs(20), counted).await.expect("each lie is counted");
    let status = victim.net.status().borrow().clone();
    assert!(status.shards[1].replicas.is_empty(), "{:?}", status.shards[1]);
    let honest = Node::worker(2, 1, Some(&victim)).await;
    victim.sees_replica(1, honest.net.id(), Loaded).await;
    victim.sees("swarm ready", |status| status.swarm_ready).await;
}

/// Describes itself as it was told to.
struct Impostor(Vec<Vec<u8>>);

#[tonic::async_trait]
impl PeerService for Impostor {
    type DescribeStream = Pin<Box<dyn Stream<Item = Result<DescribeResponse, Status>> + Send>>;

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<Self::DescribeStream>, Status> {
        let announcements = self.0.iter().cloned().map(Into::into).collect();
        let description = DescribeResponse { role: "worker".into(), announcements };
        Ok(Response::new(futures::stream::iter([Ok(description)]).chain(futures::stream::pending()).boxed()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_description_with_others_words_is_refused_but_not_the_honest_rest() {
    let worker = Node::worker(2, 0, None).await;
    let observer = Node::gateway(2, &worker).await;
    observer.sees_replica(0, worker.net.id(), Loaded).await;
    let mut counters = Registry::default();
    observer.net.metrics(&mut counters);

    // What the worker really says, signed by it.
    let channel = observer.net.channel(worker.net.id()).await.unwrap();
    let mut description =
        PeerServiceClient::new(channel).describe(DescribeRequest {}).await.unwrap().into_inner();
    let stolen = description.message().await.unwrap().unwrap().announcements[0].to_vec();

    let config = NetConfig { ..config(2, Some(&worker)) };
    let (impostor, peers) = SwarmNet::bind(config, Role::Worker, Identity::ephemeral()).await.unwrap();
    let lies = vec![stolen, b"nonsense".to_vec(), vec![b' '; 9 << 10]];
    tokio::spawn(
        peer_server().add_service(PeerServiceServer::new(Impostor(lies))).serve_with_incoming(peers),
    );

    let causes = ["foreign_peer", "malformed", "too_large"];
    let counted = async {
        while causes.iter().any(|cause| refused(&counters, cause) == 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), counted).await.expect("each lie is counted");
    let status = observer.net.status().borrow().clone();
    let workers: Vec<_> = status.shards.iter().flat_map(|shard| &shard.replicas).map(|r| &r.worker).collect();
    assert_eq!(workers, [worker.net.id()], "the impostor serves nothing");
    drop(impostor);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_another_swarm_or_another_cut_do_not_mix() {
    let worker = Node::worker(2, 0, None).await;
    let mut counters = Registry::default();
    worker.net.metrics(&mut counters);
    let other = NetConfig { cluster: "other".into(), ..config(2, Some(&worker)) };
    let other = Node::start(other, Role::Worker, Identity::ephemeral()).await;
    other.net.announce(vec![offer(1, true)]);
    let mut others_counters = Registry::default();
    other.net.metrics(&mut others_counters);
    let cut = Node::worker(4, 1, Some(&worker)).await;
    // Of two swarms, whoever hears the other's name first closes the connection, and the other may hear nothing.
    let foreign = || refused(&counters, "foreign_swarm") + refused(&others_counters, "foreign_swarm");
    let counted = async {
        while foreign() == 0 || refused(&counters, "total_shards") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), counted).await.expect("both are refused");
    for node in [&worker, &other, &cut] {
        let online = node.net.status().borrow().discovered_shards;
        assert_eq!(online, 1, "each sees only itself");
    }
}
