//! `llama-swarm rendezvous`: the node by which others enter the swarm, the same as the `rendezvous` binary.

use std::process::ExitCode;

use ::rendezvous::Rendezvous;
use anyhow::Result;
use clap::Args;
use swarm_process::telemetry;

use crate::serve::Lifetime;

/// The service's own flags.
#[derive(Args, Debug)]
pub(crate) struct Config {
    #[command(flatten)]
    service: ::rendezvous::Config,

    #[command(flatten)]
    lifetime: Lifetime,
}

/// Runs the service until it is told to end.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let telemetry = telemetry::init("rendezvous", &config.service.telemetry)?;
    let service = Rendezvous::bind(config.service).await?;
    telemetry.identify(service.id());
    service.run(config.lifetime.over()).await?;
    Ok(ExitCode::SUCCESS)
}
