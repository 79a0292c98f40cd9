//! The words that a status is told with, in every node's log and by `llama-swarm status`. Operators and their tools
//! know these lines to the letter.

use std::{fmt::Display, iter::repeat};

use crate::{Fetching, ShardStatus, SwarmStatus};

/// Stands above the shards' lines.
pub const SHARDS: &str = "[STATUS] Shard Online Status:";
const DISCOVERED: &str = "[STATUS] Discovered Shards";
/// The shard is the node's own.
const LOCAL: &str = "★ LOCAL";

/// How many shards somebody serves.
#[must_use]
pub fn discovered(now: &SwarmStatus) -> String {
    format!("{DISCOVERED}: {} of {}", now.discovered_shards, now.total_shards)
}

/// How many there were and are; nothing when these are as many.
#[must_use]
pub fn discovered_now(before: &SwarmStatus, now: &SwarmStatus) -> Option<String> {
    let (before, now) = (before.discovered_shards, now.discovered_shards);
    (before != now).then(|| format!("{DISCOVERED}: {before} → {now}"))
}

/// Whether somebody serves the shard.
#[must_use]
pub fn shard(shard: &ShardStatus) -> String {
    format!("[STATUS]   Shard {}: {}", shard.shard_id, mark(shard))
}

/// How far a replica is that is not loaded yet; while its part of the model comes from other nodes, from how many and
/// how fast.
#[must_use]
pub fn loading(percent: u8, fetching: Option<Fetching>) -> String {
    match fetching {
        Some(fetching) => format!("LOADING {percent} % · {fetching}"),
        None => format!("LOADING {percent} %"),
    }
}

/// The same of shards that the node itself serves.
#[must_use]
pub fn loading_here(shards: impl Display, percent: u8, fetching: Option<Fetching>) -> String {
    format!("[STATUS]   Shard {shards}: {LOCAL}  {}", loading(percent, fetching))
}

/// Whether the pipeline is complete and the swarm ready.
#[must_use]
pub fn answers(now: &SwarmStatus) -> Vec<String> {
    facts(now).map(|(name, yes)| format!("[STATUS] {name}: {}", yes_no(yes))).into()
}

/// Those of the answers that are others than before.
#[must_use]
pub fn answers_now(before: &SwarmStatus, now: &SwarmStatus) -> Vec<String> {
    let both = facts(before).into_iter().zip(facts(now));
    let changed = both.filter(|((_, before), (_, now))| before != now);
    let line = |((name, before), (_, now))| format!("[STATUS] {name}: {} → {}", yes_no(before), yes_no(now));
    changed.map(line).collect()
}

/// The shards whose lines are others than before.
pub fn changed_shards<'a>(
    before: &'a SwarmStatus,
    now: &'a SwarmStatus,
) -> impl Iterator<Item = &'a ShardStatus> {
    let before = before.shards.iter().map(|shard| Some(mark(shard))).chain(repeat(None));
    now.shards
        .iter()
        .zip(before)
        .filter(|(shard, before)| Some(mark(shard)) != *before)
        .map(|(shard, _)| shard)
}

/// Whether somebody serves the shard, in a single word.
#[must_use]
pub fn state(shard: &ShardStatus) -> &'static str {
    mark(shard).trim_start_matches(|mark: char| !mark.is_ascii_alphabetic())
}

fn facts(status: &SwarmStatus) -> [(&'static str, bool); 2] {
    [("Pipeline Complete", status.pipeline_complete), ("Swarm Ready", status.swarm_ready)]
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "✓ YES" } else { "✗ NO" }
}

fn mark(shard: &ShardStatus) -> &'static str {
    if shard.replicas.iter().any(|replica| replica.local) {
        LOCAL
    } else if shard.online() {
        "✓ ONLINE"
    } else {
        "✗ OFFLINE"
    }
}
