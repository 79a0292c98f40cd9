//! `llama-swarm health`: asks `grpc.health.v1` of one service, for health checks in images without a shell.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{credentials::Credentials, node};

/// A service answers from memory.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Whom to ask for what.
#[derive(Args, Debug)]
pub(crate) struct Config {
    /// gRPC port of the process.
    #[arg(long, env = "LLAMA_SWARM_ADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:50050")]
    addr: String,

    /// The name in the process's certificate, where it is asked by another, as in https://127.0.0.1:50050.
    #[arg(long, env = "LLAMA_SWARM_TLS_NAME", value_name = "NAME")]
    tls_name: Option<String>,

    /// Which of its services: `swarm.v1.ShardService` (a worker that can take sessions), `swarm.v1.InferenceService`
    /// (a gateway that can answer). Without it: the process itself.
    #[arg(long, default_value = "", hide_default_value = true)]
    service: String,

    #[command(flatten)]
    credentials: Credentials,
}

/// Prints the answer.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let channel = node::connect_as(&config.addr, &config.credentials, config.tls_name.as_deref()).await?;
    let mut client = HealthClient::new(channel);
    let answer = client.check(HealthCheckRequest { service: config.service });
    let answer = tokio::time::timeout(CALL_TIMEOUT, answer).await;
    let answer = answer.context("no answer within 5 s")??.into_inner();
    println!("{}", answer.status().as_str_name());
    Ok(match answer.status() {
        ServingStatus::Serving => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
