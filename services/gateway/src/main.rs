//! The gateway process.

use std::process::ExitCode;

use clap::Parser;
use gateway::{Config, Gateway};
use swarm_process::{exit, shutdown, telemetry};

/// Answers OpenAI's HTTP API and gRPC from the swarm.
#[derive(Parser, Debug)]
#[command(name = "gateway", version)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit::code(run(Cli::parse().config).await)
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let telemetry = telemetry::init("gateway", &config.telemetry)?;
    let gateway = Gateway::bind(config).await?;
    telemetry.identify(gateway.id());
    gateway.run(shutdown::signal()).await?;
    Ok(ExitCode::SUCCESS)
}
