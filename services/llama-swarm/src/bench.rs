//! `llama-swarm bench`: how fast a swarm is, by itself or beside another server, or the engine alone.

mod against;
mod config;
mod engine;
mod figures;
mod floor;
mod gateway;
mod load;
mod processor;
mod progress;
mod structured;
pub(crate) mod table;
mod tracing_cost;

use std::{fmt::Display, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use swarm_process::address_file::Addresses;
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
    ensure!(config.context >= 1, "--context must be at least 1: the first token needs a position before it");
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
    if config.other.against.is_some() {
        return beside_another(&config).await;
    }
    if config.structured {
        return structured(&config).await;
    }
    if !config.up {
        let channel = node::connect_with(&config.addr, &config.credentials).await?;
        return show(&config, &measurement(&config).run(&channel).await?);
    }
    let report = with_own_swarm(&config, async |gateway| {
        let channel = node::connect(&gateway.grpc.to_string()).await?;
        measurement(&config).run(&channel).await
    });
    show(&config, &report.await?)
}

/// Measures what it costs to hold answers to a schema.
async fn structured(config: &Config) -> Result<ExitCode> {
    if !config.up {
        let channel = node::connect_with(&config.addr, &config.credentials).await?;
        return show(config, &structured::measure(&measurement(config), &channel).await?);
    }
    let report = with_own_swarm(config, async |gateway| {
        let channel = node::connect(&gateway.grpc.to_string()).await?;
        structured::measure(&measurement(config), &channel).await
    });
    show(config, &report.await?)
}

/// Measures our gateway beside another server.
async fn beside_another(config: &Config) -> Result<ExitCode> {
    if !config.up {
        let pair = against::Pair::find(config, &config.other.url).await?;
        return show(config, &pair.measure(&measurement(config)).await?);
    }
    let report = with_own_swarm(config, async |gateway| {
        let http = gateway.http.context("the gateway has no HTTP port")?;
        let pair = against::Pair::find(config, &format!("http://{http}")).await?;
        pair.measure(&measurement(config)).await
    });
    show(config, &report.await?)
}

/// Starts a swarm, lets `measure` use its gateway, and ends it.
async fn with_own_swarm<R>(config: &Config, measure: impl AsyncFnOnce(&Addresses) -> Result<R>) -> Result<R> {
    let mut report = None;
    let end = with_swarm(config.swarm.clone(), async |swarm| {
        report = Some(measure(swarm.gateway()?).await?);
        Ok(())
    });
    match (end.await?, report) {
        (End::Done, Some(report)) => Ok(report),
        _ => bail!("interrupted"),
    }
}

fn measurement(config: &Config) -> gateway::Measurement {
    gateway::Measurement {
        concurrency: config.concurrency.clone(),
        prompt_tokens: config.prompt_tokens,
        context: config.context,
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
