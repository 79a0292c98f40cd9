//! Values for tests: each is right as it is; a test changes what it is about.

use std::collections::BTreeMap;

use crate::{
    Admission, Announcement, Capabilities, Cut, HeldTorrent, LayerRange, ModelDigest, ModelId, Precision,
    Replica, ReplicaState, ShardId, ShardStatus, SwarmStatus, Transport,
};

/// A model that no file has.
#[must_use]
pub fn model() -> ModelId {
    ModelId { name: "tiny".into(), digest: ModelDigest([7; 32]), precision: Precision::Exact }
}

/// A torrent of four pieces, of which three are there; the number tells it from others.
#[must_use]
pub fn held_torrent(number: u8) -> HeldTorrent {
    let info_hash = ModelDigest([number; 32]);
    HeldTorrent { info_hash, name: "tiny".into(), bytes: 1 << 20, pieces_held: 3, pieces: 4, source: None }
}

/// Of a worker that has loaded four layers.
///
/// # Panics
/// Never.
#[must_use]
pub fn capabilities() -> Capabilities {
    Capabilities {
        layers: LayerRange::new(0, 4).expect("not reversed"),
        device: "cpu".into(),
        memory_bytes: 1 << 30,
        tokens_per_second: 12.5,
        version: "0.1.0".into(),
        grpc_address: "127.0.0.1:50051".into(),
        loaded_percent: 100,
        active_sessions: 0,
        round_trips_us: BTreeMap::new(),
        fetching: None,
        stalled: false,
    }
}

/// Four layers a shard.
///
/// # Panics
/// When there is no shard.
#[must_use]
pub fn cut(total_shards: u32) -> Cut {
    Cut::from_ends((1..=total_shards).map(|shard| 4 * shard).collect()).expect("layers that rise")
}

/// Of a loaded shard, one of eight.
///
/// # Panics
/// Never.
#[must_use]
pub fn announcement() -> Announcement {
    Announcement {
        peer_id: "12D3KooWGzBvZVkz".parse().expect("base58"),
        shard_id: ShardId(3),
        shard_loaded: true,
        addresses: vec!["/ip4/127.0.0.1/udp/4001/quic-v1".into()],
        total_shards: 8,
        model: model(),
        capabilities: capabilities(),
        sequence: 4,
        expires_at_ms: 60_000,
    }
}

/// A worker that is connected by QUIC and not the node that tells.
///
/// # Panics
/// When `worker` is not in base58.
#[must_use]
pub fn replica(worker: &str, state: ReplicaState) -> Replica {
    Replica {
        worker: worker.parse().expect("base58"),
        state,
        lost: false,
        local: false,
        addresses: vec![],
        transport: Some(Transport::Quic),
        model: model(),
        capabilities: capabilities(),
    }
}

/// A swarm of these replicas, `shards[i]` those of shard i, which is cut as [`cut`] says.
///
/// # Panics
/// Never.
#[must_use]
pub fn status(shards: Vec<Vec<Replica>>) -> SwarmStatus {
    let four = |shard: u32| LayerRange::new(4 * shard, 4 * shard + 4).expect("not reversed");
    let shards = (0..).zip(shards).map(|(shard, mut replicas): (u32, Vec<Replica>)| {
        replicas.iter_mut().for_each(|replica| replica.capabilities.layers = four(shard));
        ShardStatus { shard_id: ShardId(shard), replicas }
    });
    let node = "12D3".parse().expect("base58");
    SwarmStatus::new("c".into(), node, Admission::Secret, shards.collect(), 1)
}
