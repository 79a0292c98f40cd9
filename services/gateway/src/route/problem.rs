//! Why there is no route.

use std::{collections::BTreeMap, fmt};

use swarm_types::ShardId;

/// Why there is no route.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct RouteProblem {
    /// The shards without a usable worker, in order. Empty only for a swarm without shards.
    pub missing: Vec<(ShardId, Missing)>,
}

/// Why a shard has no usable worker: the most hopeful of its replicas' reasons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Missing {
    /// Nobody who is online serves it.
    Absent,
    /// Its workers hold another model file or compute in another precision.
    OtherModel,
    /// Its workers cut the model in another way, so they have other layers.
    OtherCut,
    /// Its workers have it, but are excluded.
    Excluded,
    /// Its workers are leaving: they end what runs and take nothing more.
    Draining,
    /// A worker is loading it.
    Loading {
        /// How far, 0 to 100.
        percent: u8,
    },
    /// A worker has it, but does not answer for the moment.
    Suspect,
}

impl fmt::Display for RouteProblem {
    /// For example `shards 0 and 1 have no worker; shard 4 is loading (40 %)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.missing.is_empty() {
            return f.write_str("the swarm has no shards");
        }
        let mut by_cause: BTreeMap<Missing, Vec<String>> = BTreeMap::new();
        for (shard, missing) in &self.missing {
            by_cause.entry(*missing).or_default().push(shard.to_string());
        }
        for (place, (missing, shards)) in by_cause.into_iter().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}{}", sentence(missing, &shards))?;
        }
        Ok(())
    }
}

fn sentence(missing: Missing, shards: &[String]) -> String {
    let one = shards.len() == 1;
    let list = match shards.split_last() {
        Some((last, [])) => format!("shard {last}"),
        Some((last, before)) => format!("shards {} and {last}", before.join(", ")),
        None => String::new(),
    };
    let (is, has) = if one { ("is", "has") } else { ("are", "have") };
    match missing {
        Missing::Absent => format!("{list} {has} no worker"),
        Missing::OtherModel => format!("{list} {has} only workers of another model or precision"),
        Missing::OtherCut => format!(
            "{list} {has} only workers that cut the model differently: give every node the same --total-shards and \
             --shard-weights"
        ),
        Missing::Excluded => format!("{list} {has} only workers that just failed or are full"),
        Missing::Draining => format!("{list} {has} only workers that are leaving"),
        Missing::Loading { percent } => format!("{list} {is} loading ({percent} %)"),
        Missing::Suspect => format!("{list} {has} only workers that do not answer for the moment"),
    }
}
