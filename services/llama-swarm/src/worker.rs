//! `llama-swarm worker`: one node that serves shards of the model, the same as the `shard-worker` binary.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use shard_worker::Worker;
use swarm_process::telemetry;

use crate::serve::Lifetime;

/// The service's own flags.
#[derive(Args, Debug)]
pub(crate) struct Config {
    #[command(flatten)]
    service: shard_worker::Config,

    #[command(flatten)]
    lifetime: Lifetime,
}

/// Runs the service until it is told to end.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let telemetry = telemetry::init("shard-worker", &config.service.telemetry)?;
    let service = Worker::bind(config.service).await?;
    telemetry.identify(service.id());
    service.run(config.lifetime.over()).await?;
    Ok(ExitCode::SUCCESS)
}
