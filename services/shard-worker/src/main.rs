//! The shard-worker process.

use std::process::ExitCode;

use clap::Parser;
use shard_worker::{Config, Worker};
use swarm_process::{exit, shutdown, telemetry};

/// Serves shards of a model in a swarm.
#[derive(Parser, Debug)]
#[command(name = "shard-worker", version)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit::code(run(Cli::parse().config).await)
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let telemetry = telemetry::init("shard-worker", &config.telemetry)?;
    let worker = Worker::bind(config).await?;
    telemetry.identify(worker.id());
    worker.run(shutdown::signal()).await?;
    Ok(ExitCode::SUCCESS)
}
