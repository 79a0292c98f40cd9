//! `llama-swarm forget`: takes a lost worker out of service.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::{credentials::Credentials, node};

/// Which worker, and which node to tell.
#[derive(Args, Debug)]
pub(crate) struct Config {
    /// The lost worker: its peer id as `status` shows it, or as much of the beginning as no other lost one has.
    node: String,

    /// gRPC port of any node of the swarm, which tells the others: gateway, worker or rendezvous.
    #[arg(long, env = "LLAMA_SWARM_ADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:50050")]
    addr: String,

    #[command(flatten)]
    credentials: Credentials,
}

/// Says who is forgotten, and which nodes have not answered. Those are a failure: they may miss it still.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let channel = node::connect_with(&config.addr, &config.credentials).await?;
    let forgotten = node::forget(channel, config.node).await?;
    let nodes =
        if forgotten.nodes == 1 { "one node has" } else { &format!("{} nodes have", forgotten.nodes) };
    println!("{nodes} forgotten {}", forgotten.worker);
    for silent in &forgotten.silent {
        eprintln!("no answer from {silent}: repeat this when it answers, or it may miss the worker still");
    }
    Ok(if forgotten.silent.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
