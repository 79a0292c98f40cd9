//! Nodes on loopback for the tests of this crate.
// Each test binary uses a part of this, and what fails here fails a test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod process;

use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use swarm_net::{Identity, NetConfig, Role, ShardOffer, SwarmNet, peer_server};
use swarm_types::{Capabilities, LayerRange, NodeId, ReplicaState, ShardId, SwarmStatus, fixture};
use tokio::{
    task::JoinHandle,
    time::{interval, timeout},
};

/// Nothing here takes this long, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const QUIC_AND_TCP: &str = "/ip4/127.0.0.1/udp/0/quic-v1,/ip4/127.0.0.1/tcp/0";
pub const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
pub const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// A node that serves its peers.
pub struct Node {
    pub net: SwarmNet,
    server: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub fn config(total_shards: u32, entry: Option<&Node>) -> NetConfig {
    NetConfig {
        cluster: "test".into(),
        listen: QUIC_AND_TCP.split(',').map(str::to_owned).collect(),
        rendezvous: entry.map(Node::entry).into_iter().collect(),
        total_shards,
        ..NetConfig::default()
    }
}

impl Node {
    pub async fn start(config: NetConfig, role: Role, identity: Identity) -> Self {
        // RUST_LOG shows what happens; set already by another test of the process.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let (net, listener) = SwarmNet::bind(config, role, identity).await.unwrap();
        let serve = peer_server().add_service(net.peer_service()).serve_with_incoming(listener);
        let server = tokio::spawn(async { serve.await.unwrap() });
        Self { net, server }
    }

    pub async fn rendezvous(total_shards: u32) -> Self {
        Self::start(config(total_shards, None), Role::Rendezvous, Identity::ephemeral()).await
    }

    pub async fn gateway(total_shards: u32, entry: &Self) -> Self {
        Self::start(config(total_shards, Some(entry)), Role::Gateway, Identity::ephemeral()).await
    }

    /// A worker with one loaded shard.
    pub async fn worker(total_shards: u32, shard: u32, entry: Option<&Self>) -> Self {
        let node = Self::start(config(total_shards, entry), Role::Worker, Identity::ephemeral()).await;
        node.net.announce(vec![offer(shard, true)]);
        node
    }

    /// A worker with shard 0 of 2, loaded, that others enter by.
    pub async fn worker_on(listen: &str) -> Self {
        let listen = listen.split(',').map(str::to_owned).collect();
        let config = NetConfig { listen, ..config(2, None) };
        let node = Self::start(config, Role::Worker, Identity::ephemeral()).await;
        node.net.announce(vec![offer(0, true)]);
        node
    }

    /// An address to enter by.
    pub fn entry(&self) -> String {
        self.net.addresses().remove(0)
    }

    /// Waits until the node's status is as wanted; gives how long that took.
    pub async fn sees(&self, what: &str, wanted: impl Fn(&SwarmStatus) -> bool) -> Duration {
        let start = Instant::now();
        let mut status = self.net.status();
        let seen = timeout(PATIENCE, status.wait_for(|status| wanted(status))).await;
        match seen {
            Ok(Ok(_)) => start.elapsed(),
            Ok(Err(_)) => panic!("the node ended before it saw {what}"),
            Err(_) => panic!("never saw {what}: {:#?}", self.net.status().borrow().shards),
        }
    }

    /// The value of one of the node's series, by its name with its labels; 0 before it is there.
    pub fn counted(&self, series: &str) -> u64 {
        let (mut registry, mut text) = (Registry::default(), String::new());
        self.net.metrics(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(series));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// Waits until a series has come to so much.
    pub async fn counts(&self, series: &str, value: u64) {
        let mut poll = interval(Duration::from_millis(20));
        let counts = async {
            while self.counted(series) != value {
                poll.tick().await;
            }
        };
        let counted = timeout(PATIENCE, counts).await;
        counted.unwrap_or_else(|_| panic!("{series} is {} and not {value}", self.counted(series)));
    }

    /// Waits until a series has come to so much, or more.
    pub async fn reaches(&self, series: &str, value: u64) {
        let mut poll = interval(Duration::from_millis(20));
        let reached = async {
            while self.counted(series) < value {
                poll.tick().await;
            }
        };
        let reached = timeout(PATIENCE, reached).await;
        reached.unwrap_or_else(|_| panic!("{series} is {} and not yet {value}", self.counted(series)));
    }

    /// Waits until a worker's replica of a shard is in a state.
    pub async fn sees_replica(&self, shard: u32, worker: &NodeId, state: ReplicaState) -> Duration {
        self.sees(&format!("shard {shard} of {worker} {state:?}"), |status| {
            replica_state(status, shard, worker) == Some(state)
        })
        .await
    }
}

pub fn replica_state(status: &SwarmStatus, shard: u32, worker: &NodeId) -> Option<ReplicaState> {
    let replicas = &status.shards[shard as usize].replicas;
    replicas.iter().find(|replica| replica.worker == *worker).map(|replica| replica.state)
}

pub fn offer(shard: u32, loaded: bool) -> ShardOffer {
    let loaded_percent = if loaded { 100 } else { 0 };
    let layers = LayerRange::new(4 * shard, 4 * shard + 4).expect("not reversed");
    let capabilities = Capabilities { loaded_percent, layers, ..fixture::capabilities() };
    ShardOffer { shard_id: ShardId(shard), loaded, model: fixture::model(), capabilities }
}
