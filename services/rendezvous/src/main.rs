//! The rendezvous process.

use clap::Parser;
use rendezvous::{Config, Rendezvous};
use swarm_process::{shutdown, telemetry};

/// The node by which others enter the swarm.
#[derive(Parser, Debug)]
#[command(name = "rendezvous", version)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Cli::parse().config;
    let telemetry = telemetry::init("rendezvous", &config.telemetry)?;
    let rendezvous = Rendezvous::bind(config).await?;
    telemetry.identify(rendezvous.id());
    Ok(rendezvous.run(shutdown::signal()).await?)
}
