//! `llama-swarm invite`: one line with all that a new node needs to enter a swarm.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use swarm_net::{Identity, Invitation, Secret, create_private, first_secret};
use swarm_types::NodeId;

use crate::node;

/// Where newcomers enter, and what they prove themselves by.
#[derive(Args, Debug)]
pub(crate) struct Config {
    /// Where newcomers reach the node to enter by, as `host:port` or as a multiaddress.
    #[arg(long, value_name = "ADDRESS")]
    address: String,

    /// File with the swarm's secret, the first one of it. Of a swarm that is not there yet, made together with
    /// --identity.
    #[arg(long, env = "LLAMA_SWARM_SECRET_FILE", value_name = "FILE")]
    secret_file: PathBuf,

    /// File with the key of the node to enter by, its own --identity; made when it does not exist.
    #[arg(long, env = "LLAMA_SWARM_IDENTITY", value_name = "FILE", conflicts_with = "peer_id")]
    identity: Option<PathBuf>,

    /// Peer id of the node to enter by, where its key is elsewhere.
    #[arg(long, value_name = "ID")]
    peer_id: Option<NodeId>,

    /// gRPC port of the node to enter by, which tells its peer id where neither of the two is given.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50052")]
    addr: String,

    /// Write the line to a new file that only its owner can read, instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Prints the line or writes it. Whoever reads it is a member.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let (node, secret) = match (&config.identity, config.peer_id) {
        (Some(identity), _) => files(identity, &config.secret_file)?,
        (None, Some(node)) => (node, first_secret(&config.secret_file)?),
        (None, None) => {
            let secret = first_secret(&config.secret_file)?;
            (running(&config.addr).await?, secret)
        }
    };
    let invitation =
        Invitation::new(&config.address, &node, secret).map_err(|error| anyhow!("--address: {error}"))?;
    let line = invitation.reveal();
    match &config.out {
        Some(file) => create_private(file, format!("{line}\n").as_bytes())
            .with_context(|| format!("{} (--out)", file.display()))?,
        None => println!("{line}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The node's id and the secret. A key that is missing is made. A secret that is missing is made only with it: where
/// there is a node already, its secret is another one.
fn files(identity: &Path, secret_file: &Path) -> Result<(NodeId, Secret)> {
    if identity.try_exists()? {
        return Ok((Identity::id_in(identity)?, first_secret(secret_file)?));
    }
    if !secret_file.try_exists()? {
        Secret::generate().create(secret_file)?;
        eprintln!("made the swarm's secret: {}", secret_file.display());
    }
    let secret = first_secret(secret_file)?;
    let node = Identity::create(identity)?;
    eprintln!("made the key of the node to enter by: {}", identity.display());
    Ok((node, secret))
}

async fn running(addr: &str) -> Result<NodeId> {
    let status = async { node::status(node::connect(addr).await?).await };
    let status = status.await.with_context(|| {
        format!("who is the node at {addr}? Start it, or name its key by --identity, or its id by --peer-id")
    })?;
    Ok(status.node)
}
