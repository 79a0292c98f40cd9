//! `llama-swarm identity`: a node's key, made before the node runs, and whose a key is.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Subcommand;
use swarm_net::Identity;

/// What to do with a key file.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a new key, for a node's --identity, and print the node's peer id. Only the file's owner can read it.
    New {
        /// Where; a file that is there already is not replaced.
        file: PathBuf,
    },
    /// Print the peer id of a node by its key, also while the node runs.
    Show {
        /// The node's --identity.
        file: PathBuf,
    },
}

/// Prints the peer id.
pub(crate) fn run(command: Command) -> Result<ExitCode> {
    let id = match command {
        Command::New { file } => Identity::create(&file)?,
        Command::Show { file } => Identity::id_in(&file)?,
    };
    println!("{id}");
    Ok(ExitCode::SUCCESS)
}
