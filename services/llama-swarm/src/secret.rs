//! `llama-swarm secret`: what all nodes of a swarm hold and nobody else.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Args, Subcommand};
use swarm_net::Secret;

/// Stands for standard output in place of a file.
const OUTPUT: &str = "-";

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a new secret, for the --secret-file of all nodes. Whoever has it is a member of the swarm.
    New(New),
}

#[derive(Args, Debug)]
pub(crate) struct New {
    /// Where; only its owner can read the file, and one that is there already is not replaced. `-` prints the secret.
    file: PathBuf,

    /// Leave a file that is there already as it is, without an error.
    #[arg(long)]
    if_missing: bool,
}

/// Makes it.
pub(crate) fn run(command: Command) -> Result<ExitCode> {
    let Command::New(new) = command;
    if new.file == Path::new(OUTPUT) {
        println!("{}", Secret::generate().reveal());
    } else if !(new.if_missing && new.file.try_exists()?) {
        Secret::generate().create(&new.file)?;
    }
    Ok(ExitCode::SUCCESS)
}
