//! What a worker announces of its shards.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use swarm_net::{ShardOffer, SwarmNet};
use swarm_types::{
    Capabilities, LayerRange, LayersError, MAX_ROUND_TRIPS, ModelId, NodeId, ShardRange, ShardStatus,
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

/// Changes that nobody waits for are told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Round trips are measured as often.
const MEASURED_EVERY: Duration = Duration::from_secs(5);

/// What does not change while the worker runs.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    pub shards: ShardRange,
    pub total_shards: u32,
    pub total_layers: u32,
    pub model: ModelId,
    pub device: String,
    pub kv_bytes: u64,
    pub grpc_address: String,
}

/// How far loading is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Loading {
    Percent(u8),
    Done {
        tokens_per_second: f32,
        weight_bytes: u64,
    },
    /// On the way out: there for the sessions that run, not for new ones.
    Draining,
}

/// Where others reach the TCP gRPC port. When it is open on every address of the machine, that is the host of the
/// first address that peers are told.
pub(crate) fn grpc_address(listening: SocketAddr, told: &[String]) -> String {
    let port = listening.port();
    if !listening.ip().is_unspecified() {
        return listening.to_string();
    }
    match told.first().map(|address| address.split('/').collect::<Vec<_>>()).as_deref() {
        Some(["", "ip6", host, ..]) => format!("[{host}]:{port}"),
        Some(["", _, host, ..]) => format!("{host}:{port}"),
        _ => format!("127.0.0.1:{port}"),
    }
}

/// One offer for each shard.
pub(crate) fn offers(
    fixed: &Fixed,
    loading: Loading,
    sessions: usize,
    round_trips_us: &BTreeMap<NodeId, u32>,
) -> Result<Vec<ShardOffer>, LayersError> {
    let (loaded_percent, tokens_per_second, weight_bytes) = match loading {
        Loading::Percent(percent) => (percent.min(99), 0.0, 0),
        Loading::Done { tokens_per_second, weight_bytes } => (100, tokens_per_second, weight_bytes),
        Loading::Draining => (100, 0.0, 0),
    };
    let offer = |shard_id| {
        Ok(ShardOffer {
            shard_id,
            loaded: matches!(loading, Loading::Done { .. }),
            model: fixed.model.clone(),
            capabilities: Capabilities {
                layers: LayerRange::for_shard(shard_id, fixed.total_shards, fixed.total_layers)?,
                device: fixed.device.clone(),
                memory_bytes: fixed.kv_bytes.saturating_add(weight_bytes),
                tokens_per_second,
                version: env!("CARGO_PKG_VERSION").into(),
                grpc_address: fixed.grpc_address.clone(),
                loaded_percent,
                active_sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
                round_trips_us: round_trips_us.clone(),
            },
        })
    };
    fixed.shards.iter().map(offer).collect()
}

/// How far those are to whom this worker hands its results: the workers of the shard behind its own, and behind the
/// last shard the nodes that serve none, among them the gateways.
fn round_trips(net: &SwarmNet, fixed: &Fixed) -> BTreeMap<NodeId, u32> {
    let status = net.status().borrow().clone();
    let serves = |shard: &ShardStatus, worker: &NodeId| shard.replicas.iter().any(|r| r.worker == *worker);
    let is_behind = |worker: &NodeId| match status.shards.get(fixed.shards.end() as usize) {
        Some(shard) => serves(shard, worker),
        None => !status.shards.iter().any(|shard| serves(shard, worker)),
    };
    let behind = net.round_trips().into_iter().filter(|(worker, _)| is_behind(worker));
    let micros = behind.map(|(worker, time)| (worker, u32::try_from(time.as_micros()).unwrap_or(u32::MAX)));
    micros.take(MAX_ROUND_TRIPS).collect()
}

/// Announces every change of loading at once, of the number of sessions soon, and of round trips now and then, until
/// either side is dropped.
pub(crate) async fn announce(
    net: SwarmNet,
    fixed: Fixed,
    mut loading: watch::Receiver<Loading>,
    mut sessions: watch::Receiver<usize>,
) {
    let mut measured = interval(MEASURED_EVERY);
    measured.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (now, count) = (*loading.borrow_and_update(), *sessions.borrow_and_update());
        match offers(&fixed, now, count, &round_trips(&net, &fixed)) {
            Ok(offers) => net.announce(offers),
            Err(error) => tracing::error!(%error, "the shards cannot be announced"),
        }
        let changed = tokio::select! {
            changed = loading.changed() => changed,
            _ = measured.tick() => Ok(()),
            changed = async {
                let changed = sessions.changed().await;
                tokio::time::sleep(TELL_EVERY).await;
                changed
            } => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_port_on_all_addresses_is_told_with_a_host_that_others_can_use() {
        let address = |listening: &str, told: &[&str]| {
            let told: Vec<String> = told.iter().map(ToString::to_string).collect();
            grpc_address(listening.parse().expect("a socket address"), &told)
        };
        let told = ["/dns4/outside/udp/4001/quic-v1/p2p/12D3KooWa", "/ip4/10.0.0.7/tcp/4001/p2p/12D3KooWa"];
        assert_eq!(address("10.0.0.7:50051", &told), "10.0.0.7:50051");
        assert_eq!(address("0.0.0.0:50051", &told), "outside:50051");
        assert_eq!(address("0.0.0.0:50051", &told[1..]), "10.0.0.7:50051");
        assert_eq!(address("[::]:50051", &["/ip6/2001:db8::7/udp/4001/quic-v1"]), "[2001:db8::7]:50051");
        assert_eq!(address("0.0.0.0:50051", &[]), "127.0.0.1:50051");
    }
}
