//! The shard-worker process.

use clap::Parser;
use shard_worker::{Config, Worker};
use swarm_process::{shutdown, telemetry};

/// Serves shards of a model in a swarm.
#[derive(Parser, Debug)]
#[command(name = "shard-worker", version)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Cli::parse().config;
    let telemetry = telemetry::init("shard-worker", &config.telemetry)?;
    let worker = Worker::bind(config).await?;
    telemetry.identify(worker.id());
    Ok(worker.run(shutdown::signal()).await?)
}
