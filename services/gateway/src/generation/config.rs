//! How much a gateway takes on and how long it is patient.

use std::{env, sync::LazyLock, time::Duration};

use clap::{Args, value_parser};
use swarm_process::flags::seconds;

/// Rows that a worker takes in one step.
const MAX_CHUNK: i64 = 4096;
/// The default; also what the variable says by which a gateway heard of this bound when it had the name of the
/// workers' own bound.
static MAX_GENERATIONS: LazyLock<String> =
    LazyLock::new(|| env::var("LLAMA_SWARM_MAX_SESSIONS").unwrap_or_else(|_| "64".into()));

/// Bounds of the generations of one gateway.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Generations")]
pub struct GenerationConfig {
    /// Prompt tokens per step. Smaller chunks keep more workers busy at once and let running answers go on in
    /// between; larger ones use each worker better.
    #[arg(long, env = "LLAMA_SWARM_PREFILL_CHUNK", default_value_t = 128, value_name = "TOKENS",
          value_parser = value_parser!(u32).range(1..=MAX_CHUNK))]
    pub prefill_chunk: u32,

    /// Generations at once.
    #[arg(long, alias = "max-sessions", env = "LLAMA_SWARM_MAX_GENERATIONS", value_name = "N",
          default_value = MAX_GENERATIONS.as_str(), value_parser = value_parser!(u32).range(1..=65_536))]
    pub max_generations: u32,

    /// Generations that wait for their turn; more are refused with 429 at once.
    #[arg(long, env = "LLAMA_SWARM_MAX_QUEUED", default_value_t = 64, value_name = "N",
          value_parser = value_parser!(u32).range(0..=65_536))]
    pub max_queued: u32,

    /// Seconds that a generation waits for its turn before it is refused with 429.
    #[arg(long, env = "LLAMA_SWARM_QUEUE_TIMEOUT", default_value = "30", value_name = "SECONDS",
          value_parser = seconds)]
    pub queue_timeout: Duration,

    /// Seconds without an answer to a step after which its route counts as failed.
    #[arg(long, env = "LLAMA_SWARM_STEP_TIMEOUT", default_value = "60", value_name = "SECONDS",
          value_parser = seconds)]
    pub step_timeout: Duration,

    /// Seconds that a generation waits for the swarm to be whole again after a worker was lost: one that runs, and one
    /// that comes in that time.
    #[arg(long, env = "LLAMA_SWARM_RECOVERY_TIMEOUT", default_value = "30", value_name = "SECONDS",
          value_parser = seconds)]
    pub recovery_timeout: Duration,
}

impl GenerationConfig {
    /// Generations that run or wait at once.
    pub(crate) fn at_once(&self) -> u32 {
        self.max_generations + self.max_queued
    }
}
