//! A rendezvous node's flags and environment variables.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use swarm_net::NetConfig;
use swarm_process::telemetry::TelemetryConfig;

/// How a rendezvous node runs.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// TCP port of health, reflection and SwarmService; `GET /metrics` as well.
    #[arg(long, env = "LLAMA_SWARM_GRPC_LISTEN", default_value = "0.0.0.0:50052", value_name = "ADDRESS")]
    pub grpc_listen: SocketAddr,

    /// Write where this process can be reached to this file, as JSON, once its ports are open.
    #[arg(long, env = "LLAMA_SWARM_ADDRESS_FILE", value_name = "FILE")]
    pub address_file: Option<PathBuf>,

    /// How it takes part in the swarm.
    #[command(flatten)]
    pub net: NetConfig,

    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: TelemetryConfig,
}
