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

    /// Measure the engine alone: all layers in this process, no network; and how fast this machine reads its memory,
    /// beside it.
    #[arg(long)]
    pub(super) engine: bool,

    /// Measure what traces cost: two swarms as --up starts them, one of which sends its traces, decode in turns.
    #[arg(long, conflicts_with_all = ["up", "engine"])]
    pub(super) tracing_overhead: bool,

    /// Measure what it costs to hold answers to a JSON Schema, decode with and without it in turns.
    #[arg(long, conflicts_with_all = ["engine", "tracing_overhead", "against"])]
    pub(super) structured: bool,

    /// Requests at once, a line of the table each.
    #[arg(long, value_delimiter = ',', default_value = "1,4,8,16")]
    pub(super) concurrency: Vec<usize>,

    /// Length of the prompts whose prefill is measured, in tokens.
    #[arg(long, default_value_t = 128)]
    pub(super) prompt_tokens: u32,

    /// Positions before the continuations whose decoding is measured, in tokens: so few that they do not count, unless
    /// given.
    #[arg(long, default_value_t = 16)]
    pub(super) context: u32,

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

    #[command(flatten)]
    pub(super) other: Other,

    /// The swarm of --up, and the model, precision and threads of --engine.
    #[command(flatten)]
    pub(super) swarm: SwarmConfig,

    #[command(flatten)]
    pub(super) credentials: Credentials,
}

/// Whom to measure beside us.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Beside another server")]
pub(crate) struct Other {
    /// Measure the server of OpenAI's API at this address beside our gateway: both get the same prompts in turns, over
    /// HTTP.
    #[arg(long, value_name = "URL", conflicts_with_all = ["engine", "tracing_overhead"])]
    pub(super) against: Option<String>,

    /// The key to show to it.
    #[arg(long, env = "LLAMA_SWARM_AGAINST_KEY", value_name = "KEY", hide_env_values = true)]
    pub(super) against_key: Option<String>,

    /// The model to ask it for. Without it: the first of those that it lists.
    #[arg(long, value_name = "NAME", requires = "against")]
    pub(super) against_model: Option<String>,

    /// Where our gateway answers HTTP; not with --up.
    #[arg(long, env = "LLAMA_SWARM_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(super) url: String,
}
