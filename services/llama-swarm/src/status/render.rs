//! A swarm's status in the words of the log. Nothing in it that others wrote is obeyed by a terminal.

use swarm_types::{
    Admission, Replica, ReplicaState, ShardStatus, SwarmStatus, status_words as words, visible,
};

/// The whole status, one line a shard.
pub(crate) fn whole(status: &SwarmStatus) -> Vec<String> {
    let mut lines = vec![words::discovered(status), words::SHARDS.into()];
    lines.extend(status.shards.iter().flat_map(shard));
    lines.extend(words::answers(status));
    lines.extend(missing(status));
    lines.extend(lost(status));
    if status.admission == Admission::Open {
        lines
            .push("[STATUS] Admission: OPEN, everybody who reaches a node is a member (--open-swarm)".into());
    }
    if let Some(model) = &status.model {
        lines.push(format!("[STATUS] Model: {} ({})", visible::one_line(&model.name), model.precision));
    }
    lines
}

/// What is different in `new`; no line when nothing that is shown is.
pub(crate) fn changes(old: &SwarmStatus, new: &SwarmStatus) -> Vec<String> {
    if old.total_shards != new.total_shards {
        return whole(new);
    }
    let mut lines: Vec<String> = words::discovered_now(old, new).into_iter().collect();
    let shards = old.shards.iter().zip(&new.shards);
    let changed: Vec<_> = shards.filter(|(old, new)| shard(&idle(old)) != shard(&idle(new))).collect();
    if !changed.is_empty() {
        lines.push(words::SHARDS.into());
        lines.extend(changed.into_iter().flat_map(|(_, new)| shard(new)));
    }
    lines.extend(words::answers_now(old, new));
    if old.swarm_ready && !new.swarm_ready {
        lines.extend(missing(new));
    }
    lines
}

/// What to do about each worker that is lost.
fn lost(status: &SwarmStatus) -> impl Iterator<Item = String> {
    status.lost().into_iter().map(|worker| {
        format!(
            "[STATUS]   → {worker} is lost: start it again, or end its service: llama-swarm forget {worker}"
        )
    })
}

/// Why the swarm is not ready, a line for each reason.
fn missing(status: &SwarmStatus) -> impl Iterator<Item = String> {
    status.missing.iter().map(|missing| format!("[STATUS]   → {}", visible::one_line(missing)))
}

/// A shard without its sessions, which come and go with every request, and without how fast it is fetched, which is
/// another each second: neither is news.
fn idle(shard: &ShardStatus) -> ShardStatus {
    let mut shard = shard.clone();
    for replica in &mut shard.replicas {
        replica.capabilities.active_sessions = 0;
        replica.capabilities.fetching.iter_mut().for_each(|fetching| fetching.bytes_per_second = 0);
    }
    shard
}

/// One line, and one more for every further replica.
fn shard(shard: &ShardStatus) -> Vec<String> {
    let head = words::shard(shard);
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
        ReplicaState::Loading => words::loading(can.loaded_percent, can.fetching),
        ReplicaState::Loaded => "LOADED".into(),
        ReplicaState::Suspect if can.stalled => "SUSPECT (its engine does not come back)".into(),
        ReplicaState::Suspect => "SUSPECT".into(),
        ReplicaState::Offline if replica.lost => "OFFLINE (lost)".into(),
        ReplicaState::Offline => "OFFLINE".into(),
    };
    let mut facts = vec![state, replica.worker.to_string(), format!("layers {}", can.layers)];
    facts.push(format!("{} ({})", visible::one_line(&replica.model.name), replica.model.precision));
    facts.push(visible::one_line(&can.device).into_owned());
    facts.extend(replica.transport.map(|transport| transport.to_string()));
    let here = replica.state != ReplicaState::Offline;
    if here && can.memory_bytes > 0 {
        facts.push(format!("{} MiB", can.memory_bytes >> 20));
    }
    if here && can.tokens_per_second > 0.0 {
        facts.push(format!("{:.1} tokens/s", can.tokens_per_second));
    }
    if can.active_sessions > 0 {
        facts.push(format!("{} sessions", can.active_sessions));
    }
    facts.join("  ")
}

#[cfg(test)]
mod tests {
    use swarm_types::{
        Capabilities, Fetching, ModelId,
        fixture::{capabilities, model, replica, status},
    };

    use super::*;

    #[test]
    fn the_whole_status_has_a_line_a_shard_and_one_more_for_each_of_several_replicas() {
        use ReplicaState::{Loaded, Loading, Offline};
        let local = Replica { local: true, transport: None, ..replica("aa", Loaded) };
        let fetching = Some(Fetching { peers: 3, bytes_per_second: 41_000_000 });
        let still = Capabilities { loaded_percent: 40, tokens_per_second: 0.0, fetching, ..capabilities() };
        let loading = Replica { capabilities: still, ..replica("bb", Loading) };
        let status = status(vec![vec![local], vec![loading, replica("cc", Offline)], vec![]]);
        let expected = "\
[STATUS] Discovered Shards: 2 of 3
[STATUS] Shard Online Status:
[STATUS]   Shard 0: ★ LOCAL  LOADED  aa  layers 0..4  tiny (exact)  cpu  1024 MiB  12.5 tokens/s
[STATUS]   Shard 1: ✓ ONLINE  2 replicas
[STATUS]     LOADING 40 % · 3 peers · 41 MB/s  bb  layers 4..8  tiny (exact)  cpu  QUIC  1024 MiB
[STATUS]     OFFLINE  cc  layers 4..8  tiny (exact)  cpu  QUIC
[STATUS]   Shard 2: ✗ OFFLINE  no worker found yet
[STATUS] Pipeline Complete: ✗ NO
[STATUS] Swarm Ready: ✗ NO
[STATUS]   → shard 1 is loading, 40 %
[STATUS]   → shard 2 has no worker yet";
        assert_eq!(whole(&status).join("\n"), expected);
    }

    #[test]
    fn a_lost_worker_is_shown_as_such_and_what_to_do_about_it_once() {
        let lost = Replica { lost: true, transport: None, ..replica("bb", ReplicaState::Offline) };
        let left = Replica { lost: false, ..lost.clone() };
        let (left, lost) = (status(vec![vec![left]; 2]), status(vec![vec![lost]; 2]));
        let cure = "[STATUS]   → bb is lost: start it again, or end its service: llama-swarm forget bb";
        let lines = whole(&lost);
        assert_eq!(lines.iter().filter(|line| *line == cure).count(), 1, "{lines:#?}");
        let shard = "[STATUS]   Shard 1: ✗ OFFLINE  OFFLINE (lost)  bb  layers 4..8  tiny (exact)  cpu";
        assert!(lines.iter().any(|line| line == shard), "{lines:#?}");
        assert!(changes(&left, &lost).iter().any(|line| line == shard), "a change is shown");
        assert!(!whole(&left).iter().any(|line| line.contains("lost")));
    }

    #[test]
    fn what_a_worker_says_of_itself_forges_no_line() {
        let device = "\u{1b}]0;OWNED\u{7}\r\n[STATUS] Swarm Ready: FORGED".into();
        let hostile = Capabilities { device, ..capabilities() };
        let mut status =
            status(vec![vec![Replica { capabilities: hostile, ..replica("aa", ReplicaState::Loaded) }]]);
        status.model = Some(ModelId { name: "\u{202e}evil\n".into(), ..model() });
        let shown = whole(&status).join("\n");
        assert!(shown.lines().all(visible::is_visible), "{shown:?}");
        assert!(!shown.lines().any(|line| line == "[STATUS] Swarm Ready: FORGED"), "{shown}");
    }

    #[test]
    fn a_change_shows_only_what_is_different_from_old_to_new() {
        use ReplicaState::Loaded;
        let old = status(vec![vec![replica("aa", Loaded)], vec![]]);
        let new = status(vec![vec![replica("aa", Loaded)], vec![replica("bb", Loaded)]]);
        let expected = "\
[STATUS] Discovered Shards: 1 → 2
[STATUS] Shard Online Status:
[STATUS]   Shard 1: ✓ ONLINE  LOADED  bb  layers 4..8  tiny (exact)  cpu  QUIC  1024 MiB  12.5 tokens/s
[STATUS] Pipeline Complete: ✗ NO → ✓ YES
[STATUS] Swarm Ready: ✗ NO → ✓ YES";
        assert_eq!(changes(&old, &new).join("\n"), expected);
        assert_eq!(changes(&new, &new), Vec::<String>::new());
    }
}
