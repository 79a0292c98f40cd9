//! What a worker announces of its shards.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use swarm_net::{Role, RoundTrip, ShardOffer, SwarmNet};
use swarm_types::{
    Capabilities, Cut, Fetching, LayersError, MAX_ROUND_TRIPS, ModelId, NodeId, ShardRange, SwarmStatus,
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

/// Changes that nobody waits for are told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Round trips are looked at as often.
const MEASURED_EVERY: Duration = Duration::from_secs(5);

/// Every change is told to every peer, and no two pings take the same time. So a round trip is told again when it is
/// another by more than this, in microseconds, and by more than half.
const ALIKE_US: u32 = 500;

/// What does not change while the worker runs.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    pub shards: ShardRange,
    pub cut: Cut,
    pub model: ModelId,
    pub device: String,
    pub kv_bytes: u64,
    pub grpc_address: String,
}

/// How far loading is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Loading {
    Percent(u8),
    /// While its part of the model comes from other nodes.
    Fetching {
        percent: u8,
        from: Fetching,
    },
    Done {
        tokens_per_second: f32,
        weight_bytes: u64,
        /// The engine does not come back from a batch.
        is_stalled: bool,
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
        Loading::Percent(percent) | Loading::Fetching { percent, .. } => (percent.min(99), 0.0, 0),
        Loading::Done { tokens_per_second, weight_bytes, .. } => (100, tokens_per_second, weight_bytes),
        Loading::Draining => (100, 0.0, 0),
    };
    let fetching = match loading {
        Loading::Fetching { from, .. } => Some(from),
        _ => None,
    };
    let offer = |shard_id| {
        Ok(ShardOffer {
            shard_id,
            loaded: matches!(loading, Loading::Done { .. }),
            model: fixed.model.clone(),
            capabilities: Capabilities {
                layers: fixed.cut.layers(ShardRange::one(shard_id))?,
                device: fixed.device.clone(),
                memory_bytes: fixed.kv_bytes.saturating_add(weight_bytes),
                tokens_per_second,
                version: env!("CARGO_PKG_VERSION").into(),
                grpc_address: fixed.grpc_address.clone(),
                loaded_percent,
                active_sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
                round_trips_us: round_trips_us.clone(),
                fetching,
                stalled: matches!(loading, Loading::Done { is_stalled: true, .. }),
            },
        })
    };
    fixed.shards.iter().map(offer).collect()
}

/// How far those are to whom this worker hands its results: the workers of the shard behind its own, and behind the
/// last shard the gateways.
fn round_trips(
    measured: BTreeMap<NodeId, RoundTrip>,
    status: &SwarmStatus,
    shards: ShardRange,
) -> BTreeMap<NodeId, u32> {
    let next = status.shards.get(shards.end() as usize);
    let is_behind = |node: &NodeId, role: Role| match next {
        Some(shard) => shard.replicas.iter().any(|replica| replica.worker == *node),
        None => role == Role::Gateway,
    };
    let behind = measured.into_iter().filter(|(node, to)| is_behind(node, to.role));
    let micros = behind.map(|(node, to)| (node, u32::try_from(to.time.as_micros()).unwrap_or(u32::MAX)));
    micros.take(MAX_ROUND_TRIPS).collect()
}

/// Whether all who are told of are the same nodes, about as far.
fn are_alike(told: &BTreeMap<NodeId, u32>, now: &BTreeMap<NodeId, u32>) -> bool {
    let is_alike = |a: u32, b: u32| a.abs_diff(b) <= ALIKE_US.max(a.max(b) / 2);
    told.keys().eq(now.keys()) && told.values().zip(now.values()).all(|(told, now)| is_alike(*told, *now))
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
    let mut told = BTreeMap::new();
    loop {
        let (now, count) = (*loading.borrow_and_update(), *sessions.borrow_and_update());
        let round_trips = round_trips(net.round_trips(), &net.status().borrow(), fixed.shards);
        if !are_alike(&told, &round_trips) {
            told = round_trips;
        }
        match offers(&fixed, now, count, &told) {
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
    use swarm_types::{
        ReplicaState,
        fixture::{replica, status},
    };

    use super::*;

    #[test]
    fn a_worker_tells_how_far_those_are_that_get_its_results() {
        let loaded = |worker: &str| vec![replica(worker, ReplicaState::Loaded)];
        let status = status(vec![loaded("aa"), loaded("bb"), loaded("cc")]);
        let to = |role, micros| RoundTrip { role, time: Duration::from_micros(micros) };
        let node = |name: &str| name.parse::<NodeId>().expect("valid");
        let measured = BTreeMap::from([
            (node("aa"), to(Role::Worker, 10)),
            (node("bb"), to(Role::Worker, 20)),
            (node("gateway"), to(Role::Gateway, 30)),
            (node("rendezvous"), to(Role::Rendezvous, 40)),
        ]);
        let told = |shards: &str| round_trips(measured.clone(), &status, shards.parse().expect("valid"));
        assert_eq!(told("0"), [(node("bb"), 20)].into());
        assert_eq!(told("1"), BTreeMap::new(), "nothing measured to its worker yet");
        assert_eq!(told("2"), [(node("gateway"), 30)].into());
        assert_eq!(told("0-2"), [(node("gateway"), 30)].into());
    }

    #[test]
    fn only_a_round_trip_that_is_another_is_told_again() {
        let to = |micros: u32| BTreeMap::from([("aa".parse::<NodeId>().expect("valid"), micros)]);
        assert!(are_alike(&to(100), &to(600)) && are_alike(&to(40_000), &to(20_000)));
        assert!(!are_alike(&to(100), &to(601)) && !are_alike(&to(40_000), &to(19_999)));
        assert!(!are_alike(&to(19_999), &to(40_000)) && !are_alike(&to(100), &BTreeMap::new()));
        let other = BTreeMap::from([("bb".parse().expect("valid"), 100)]);
        assert!(!are_alike(&to(100), &other), "another node");
    }

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
