//! The swarm's status as gauges, taken from the node's own view when they are asked for.

use std::{collections::BTreeSet, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use swarm_types::{ModelId, Replica, ReplicaState, ShardStatus, SwarmStatus};
use tokio::sync::watch;

const STATES: [(ReplicaState, &str); 4] = [
    (ReplicaState::Loading, "loading"),
    (ReplicaState::Loaded, "loaded"),
    (ReplicaState::Suspect, "suspect"),
    (ReplicaState::Offline, "offline"),
];

#[derive(Debug)]
pub(super) struct SwarmGauges {
    status: watch::Receiver<Arc<SwarmStatus>>,
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct Replicas {
    shard: u32,
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct Shard {
    shard: u32,
}

/// A model that is served. All are empty while none is, so that the series is there for every node.
#[derive(Clone, Debug, Default, EncodeLabelSet)]
struct Model {
    model: String,
    precision: String,
    digest: String,
}

impl From<&ModelId> for Model {
    fn from(model: &ModelId) -> Self {
        let ModelId { name, digest, precision } = model;
        Self { model: name.clone(), precision: precision.to_string(), digest: digest.to_string() }
    }
}

impl SwarmGauges {
    pub(super) fn new(status: watch::Receiver<Arc<SwarmStatus>>) -> Self {
        Self { status }
    }
}

impl Collector for SwarmGauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let status = self.status.borrow().clone();
        let mut gauge = |name: &str, help: &str, value: i64| {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)
        };
        gauge(
            "swarm_ready",
            "1 when every shard has a loaded replica of one model, as this node sees it.",
            status.swarm_ready.into(),
        )?;
        gauge("swarm_shards", "Shards that the model is cut into.", status.total_shards.into())?;
        gauge(
            "swarm_shards_discovered",
            "Shards with a replica that is not offline, as this node sees it.",
            status.discovered_shards.into(),
        )?;
        let help = "Workers that serve a shard, by state, as this node sees it.";
        let mut replicas = encoder.encode_descriptor("shard_replicas", help, None, MetricType::Gauge)?;
        for shard in &status.shards {
            for (state, name) in STATES {
                let labels = Replicas { shard: shard.shard_id.0, state: name };
                let count = count(shard, |replica| replica.state == state);
                ConstGauge::new(count).encode(replicas.encode_family(&labels)?)?;
            }
        }
        let help = "Workers of a shard that ended without a goodbye, until they are back or forgotten, by this node.";
        let mut lost = encoder.encode_descriptor("workers_lost", help, None, MetricType::Gauge)?;
        for shard in &status.shards {
            let count = count(shard, |replica| replica.lost);
            ConstGauge::new(count).encode(lost.encode_family(&Shard { shard: shard.shard_id.0 })?)?;
        }
        let help =
            "1 for each model that workers of the swarm serve, as this node sees it; 0 while there is none.";
        let mut info = encoder.encode_descriptor("model_info", help, None, MetricType::Gauge)?;
        let models = models(&status);
        for model in &models {
            ConstGauge::new(1i64).encode(info.encode_family(&Model::from(*model))?)?;
        }
        match models.is_empty() {
            true => ConstGauge::new(0i64).encode(info.encode_family(&Model::default())?),
            false => Ok(()),
        }
    }
}

/// What workers serve who are not offline.
fn models(status: &SwarmStatus) -> BTreeSet<&ModelId> {
    let replicas = status.shards.iter().flat_map(|shard| &shard.replicas);
    replicas.filter(|replica| replica.state != ReplicaState::Offline).map(|replica| &replica.model).collect()
}

fn count(shard: &ShardStatus, is_one: impl Fn(&Replica) -> bool) -> i64 {
    let count = shard.replicas.iter().filter(|replica| is_one(replica)).count();
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use swarm_types::{Admission, ShardId, fixture};

    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn every_shard_is_there_with_every_state_also_without_a_replica() {
        let shards = vec![ShardStatus { shard_id: ShardId(0), replicas: vec![] }];
        let status =
            SwarmStatus::new("c".into(), "12D3".parse().expect("valid"), Admission::Secret, shards, 1);
        let registry = Registry::default();
        let (_sender, receiver) = watch::channel(Arc::new(status));
        registry.show_swarm(receiver);
        let metrics = registry.encode();
        for line in [
            "llama_swarm_swarm_ready 0",
            "llama_swarm_swarm_shards 1",
            "llama_swarm_shard_replicas{shard=\"0\",state=\"loaded\"} 0",
            "llama_swarm_shard_replicas{shard=\"0\",state=\"offline\"} 0",
            "llama_swarm_workers_lost{shard=\"0\"} 0",
            "llama_swarm_model_info{model=\"\",precision=\"\",digest=\"\"} 0",
        ] {
            assert!(metrics.lines().any(|l| l == line), "no {line:?} in\n{metrics}");
        }
    }

    #[test]
    fn each_model_that_is_served_is_told_once_and_all_series_name_the_swarm() {
        let replica = |worker: &str, state| fixture::replica(worker, state);
        let status = fixture::status(vec![
            vec![replica("aa", ReplicaState::Loaded)],
            vec![replica("bb", ReplicaState::Loading)],
        ]);
        let registry = Registry::of("blue");
        let (_sender, receiver) = watch::channel(Arc::new(status));
        registry.show_swarm(receiver);
        let metrics = registry.encode();
        let series: Vec<_> = metrics.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(series.iter().all(|series| series.contains("{cluster=\"blue\"")), "{metrics}");
        let models: Vec<_> =
            series.iter().filter(|series| series.starts_with("llama_swarm_model_info{")).collect();
        assert_eq!(models.len(), 1, "{metrics}");
        assert!(models[0].contains("model=\"tiny\"") && models[0].ends_with(" 1"), "{metrics}");
    }
}
