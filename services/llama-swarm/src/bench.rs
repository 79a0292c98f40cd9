//! `llama-swarm bench`: how fast a swarm is, or the engine alone.

mod config;
mod engine;
mod figures;
mod gateway;
mod load;
mod progress;
pub(crate) mod table;
mod tracing_cost;

use std::{fmt::Display, process::ExitCode, time::Duration};

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use swarm_types::visible;

pub(crate) use config::Config;

use crate::{
    node,
    up::{End, with_swarm},
};

/// Measures and shows the result.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    ensure!(config.max_tokens >= 2, "--max-tokens must be at least 2: one token decodes nothing");
    ensure!(config.prompt_tokens >= 1, "--prompt-tokens must be at least 1");
    ensure!(config.rounds >= 1, "--rounds must be at least 1");
    ensure!(
        config.concurrency.iter().all(|requests| (1..=256).contains(requests)),
        "--concurrency must be numbers from 1 to 256, for example 1,4,8,16"
    );
    let _telemetry = config.swarm.telemetry()?;
    if config.engine {
        let model = config.swarm.resolve().await?;
        let measurement = engine::Measurement::whole(model, &config)?;
        return show(&config, &tokio::task::spawn_blocking(|| measurement.run()).await??);
    }
    if config.tracing_overhead {
        return show(&config, &tracing_cost::measure(&config).await?);
    }
    if !config.up {
        let channel = node::connect_with(&config.addr, &config.credentials).await?;
        return show(&config, &measurement(&config).run(&channel).await?);
    }
    let mut report = None;
    let end = with_swarm(config.swarm.clone(), async |swarm| {
        let channel = node::connect(&swarm.gateway()?.grpc.to_string()).await?;
        report = Some(measurement(&config).run(&channel).await?);
        Ok(())
    });
    match (end.await?, report) {
        (End::Done, Some(report)) => show(&config, &report),
        _ => bail!("interrupted"),
    }
}

fn measurement(config: &Config) -> gateway::Measurement {
    gateway::Measurement {
        concurrency: config.concurrency.clone(),
        prompt_tokens: config.prompt_tokens,
        max_tokens: config.max_tokens,
        rounds: config.rounds,
        timeout: Duration::from_secs(config.timeout),
    }
}

fn show(config: &Config, report: &(impl Display + Serialize)) -> Result<ExitCode> {
    match config.json {
        true => println!("{}", visible::json(&serde_json::to_string_pretty(report)?)),
        false => println!("{report}"),
    }
    Ok(ExitCode::SUCCESS)
}
