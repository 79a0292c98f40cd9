//! The gateway process.

use std::process::ExitCode;

use clap::Parser;
use gateway::{Config, serve};
use swarm_process::{exit, shutdown};

/// Answers OpenAI's HTTP API and gRPC from the swarm.
#[derive(Parser, Debug)]
#[command(name = "gateway", version)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit::code(serve(Cli::parse().config, shutdown::signal()).await)
}
