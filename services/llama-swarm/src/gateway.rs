//! `llama-swarm gateway`: the node that clients ask, the same as the `gateway` binary.

use std::process::ExitCode;

use ::gateway::Gateway;
use anyhow::Result;
use clap::Args;
use swarm_process::telemetry;

use crate::serve::Lifetime;

/// The service's own flags.
#[derive(Args, Debug)]
pub(crate) struct Config {
    #[command(flatten)]
    service: ::gateway::Config,

    #[command(flatten)]
    lifetime: Lifetime,
}

/// Runs the service until it is told to end.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let telemetry = telemetry::init("gateway", &config.service.telemetry)?;
    let service = Gateway::bind(config.service).await?;
    telemetry.identify(service.id());
    service.run(config.lifetime.over()).await?;
    Ok(ExitCode::SUCCESS)
}
