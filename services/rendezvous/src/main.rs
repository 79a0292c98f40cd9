//! The rendezvous process.

use std::process::ExitCode;

use clap::Parser;
use rendezvous::{Config, serve};
use swarm_process::{exit, shutdown};

/// The node by which others enter the swarm.
#[derive(Parser, Debug)]
#[command(name = "rendezvous", version)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit::code(serve(Cli::parse().config, shutdown::signal()).await)
}
