//! Workers that are there and cannot be used, said in the log: whoever started them should know.

use std::{collections::BTreeSet, sync::Arc};

use swarm_types::{Cut, LayerRange, ModelDigest, NodeId, ReplicaState, ShardId, SwarmStatus};
use tokio::sync::watch;

use crate::route::layers;

/// A worker that no route goes through.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Misfit {
    worker: NodeId,
    /// One of its shards.
    shard: ShardId,
    differs: Difference,
}

/// What it has otherwise than the gateway.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Difference {
    Cut { theirs: LayerRange, ours: LayerRange },
    Model { name: String, theirs: ModelDigest },
}

/// Says which workers are not used because they have another model or cut it in another way; each once, until it
/// changes.
pub(crate) async fn tell(mut status: watch::Receiver<Arc<SwarmStatus>>, digest: ModelDigest, cut: Arc<Cut>) {
    let mut told = BTreeSet::new();
    loop {
        let found = misfits(&status.borrow_and_update(), digest, &cut);
        for Misfit { worker, shard, differs } in found.difference(&told) {
            match differs {
                Difference::Cut { theirs, ours } => tracing::warn!(
                    %worker, %shard, %theirs, %ours,
                    "a worker is not used, it cuts the model differently: give every node the same \
                     --total-shards, --shard-weights and version"
                ),
                Difference::Model { name, theirs } => tracing::warn!(
                    %worker, %shard, model = name, %theirs, ours = %digest,
                    "a worker is not used, it has another model: give every node the same --model"
                ),
            }
        }
        told = found;
        if status.changed().await.is_err() {
            return;
        }
    }
}

fn misfits(status: &SwarmStatus, digest: ModelDigest, cut: &Cut) -> BTreeSet<Misfit> {
    let replicas = status.shards.iter().flat_map(|shard| shard.replicas.iter().map(|r| (shard.shard_id, r)));
    let online = replicas.filter(|(_, replica)| replica.state != ReplicaState::Offline);
    let differs = online.filter_map(|(shard, replica)| {
        let model = &replica.model;
        let (theirs, ours) = (replica.capabilities.layers, layers(cut, shard)?);
        let differs = if model.digest != digest {
            Difference::Model { name: model.name.clone(), theirs: model.digest }
        } else if theirs != ours {
            Difference::Cut { theirs, ours }
        } else {
            return None;
        };
        Some(Misfit { worker: replica.worker.clone(), shard, differs })
    });
    differs.collect()
}

#[cfg(test)]
mod tests {
    use swarm_types::{Replica, fixture};

    use super::*;

    #[test]
    fn who_has_another_model_or_another_cut_is_found() {
        let cut = fixture::cut(2);
        let ours = ModelDigest([1; 32]);
        let replica = |name: &str, digest: ModelDigest| {
            let mut replica = fixture::replica(&format!("12D3{name}"), ReplicaState::Loaded);
            replica.model.digest = digest;
            replica
        };
        let gone = Replica { state: ReplicaState::Offline, ..replica("gone", ModelDigest([2; 32])) };
        let mut status = fixture::status(vec![
            vec![replica("fits", ours), replica("other", ModelDigest([2; 32])), gone],
            vec![replica("cuts", ours), replica("fits", ours)],
        ]);
        for (shard, of) in (0..).zip(&mut status.shards) {
            for replica in &mut of.replicas {
                replica.capabilities.layers = layers(&cut, ShardId(shard)).expect("there are two");
            }
        }
        status.shards[1].replicas[0].capabilities.layers = layers(&cut, ShardId(0)).expect("there are two");
        let found = misfits(&status, ours, &cut);
        let found: Vec<_> = found.iter().map(|one| (one.worker.as_str(), one.shard, &one.differs)).collect();
        assert!(
            matches!(
                &found[..],
                [
                    ("12D3cuts", ShardId(1), Difference::Cut { .. }),
                    ("12D3other", ShardId(0), Difference::Model { .. })
                ]
            ),
            "{found:?}"
        );
    }
}
