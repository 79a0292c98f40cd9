//! What the operator sees of a swarm that comes up: bars on a terminal, lines elsewhere. All on standard error, so
//! that standard output holds nothing but answers.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use swarm_process::terminal::{shown, takes_utf8};
use swarm_types::{Replica, ReplicaState, ShardStatus, SwarmStatus};

/// How far a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Missing,
    Loading(u8),
    Loaded,
}

impl Stage {
    /// That of the replica that is furthest.
    fn of(shard: &ShardStatus) -> Self {
        let replicas = shard.replicas.iter().filter(|replica| replica.state != ReplicaState::Offline);
        let percent = |replica: &Replica| replica.capabilities.loaded_percent;
        let stages = replicas.map(|replica| match replica.state {
            ReplicaState::Loaded | ReplicaState::Suspect => (100, Self::Loaded),
            _ => (percent(replica).min(99), Self::Loading(percent(replica))),
        });
        stages.max_by_key(|(percent, _)| *percent).map_or(Self::Missing, |(_, stage)| stage)
    }

    fn percent(self) -> u64 {
        match self {
            Self::Missing => 0,
            Self::Loading(percent) => percent.into(),
            Self::Loaded => 100,
        }
    }

    fn text(self, since: Duration) -> String {
        match self {
            Self::Missing => "waiting for its worker".into(),
            Self::Loading(percent) => format!("loading {percent} %"),
            Self::Loaded => format!("loaded after {:.1} s", since.as_secs_f64()),
        }
    }
}

/// The operator's screen.
pub(crate) struct Screen {
    bars: MultiProgress,
    terminal: bool,
    started: Instant,
    shards: Vec<(Stage, ProgressBar)>,
}

impl Screen {
    /// Counts seconds from now.
    pub(crate) fn new() -> Self {
        let terminal = io::stderr().is_terminal();
        Self { bars: MultiProgress::new(), terminal, started: Instant::now(), shards: vec![] }
    }

    /// A line that stays.
    pub(crate) fn line(&self, line: &str) {
        self.bars.suspend(|| eprintln!("{}", shown(line, &io::stderr())));
    }

    /// Since the swarm was started.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Shows how far each shard is.
    pub(crate) fn progress(&mut self, status: &SwarmStatus) {
        if self.shards.len() != status.shards.len() {
            self.shards = status.shards.iter().map(|shard| (Stage::Missing, self.bar(shard))).collect();
        }
        let since = self.started.elapsed();
        for (shard, (last, bar)) in status.shards.iter().zip(&mut self.shards) {
            let stage = Stage::of(shard);
            if stage == *last {
                continue;
            }
            *last = stage;
            bar.set_position(stage.percent());
            bar.set_message(stage.text(since));
            if !self.terminal && stage == Stage::Loaded {
                eprintln!("shard {} {}", shard.shard_id, stage.text(since));
            }
        }
    }

    /// Takes the bars away; their last state stays as lines.
    pub(crate) fn end_progress(&mut self) {
        for (_, bar) in self.shards.drain(..) {
            bar.abandon();
        }
    }

    fn bar(&self, shard: &ShardStatus) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix:>9} {bar:30.green} {msg}")
            .expect("the template is a constant that parses");
        let style = if takes_utf8(&io::stderr()) { style } else { style.progress_chars("=> ") };
        let bar = self.bars.add(ProgressBar::new(100).with_style(style));
        bar.set_prefix(format!("shard {}", shard.shard_id));
        bar.set_message(Stage::Missing.text(Duration::ZERO));
        bar
    }
}

#[cfg(test)]
mod tests {
    use swarm_types::{
        Capabilities,
        fixture::{capabilities, replica, status},
    };

    use super::*;

    #[test]
    fn a_shard_is_as_far_as_its_furthest_replica_that_is_there() {
        use ReplicaState::{Loaded, Loading, Offline};
        let loading = |loaded_percent| {
            let capabilities = Capabilities { loaded_percent, ..capabilities() };
            Replica { capabilities, ..replica("aa", Loading) }
        };
        let stage = |replicas| Stage::of(&status(vec![replicas]).shards[0]);
        assert_eq!(stage(vec![]), Stage::Missing);
        assert_eq!(stage(vec![replica("aa", Offline)]), Stage::Missing);
        assert_eq!(stage(vec![loading(20), loading(70), replica("bb", Offline)]), Stage::Loading(70));
        assert_eq!(stage(vec![loading(100), replica("bb", Loaded)]), Stage::Loaded);
    }
}
