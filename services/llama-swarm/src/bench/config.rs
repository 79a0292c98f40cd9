//! The flags of `llama-swarm bench`.

use clap::Args;

use crate::{credentials::Credentials, up::SwarmConfig};

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Config {
    /// gRPC port of the gateway to measure.
    #[arg(long, env = "LLAMA_SWARM_ADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:50050")]
    pub(super) addr: String,

    /// Start a swarm on this machine for the measurement, as `up` does, and end it afterwards.
    #[arg(long, conflicts_with = "engine")]
    pub(super) up: bool,

    /// Measure the engine alone: all layers in this process, no network.
    #[arg(long)]
    pub(super) engine: bool,

    /// Measure what traces cost: two swarms as --up starts them, one of which sends its traces, decode in turns.
    #[arg(long, conflicts_with_all = ["up", "engine"])]
    pub(super) tracing_overhead: bool,

    /// Requests at once, a line of the table each.
    #[arg(long, value_delimiter = ',', default_value = "1,4,8,16")]
    pub(super) concurrency: Vec<usize>,

    /// Length of the prompts whose prefill is measured, in tokens.
    #[arg(long, default_value_t = 128)]
    pub(super) prompt_tokens: u32,

    /// Length of the continuations whose decoding is measured, in tokens; at least 2.
    #[arg(long, default_value_t = 64)]
    pub(super) max_tokens: u32,

    /// Repetitions; rates are their medians.
    #[arg(long, default_value_t = 3)]
    pub(super) rounds: u32,

    /// Longest time for the requests of one step, in seconds.
    #[arg(long, default_value_t = 600)]
    pub(super) timeout: u64,

    /// JSON instead of a table.
    #[arg(long)]
    pub(super) json: bool,

    /// The swarm of --up, and the model, precision and threads of --engine.
    #[command(flatten)]
    pub(super) swarm: SwarmConfig,

    #[command(flatten)]
    pub(super) credentials: Credentials,
}
