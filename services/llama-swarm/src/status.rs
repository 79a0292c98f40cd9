//! `llama-swarm status`: the swarm as one of its nodes sees it, shown as the log does.

mod render;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::Args;
use futures::StreamExt;
use swarm_process::terminal::shown;
use swarm_types::{SwarmStatus, visible};

use crate::{
    credentials::Credentials,
    node::{self, Channel},
};

pub(crate) use render::changes;

/// Exit code of `status` when the swarm is not ready.
const NOT_READY: u8 = 3;

/// Which node to ask and how to show its answer.
#[derive(Args, Debug)]
pub(crate) struct Config {
    /// gRPC port of any node of the swarm: gateway, worker or rendezvous.
    #[arg(long, env = "LLAMA_SWARM_ADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:50050")]
    addr: String,

    /// Stay and show every change.
    #[arg(long, short)]
    watch: bool,

    /// One JSON object a status, as the gateway's `/v1/swarm` gives it.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    credentials: Credentials,
}

/// Shows the status once, or until the node ends.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let channel = node::connect_with(&config.addr, &config.credentials).await?;
    if config.watch {
        return watch(&config, channel).await;
    }
    let status = node::status(channel).await?;
    show(&config, None, &status)?;
    Ok(if status.swarm_ready { ExitCode::SUCCESS } else { ExitCode::from(NOT_READY) })
}

async fn watch(config: &Config, channel: Channel) -> Result<ExitCode> {
    let mut statuses = node::watch(channel).await?;
    let mut last = None;
    while let Some(status) = statuses.next().await {
        let status = status?;
        show(config, last.as_ref(), &status)?;
        last = Some(status);
    }
    bail!("the node at {} has ended", config.addr)
}

fn show(config: &Config, last: Option<&SwarmStatus>, status: &SwarmStatus) -> Result<()> {
    let mut out = io::stdout().lock();
    if config.json {
        writeln!(out, "{}", visible::json(&serde_json::to_string(status)?))?;
        return Ok(());
    }
    let lines = match last {
        Some(last) => render::changes(last, status),
        None => render::whole(status),
    };
    for line in lines {
        let line = shown(&line, &out);
        writeln!(out, "{line}")?;
    }
    Ok(())
}
