//! A swarm's status in the words of the log.

use swarm_types::{Replica, ReplicaState, ShardStatus, SwarmStatus};

/// The whole status, one line a shard.
pub(crate) fn whole(status: &SwarmStatus) -> Vec<String> {
    let (discovered, total) = (status.discovered_shards, status.total_shards);
    let mut lines = vec![
        format!("[STATUS] Discovered Shards: {discovered} of {total}"),
        "[STATUS] Shard Online Status:".into(),
    ];
    lines.extend(status.shards.iter().flat_map(shard));
    lines.push(format!("[STATUS] Pipeline Complete: {}", yes_no(status.pipeline_complete)));
    lines.push(format!("[STATUS] Swarm Ready: {}", yes_no(status.swarm_ready)));
    if let Some(model) = &status.model {
        lines.push(format!("[STATUS] Model: {} ({})", model.name, model.precision));
    }
    lines
}

/// What is different in `new`; no line when nothing that is shown is.
pub(crate) fn changes(old: &SwarmStatus, new: &SwarmStatus) -> Vec<String> {
    if old.total_shards != new.total_shards {
        return whole(new);
    }
    let mut lines = vec![];
    if old.discovered_shards != new.discovered_shards {
        lines.push(format!(
            "[STATUS] Discovered Shards: {} → {}",
            old.discovered_shards, new.discovered_shards
        ));
    }
    let shards = old.shards.iter().zip(&new.shards);
    let changed: Vec<_> = shards.filter(|(old, new)| shard(&idle(old)) != shard(&idle(new))).collect();
    if !changed.is_empty() {
        lines.push("[STATUS] Shard Online Status:".into());
        lines.extend(changed.into_iter().flat_map(|(_, new)| shard(new)));
    }
    let facts = [
        ("Pipeline Complete", old.pipeline_complete, new.pipeline_complete),
        ("Swarm Ready", old.swarm_ready, new.swarm_ready),
    ];
    for (name, old, new) in facts.into_iter().filter(|(_, old, new)| old != new) {
        lines.push(format!("[STATUS] {name}: {} → {}", yes_no(old), yes_no(new)));
    }
    lines
}

/// A shard without its sessions: they come and go with every request, which is no news.
fn idle(shard: &ShardStatus) -> ShardStatus {
    let mut shard = shard.clone();
    shard.replicas.iter_mut().for_each(|replica| replica.capabilities.active_sessions = 0);
    shard
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "✓ YES" } else { "✗ NO" }
}

/// One line, and one more for every further replica.
fn shard(shard: &ShardStatus) -> Vec<String> {
    let local = shard.replicas.iter().any(|replica| replica.local);
    let state = match (local, shard.online()) {
        (true, _) => "★ LOCAL",
        (false, true) => "✓ ONLINE",
        (false, false) => "✗ OFFLINE",
    };
    let head = format!("[STATUS]   Shard {}: {state}", shard.shard_id);
    match shard.replicas.as_slice() {
        [] => vec![format!("{head}  no worker found yet")],
        [only] => vec![format!("{head}  {}", replica(only))],
        several => {
            let lines = several.iter().map(|each| format!("[STATUS]     {}", replica(each)));
            [format!("{head}  {} replicas", several.len())].into_iter().chain(lines).collect()
        }
    }
}

fn replica(replica: &Replica) -> String {
    let can = &replica.capabilities;
    let state = match replica.state {
        ReplicaState::Loading => format!("LOADING {} %", can.loaded_percent),
        ReplicaState::Loaded => "LOADED".into(),
        ReplicaState::Offline => "OFFLINE".into(),
    };
    let mut words = vec![state, replica.worker.to_string(), format!("layers {}", can.layers)];
    words.push(can.device.clone());
    words.extend(replica.transport.map(|transport| transport.to_string()));
    if can.active_sessions > 0 {
        words.push(format!("{} sessions", can.active_sessions));
    }
    words.join("  ")
}

#[cfg(test)]
mod tests {
    use swarm_types::{
        Capabilities,
        fixture::{capabilities, replica, status},
    };

    use super::*;

    #[test]
    fn the_whole_status_has_a_line_a_shard_and_one_more_for_each_of_several_replicas() {
        use ReplicaState::{Loaded, Loading, Offline};
        let local = Replica { local: true, transport: None, ..replica("aa", Loaded) };
        let loading = Replica {
            capabilities: Capabilities { loaded_percent: 40, ..capabilities() },
            ..replica("bb", Loading)
        };
        let status = status(vec![vec![local], vec![loading, replica("cc", Offline)], vec![]]);
        let expected = "\
[STATUS] Discovered Shards: 2 of 3
[STATUS] Shard Online Status:
[STATUS]   Shard 0: ★ LOCAL  LOADED  aa  layers 0..4  cpu
[STATUS]   Shard 1: ✓ ONLINE  2 replicas
[STATUS]     LOADING 40 %  bb  layers 0..4  cpu  QUIC
[STATUS]     OFFLINE  cc  layers 0..4  cpu  QUIC
[STATUS]   Shard 2: ✗ OFFLINE  no worker found yet
[STATUS] Pipeline Complete: ✗ NO
[STATUS] Swarm Ready: ✗ NO";
        assert_eq!(whole(&status).join("\n"), expected);
    }

    #[test]
    fn a_change_shows_only_what_is_different_from_old_to_new() {
        use ReplicaState::Loaded;
        let old = status(vec![vec![replica("aa", Loaded)], vec![]]);
        let new = status(vec![vec![replica("aa", Loaded)], vec![replica("bb", Loaded)]]);
        let expected = "\
[STATUS] Discovered Shards: 1 → 2
[STATUS] Shard Online Status:
[STATUS]   Shard 1: ✓ ONLINE  LOADED  bb  layers 0..4  cpu  QUIC
[STATUS] Pipeline Complete: ✗ NO → ✓ YES
[STATUS] Swarm Ready: ✗ NO → ✓ YES";
        assert_eq!(changes(&old, &new).join("\n"), expected);
        assert_eq!(changes(&new, &new), Vec::<String>::new());
    }
}
