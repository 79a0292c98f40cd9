//! The shard-worker process.

use std::process::ExitCode;

use clap::Parser;
use shard_worker::{Config, serve};
use swarm_process::{exit, shutdown};

/// Serves shards of a model in a swarm.
#[derive(Parser, Debug)]
#[command(name = "shard-worker", version)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit::code(serve(Cli::parse().config, shutdown::signal()).await)
}
