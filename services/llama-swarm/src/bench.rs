//! `llama-swarm bench`: how fast a swarm is, or the engine alone.

mod engine;
mod figures;
mod gateway;
mod load;
mod table;
mod tracing_cost;

use std::{fmt::Display, process::ExitCode, time::Duration};

use anyhow::{Result, bail, ensure};
use clap::Args;
use indicatif::ProgressStyle;
use serde::Serialize;

use crate::{
    node,
    up::{End, SwarmConfig, with_swarm},
};

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Config {
    /// gRPC port of the gateway to measure.
    #[arg(long, env = "LLAMA_SWARM_ADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:50050")]
    addr: String,

    /// Start a swarm on this machine for the measurement, as `up` does, and end it afterwards.
    #[arg(long, conflicts_with = "engine")]
    up: bool,

    /// Measure the engine alone: all layers in this process, no network.
    #[arg(long)]
    engine: bool,

    /// Measure what traces cost: two swarms as --up starts them, one of which sends its traces, decode in turns.
    #[arg(long, conflicts_with_all = ["up", "engine"])]
    tracing_overhead: bool,

    /// Requests at once, a line of the table each.
    #[arg(long, value_delimiter = ',', default_value = "1,4,8,16")]
    concurrency: Vec<usize>,

    /// Length of the prompts whose prefill is measured, in tokens.
    #[arg(long, default_value_t = 128)]
    prompt_tokens: u32,

    /// Length of the continuations whose decoding is measured, in tokens; at least 2.
    #[arg(long, default_value_t = 64)]
    max_tokens: u32,

    /// Repetitions; rates are their medians.
    #[arg(long, default_value_t = 3)]
    rounds: u32,

    /// Longest time for the requests of one step, in seconds.
    #[arg(long, default_value_t = 600)]
    timeout: u64,

    /// JSON instead of a table.
    #[arg(long)]
    json: bool,

    /// The swarm of --up, and the model, precision and threads of --engine.
    #[command(flatten)]
    swarm: SwarmConfig,
}

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
        let channel = node::connect(&config.addr).await?;
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
        true => println!("{}", serde_json::to_string_pretty(report)?),
        false => println!("{report}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn progress_style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30.green} {pos}/{len} {msg} ({elapsed})")
        .expect("the template is a constant that parses")
}
