//! What each shard of a swarm lacks. Pure: judges a status.

use swarm_types::{
    Admission, Capabilities, Cut, ModelDigest, ModelId, Replica, ReplicaState, ShardId, ShardRange,
    ShardStatus, ShardWeights, SwarmStatus,
};

use super::finding::Finding;

/// The command that starts the worker that is missing.
#[derive(Clone, Debug)]
pub(crate) struct WorkerCommand {
    /// Multiaddress of a node by which to enter.
    pub entry: String,
    /// What admits to the swarm.
    pub admission: Admission,
    /// The model, as the operator names it.
    pub model: String,
    /// Into how many shards it is cut.
    pub total_shards: u32,
    /// How unequal the shards are.
    pub shard_weights: Option<ShardWeights>,
}

/// How the model here is cut by the flags that the doctor has.
#[derive(Clone, Debug)]
pub(crate) struct OwnCut {
    /// Which file.
    pub digest: ModelDigest,
    /// Which layers its shards have.
    pub cut: Cut,
}

impl WorkerCommand {
    fn for_shard(&self, shard: ShardId, model: Option<&ModelId>) -> String {
        let Self { entry, admission, model: name, total_shards, shard_weights } = self;
        let secret = if *admission == Admission::Secret { " --secret-file FILE" } else { "" };
        let weights =
            shard_weights.as_ref().map(|weights| format!(" --shard-weights {weights}")).unwrap_or_default();
        let precision = model.map(|model| format!(" --precision {}", model.precision)).unwrap_or_default();
        format!(
            "llama-swarm worker --shard-id {shard} --total-shards {total_shards}{weights} --rendezvous {entry}{secret} --model {name}{precision}"
        )
    }
}

/// One finding a shard, one for each replica that cannot work with the others, and one for each lost worker.
pub(crate) fn examine(status: &SwarmStatus, command: &WorkerCommand) -> Vec<Finding> {
    let model = common_model(status);
    let shards = status.shards.iter().flat_map(|shard| examine_shard(shard, model, command));
    let lost = status.lost().into_iter().map(|worker| {
        let fix = format!("start it again, or end its service: llama-swarm forget {worker}");
        Finding::warning(format!("worker {worker} is lost: it ended without a goodbye"), fix)
    });
    shards.chain(lost).collect()
}

/// One finding for each online replica of the model here that cuts it in another way.
pub(crate) fn misfits(status: &SwarmStatus, own: &OwnCut) -> Vec<Finding> {
    if own.cut.total_shards() != status.total_shards {
        let (ours, theirs) = (own.cut.total_shards(), status.total_shards);
        let what = format!("the swarm cuts the model into {theirs} shards, this command into {ours}");
        return vec![Finding::warning(what, format!("ask again with --total-shards {theirs}"))];
    }
    let replicas = status.shards.iter().flat_map(|shard| online(shard).map(|r| (shard.shard_id, r)));
    let finding = |(shard, replica): (ShardId, &Replica)| {
        let (theirs, ours) = (replica.capabilities.layers, own.cut.layers(ShardRange::one(shard)).ok()?);
        (replica.model.digest == own.digest && theirs != ours).then(|| {
            Finding::bad(
                format!(
                    "shard {shard}: worker {} has layers {theirs}, by the flags here it has {ours}",
                    replica.worker
                ),
                "give all nodes and this command the same --shard-weights, and all nodes one version",
            )
        })
    };
    replicas.filter_map(finding).collect()
}

/// The model that most online replicas serve.
fn common_model(status: &SwarmStatus) -> Option<&ModelId> {
    let online = || status.shards.iter().flat_map(online).map(|replica| &replica.model);
    online().max_by_key(|model| online().filter(|other| other.serves(model)).count())
}

fn online(shard: &ShardStatus) -> impl Iterator<Item = &Replica> {
    shard.replicas.iter().filter(|replica| replica.state != ReplicaState::Offline)
}

fn examine_shard(shard: &ShardStatus, model: Option<&ModelId>, command: &WorkerCommand) -> Vec<Finding> {
    let fits = |replica: &&Replica| model.is_none_or(|model| replica.model.serves(model));
    let misfits = online(shard).filter(|replica| !fits(replica));
    let misfits: Vec<_> = misfits.map(|replica| misfit(shard.shard_id, replica, model)).collect();
    let loaded = online(shard).filter(fits).filter(|r| r.state == ReplicaState::Loaded).count();
    if loaded > 0 {
        let workers = if loaded == 1 { "one worker".into() } else { format!("{loaded} workers") };
        let good = Finding::good(format!("shard {} is loaded on {workers}", shard.shard_id));
        return [good].into_iter().chain(misfits).collect();
    }
    let lacking = lacking(shard, online(shard).find(fits), model, command);
    lacking.into_iter().chain(misfits).collect()
}

/// Why a shard has no loaded replica; nothing when its only replicas are misfits, which say so themselves.
fn lacking(
    shard: &ShardStatus,
    loading: Option<&Replica>,
    model: Option<&ModelId>,
    command: &WorkerCommand,
) -> Option<Finding> {
    let (id, command) = (shard.shard_id, command.for_shard(shard.shard_id, model));
    if let Some(replica) = loading.filter(|replica| replica.state == ReplicaState::Suspect) {
        let worker = &replica.worker;
        let (what, fix) = match replica.capabilities.stalled {
            true => {
                ("'s engine does not come back from a batch", "see its log and its GPU, and start it again")
            }
            false => {
                let fix = "see whether its machine is overloaded, or its process stopped";
                (" does not answer for the moment", fix)
            }
        };
        return Some(Finding::warning(format!("shard {id}: its worker {worker}{what}"), fix));
    }
    if let Some(replica) = loading {
        let Capabilities { loaded_percent, fetching, .. } = &replica.capabilities;
        let fetching = fetching.map(|fetching| format!(" · {fetching}")).unwrap_or_default();
        let what = format!("shard {id} is loading on {}: {loaded_percent} %{fetching}", replica.worker);
        return Some(Finding::warning(what, "wait; if it does not move, see that worker's log"));
    }
    let offline = shard.replicas.iter().find(|replica| replica.state == ReplicaState::Offline);
    match offline {
        _ if shard.online() => None,
        Some(replica) => {
            let what = format!("shard {id} is offline: its worker {} is not connected", replica.worker);
            Some(Finding::bad(what, format!("start it again on its machine, or another: {command}")))
        }
        None => Some(Finding::bad(format!("shard {id} was not found"), command)),
    }
}

fn misfit(shard: ShardId, replica: &Replica, model: Option<&ModelId>) -> Finding {
    let theirs = model.map_or_else(|| "another".into(), describe);
    Finding::bad(
        format!(
            "shard {shard}: worker {} serves {}, but the swarm serves {theirs}",
            replica.worker,
            describe(&replica.model)
        ),
        match model {
            Some(model) if model.digest == replica.model.digest => {
                format!("restart it with --precision {}", model.precision)
            }
            _ => "restart it with the --model that the others have".into(),
        },
    )
}

fn describe(model: &ModelId) -> String {
    format!("{} ({}, digest {:.8}…)", model.name, model.precision, model.digest.to_string())
}

#[cfg(test)]
mod tests {
    use swarm_types::{
        Precision,
        fixture::{capabilities, model, replica, status},
    };

    use super::{super::finding::Verdict, *};

    fn findings(shards: Vec<Vec<Replica>>) -> Vec<Finding> {
        let command = WorkerCommand {
            entry: "/ip4/10.0.0.1/udp/4001/quic-v1".into(),
            admission: Admission::Secret,
            model: "tiny.gguf".into(),
            total_shards: shards.len() as u32,
            shard_weights: None,
        };
        examine(&status(shards), &command)
    }

    #[test]
    fn each_missing_shard_comes_with_the_command_that_starts_it() {
        use ReplicaState::{Loaded, Loading, Offline};
        let capabilities = Capabilities { loaded_percent: 30, ..capabilities() };
        let loading = Replica { capabilities, ..replica("bb", Loading) };
        let found =
            findings(vec![vec![replica("aa", Loaded)], vec![loading], vec![replica("cc", Offline)], vec![]]);
        let verdicts: Vec<_> = found.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Good, Verdict::Warning, Verdict::Bad, Verdict::Bad]);
        assert!(found[1].what.contains("loading on bb: 30 %"));
        assert!(found[2].what.contains("offline"));
        assert_eq!(
            found[3].fix.as_deref(),
            Some(
                "llama-swarm worker --shard-id 3 --total-shards 4 --rendezvous /ip4/10.0.0.1/udp/4001/quic-v1 \
                 --secret-file FILE --model tiny.gguf --precision exact"
            )
        );
    }

    #[test]
    fn a_lost_spare_is_named_once_with_what_to_do_about_it() {
        let lost = Replica { lost: true, ..replica("bb", ReplicaState::Offline) };
        let found = findings(vec![vec![replica("aa", ReplicaState::Loaded), lost]; 2]);
        let verdicts: Vec<_> = found.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Good, Verdict::Good, Verdict::Warning]);
        let fix = found[2].fix.as_deref().unwrap_or_default();
        assert!(fix.ends_with("llama-swarm forget bb"), "{fix}");
    }

    #[test]
    fn a_replica_with_other_layers_than_the_cut_here_is_named() {
        let swarm = status(vec![
            vec![replica("aa", ReplicaState::Loaded)],
            vec![replica("bb", ReplicaState::Loaded)],
        ]);
        let own = |ends| OwnCut { digest: model().digest, cut: Cut::from_ends(ends).expect("a cut") };
        assert_eq!(misfits(&swarm, &own(vec![4, 8])), []);
        let found = misfits(&swarm, &own(vec![4, 9]));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].what.contains("bb has layers 4..8, by the flags here it has 4..9"),
            "{}",
            found[0].what
        );
        assert_eq!(misfits(&swarm, &own(vec![4, 8, 9]))[0].verdict, Verdict::Warning);
        let other = OwnCut { digest: ModelDigest([9; 32]), ..own(vec![1, 2]) };
        assert_eq!(misfits(&swarm, &other), [], "another model is cut in its own way");
    }

    #[test]
    fn replicas_that_do_not_fit_the_others_are_named_with_the_difference() {
        use ReplicaState::Loaded;
        let fits = || vec![replica("aa", Loaded)];
        let with = |model: fn(&mut ModelId)| {
            let mut replica = replica("bb", Loaded);
            model(&mut replica.model);
            vec![replica]
        };
        let fast = findings(vec![fits(), fits(), with(|model| model.precision = Precision::Standard)]);
        assert_eq!(fast.len(), 3);
        assert_eq!(fast[2].fix.as_deref(), Some("restart it with --precision exact"));
        let other = findings(vec![fits(), fits(), with(|model| model.digest = ModelDigest([9; 32]))]);
        assert_eq!(other[2].verdict, Verdict::Bad);
        assert!(other[2].what.contains("digest 09090909…"), "{}", other[2].what);
    }
}
