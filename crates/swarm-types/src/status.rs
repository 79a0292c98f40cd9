//! The swarm as one node sees it.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{Admission, Capabilities, LayerRange, ModelId, NodeId, ShardId, Transport};

/// What a replica can do for a session now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ReplicaState {
    /// There, but its weights are still on their way into memory.
    Loading,
    /// Able to take sessions.
    Loaded,
    /// Loaded and connected, but it has not answered for a moment: it takes no new sessions.
    Suspect,
    /// Not connected.
    Offline,
}

/// A worker that serves a shard.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Replica {
    /// Who.
    pub worker: NodeId,
    /// What it can do now.
    pub state: ReplicaState,
    /// It is offline and has not said that it would leave.
    pub lost: bool,
    /// This worker is the node that tells.
    pub local: bool,
    /// Multiaddresses where it listens.
    pub addresses: Vec<String>,
    /// Of the connection to it; absent when local or offline.
    pub transport: Option<Transport>,
    /// What it serves a shard of.
    pub model: ModelId,
    /// What it said last of what it can do.
    #[serde(flatten)]
    pub capabilities: Capabilities,
}

/// One shard and all who serve it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ShardStatus {
    /// Which.
    pub shard_id: ShardId,
    /// By worker id; none when the shard was not found yet.
    pub replicas: Vec<Replica>,
}

impl ShardStatus {
    /// The replicas that can take a session of this model.
    pub fn loaded<'a>(&'a self, model: &'a ModelId) -> impl Iterator<Item = &'a Replica> {
        self.replicas.iter().filter(move |r| r.state == ReplicaState::Loaded && r.model.serves(model))
    }

    /// Whether some replica is not offline.
    #[must_use]
    pub fn online(&self) -> bool {
        self.here().next().is_some()
    }

    /// The replicas that are not offline.
    fn here(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| replica.state != ReplicaState::Offline)
    }
}

/// The swarm as one node sees it. Made by [`SwarmStatus::new`] only, so that its summary is always true to its
/// shards.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[non_exhaustive]
pub struct SwarmStatus {
    /// The swarm's name.
    pub cluster: String,
    /// The node that tells.
    pub node: NodeId,
    /// Who may take part.
    pub admission: Admission,
    /// Into how many shards the model is cut.
    pub total_shards: u32,
    /// Shards with a replica that is not offline.
    pub discovered_shards: u32,
    /// All shards are discovered.
    pub pipeline_complete: bool,
    /// Every shard has a loaded replica of one and the same model, and their layers follow each other.
    pub swarm_ready: bool,
    /// `total_shards` of them, in order.
    pub shards: Vec<ShardStatus>,
    /// The model that every shard can serve, when `swarm_ready`. Of several the one with most replicas.
    pub model: Option<ModelId>,
    /// Why it is not ready, for people: what each shard lacks that lacks something. Empty when it is.
    pub missing: Vec<String>,
    /// Grows with every change on this node.
    pub revision: u64,
}

impl SwarmStatus {
    /// Sums up the shards; `shards[i]` is shard i.
    #[must_use]
    pub fn new(
        cluster: String,
        node: NodeId,
        admission: Admission,
        shards: Vec<ShardStatus>,
        revision: u64,
    ) -> Self {
        let total_shards = u32::try_from(shards.len()).unwrap_or(u32::MAX);
        let online = shards.iter().filter(|shard| shard.online()).count();
        let discovered_shards = u32::try_from(online).unwrap_or(u32::MAX);
        let model = served_model(&shards);
        let missing = if model.is_some() { vec![] } else { missing(&shards) };
        Self {
            cluster,
            node,
            admission,
            total_shards,
            discovered_shards,
            pipeline_complete: discovered_shards == total_shards,
            swarm_ready: model.is_some(),
            shards,
            model,
            missing,
            revision,
        }
    }
}

impl ModelId {
    /// Whether a shard of this model fits into a route of `other`: the name is only for people.
    #[must_use]
    pub fn serves(&self, other: &Self) -> bool {
        self.digest == other.digest && self.precision == other.precision
    }
}

/// The model that every shard has a loaded replica of.
fn served_model(shards: &[ShardStatus]) -> Option<ModelId> {
    let candidates = shards.first()?.replicas.iter().filter(|r| r.state == ReplicaState::Loaded);
    let complete = candidates.filter(|candidate| is_whole(shards, &candidate.model));
    let replicas = |model: &ModelId| shards.iter().map(|shard| shard.loaded(model).count()).sum::<usize>();
    complete
        .map(|candidate| &candidate.model)
        .max_by(|a, b| replicas(a).cmp(&replicas(b)).then_with(|| b.cmp(a)))
        .cloned()
}

/// What each shard lacks; of a swarm that is not ready.
fn missing(shards: &[ShardStatus]) -> Vec<String> {
    let model = common_model(shards);
    let told = |shard: &ShardStatus| Some(format!("shard {} {}", shard.shard_id, lack(shard, model)?));
    let missing: Vec<String> = shards.iter().filter_map(told).collect();
    match missing.is_empty() {
        true => vec!["nodes cut the model differently: all need the same --shard-weights and version".into()],
        false => missing,
    }
}

/// The model that most replicas serve, and in which arithmetic.
fn common_model(shards: &[ShardStatus]) -> Option<&ModelId> {
    let models = || shards.iter().flat_map(ShardStatus::here).map(|replica| &replica.model);
    models().max_by_key(|model| models().filter(|other| other.serves(model)).count())
}

/// What keeps a shard from serving the model.
fn lack(shard: &ShardStatus, model: Option<&ModelId>) -> Option<String> {
    use ReplicaState::{Loaded, Loading};
    let Some(other) = shard.here().next() else {
        let lack =
            if shard.replicas.is_empty() { "has no worker yet" } else { "has only workers that are offline" };
        return Some(lack.into());
    };
    let model = model?;
    let fitting = || shard.here().filter(|replica| replica.model.serves(model));
    let loading = fitting().filter(|replica| replica.state == Loading);
    match (fitting().next(), loading.map(|replica| replica.capabilities.loaded_percent).max()) {
        _ if fitting().any(|replica| replica.state == Loaded) => None,
        (Some(_), Some(percent)) => Some(format!("is loading, {percent} %")),
        (Some(_), None) => Some("has only workers that do not answer for the moment".into()),
        (None, _) if other.model.digest == model.digest => {
            let (theirs, wanted) = (other.model.precision, model.precision);
            Some(format!("is computed in precision {theirs} alone, the others in {wanted}"))
        }
        (None, _) => {
            Some(format!("is of another model, {}; the others serve {}", other.model.name, model.name))
        }
    }
}

/// Whether some loaded replicas of the model, one for each shard, have its layers without gap or overlap: nodes that
/// cut the model differently make no whole together.
fn is_whole(shards: &[ShardStatus], model: &ModelId) -> bool {
    let mut ends = BTreeSet::from([0]);
    for shard in shards {
        let layers = shard.loaded(model).map(|replica| replica.capabilities.layers);
        ends = layers.filter(|layers| ends.contains(&layers.start())).map(LayerRange::end).collect();
    }
    !ends.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModelDigest, Precision, fixture};

    fn replica(worker: &str, digest: u8, state: ReplicaState) -> Replica {
        let model = ModelId { digest: ModelDigest([digest; 32]), ..fixture::model() };
        Replica { model, ..fixture::replica(worker, state) }
    }

    fn status(shards: Vec<Vec<Replica>>) -> SwarmStatus {
        fixture::status(shards)
    }

    #[test]
    fn ready_means_every_shard_loaded_with_one_model() {
        use ReplicaState::{Loaded, Loading, Offline};
        let cases = [
            (vec![vec![], vec![]], 0, false),
            (vec![vec![replica("aa", 1, Loaded)], vec![]], 1, false),
            (vec![vec![replica("aa", 1, Loaded)], vec![replica("bb", 1, Loading)]], 2, false),
            (vec![vec![replica("aa", 1, Loaded)], vec![replica("bb", 2, Loaded)]], 2, false),
            (vec![vec![replica("aa", 1, Loaded)], vec![replica("bb", 1, Offline)]], 1, false),
            (vec![vec![replica("aa", 1, Loaded)], vec![replica("bb", 1, Loaded)]], 2, true),
        ];
        for (shards, discovered, ready) in cases {
            let status = status(shards);
            assert_eq!((status.discovered_shards, status.swarm_ready), (discovered, ready), "{status:?}");
            assert_eq!(status.pipeline_complete, discovered == 2);
        }
    }

    #[test]
    fn replicas_that_cut_the_model_differently_make_no_whole() {
        let layers = |start, end| LayerRange::new(start, end).expect("not reversed");
        let two = || {
            status(vec![
                vec![replica("aa", 1, ReplicaState::Loaded)],
                vec![replica("bb", 1, ReplicaState::Loaded)],
            ])
        };
        let ready = |change: fn(&mut Vec<ShardStatus>, LayerRange), range| {
            let mut shards = two().shards;
            change(&mut shards, range);
            SwarmStatus::new("c".into(), two().node, Admission::Secret, shards, 1).swarm_ready
        };
        assert!(!ready(|shards, gap| shards[1].replicas[0].capabilities.layers = gap, layers(5, 8)));
        assert!(!ready(|shards, overlap| shards[0].replicas[0].capabilities.layers = overlap, layers(0, 5)));
        let with_another = |shards: &mut Vec<ShardStatus>, range| {
            let mut other = shards[1].replicas[0].clone();
            other.capabilities.layers = range;
            shards[1].replicas.insert(0, other);
        };
        assert!(ready(with_another, layers(5, 8)), "the other one follows");
    }

    #[test]
    fn what_is_missing_is_told_of_each_shard_that_lacks_something() {
        use ReplicaState::{Loaded, Loading, Offline, Suspect};
        let mut other_way = replica("ff", 1, Loaded);
        other_way.model.precision = Precision::Standard;
        let mut half = replica("bb", 1, Loading);
        half.capabilities.loaded_percent = 40;
        let shards = vec![
            vec![replica("aa", 1, Loaded), replica("zz", 2, Loaded)],
            vec![half],
            vec![],
            vec![replica("cc", 1, Offline)],
            vec![replica("dd", 1, Suspect)],
            vec![replica("ee", 2, Loaded)],
            vec![other_way],
            vec![replica("gg", 1, Loaded)],
        ];
        let expected = [
            "shard 1 is loading, 40 %",
            "shard 2 has no worker yet",
            "shard 3 has only workers that are offline",
            "shard 4 has only workers that do not answer for the moment",
            "shard 5 is of another model, tiny; the others serve tiny",
            "shard 6 is computed in precision standard alone, the others in exact",
        ];
        assert_eq!(status(shards).missing, expected);
        assert_eq!(status(vec![vec![replica("aa", 1, Loaded)]]).missing, [""; 0]);
    }

    #[test]
    fn of_two_complete_models_the_one_with_more_replicas_is_served() {
        use ReplicaState::Loaded;
        let shards = vec![
            vec![replica("aa", 1, Loaded), replica("bb", 2, Loaded)],
            vec![replica("cc", 1, Loaded), replica("dd", 2, Loaded), replica("ee", 2, Loaded)],
        ];
        assert_eq!(status(shards).model.expect("ready").digest, ModelDigest([2; 32]));
    }

    #[test]
    fn a_replica_is_shown_as_one_object() {
        let json = serde_json::to_value(fixture::replica("aa", ReplicaState::Loaded)).expect("JSON");
        let expected = serde_json::json!({
            "worker": "aa", "state": "LOADED", "lost": false, "local": false, "addresses": [], "transport": "QUIC",
            "model": {"name": "tiny", "digest": "07".repeat(32), "precision": "exact"},
            "layers": {"start": 0, "end": 4}, "device": "cpu", "version": "0.1.0", "grpc_address": "127.0.0.1:50051",
            "memory_bytes": 1 << 30, "tokens_per_second": 12.5, "loaded_percent": 100, "active_sessions": 0,
            "round_trips_us": {},
        });
        assert_eq!(json, expected);
    }
}
