//! The gateway process.

use clap::Parser;
use gateway::{Config, Gateway};
use swarm_process::{shutdown, telemetry};

/// Answers OpenAI's HTTP API and gRPC from the swarm.
#[derive(Parser, Debug)]
#[command(name = "gateway", version)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Cli::parse().config;
    let telemetry = telemetry::init("gateway", &config.telemetry)?;
    let gateway = Gateway::bind(config).await?;
    telemetry.identify(gateway.id());
    Ok(gateway.run(shutdown::signal()).await?)
}
