//! The rendezvous process.

use std::process::ExitCode;

use clap::Parser;
use rendezvous::{Config, Rendezvous};
use swarm_process::{exit, shutdown, telemetry};

/// The node by which others enter the swarm.
#[derive(Parser, Debug)]
#[command(name = "rendezvous", version)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit::code(run(Cli::parse().config).await)
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let telemetry = telemetry::init("rendezvous", &config.telemetry)?;
    let rendezvous = Rendezvous::bind(config).await?;
    telemetry.identify(rendezvous.id());
    rendezvous.run(shutdown::signal()).await?;
    Ok(ExitCode::SUCCESS)
}
