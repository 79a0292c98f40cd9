//! A rendezvous node's flags and environment variables.

use std::net::SocketAddr;

use clap::Args;
use swarm_net::NetConfig;
use swarm_process::{address_file::AddressFile, listener::TlsConfig, telemetry::TelemetryConfig};

/// How a rendezvous node runs.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// TCP port of health, reflection and SwarmService; `GET /metrics` as well.
    #[arg(long, env = "LLAMA_SWARM_GRPC_LISTEN", default_value = "127.0.0.1:50052", value_name = "ADDRESS")]
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
