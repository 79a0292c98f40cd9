//! The service: joins the swarm, opens its ports, answers, drains.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::FutureExt;
use gguf::Header;
use model_files::{FilesError, LocalModel, Shared, Sharing, SwarmModel, describe_until};
use model_hub::ModelRef;
use swarm_net::{NetError, PeerListener, Role, SwarmNet, peer_server};
use swarm_process::{
    address_file::Addresses,
    descriptors,
    grpc::Health,
    metrics::Registry,
    reread::Reread,
    status_service::{self, SwarmStatusService},
    telemetry::{self, TelemetryError},
};
use swarm_proto::{Refusal, RefusalCause};
use swarm_types::{Cut, CutCosts, LayersError, ModelDigest, NodeId, SwarmStatus};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    Config,
    clients::{ClientMetrics, Entry, Keys},
    completion::Completer,
    generation::{GenerationMetrics, Generator},
    http::Api,
    inference_service::{self, InferenceService},
    ports::Ports,
    route::{Misfit, misfits},
    swarm::{Connect, GatewayModel, Swarm},
    text::{ServedModel, TextError},
};

/// A gateway that cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The model's file cannot be had.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The model's file cannot be used.
    #[error("model {path}: {source}")]
    Model {
        /// Which file.
        path: String,
        /// What is wrong with it.
        source: TextError,
    },
    /// The model cannot be cut into so many shards.
    #[error("--total-shards or --shard-weights: {0}")]
    Cut(#[from] LayersError),
    /// The network does not start.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A port or file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A port is open beyond this machine, and nobody would be asked for a key.
    #[error(
        "{flag} {address}: whoever reaches this port would use the model, for no client needs a key: make keys \
         (llama-swarm key new NAME --file FILE) and give --api-keys-file FILE, or let everybody in by --open-gateway"
    )]
    Open {
        /// Which port.
        flag: &'static str,
        /// Where it would listen.
        address: SocketAddr,
    },
    /// Logs or traces that cannot be had as they were asked for.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The server for peers failed.
    #[error("gRPC server: {0}")]
    Grpc(#[from] tonic::transport::Error),
}

/// Runs a gateway until `shutdown`, with logs and traces: what its process does between flags and exit code.
///
/// # Errors
/// What keeps it from starting or going on.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<(), GatewayError> {
    let telemetry = telemetry::init("gateway", &config.telemetry)?;
    descriptors::raise_limit();
    let gateway = Gateway::bind(config).await?;
    telemetry.identify(gateway.id());
    gateway.run(shutdown).await
}

/// A gateway whose ports are open.
pub struct Gateway {
    config: Config,
    model: Arc<ServedModel>,
    cut: Arc<Cut>,
    net: SwarmNet,
    peers: PeerListener,
    ports: Ports,
    registry: Registry,
    /// The model's file is given to others, whole or what is here of it.
    sharing: (Sharing, Source),
    /// What is to be read again when it changes.
    keys: Option<(Keys, Reread<Vec<Entry>>)>,
}

/// Where the model's bytes are. It is given to others for as long as this lives.
enum Source {
    Local { _shared: Shared },
    Swarm { _model: SwarmModel },
}

impl Gateway {
    /// Finds the model, opens the ports, joins the swarm.
    ///
    /// # Errors
    /// Says what is missing and how to give it.
    pub async fn bind(config: Config) -> Result<Self, GatewayError> {
        check_open(&config)?;
        let registry = Registry::default();
        let metrics = ClientMetrics::new(&registry);
        let keys = match config.clients.keys_file().map(Path::to_owned) {
            Some(file) => Some(Keys::open(file, metrics).await?),
            None => None,
        };
        let local = match LocalModel::find(&config.model, &config.hub).await? {
            Some(local) => Some((load(local.path.clone(), local.digest(), &config).await?, local)),
            None => None,
        };
        let ports = Ports::bind(&config, keys.as_ref().map(|(keys, _)| keys.clone())).await?;
        let identity = config.net.load_identity("gateway")?;
        let (net, mut peers) = SwarmNet::bind(config.net.clone(), Role::Gateway, identity).await?;
        let sharing = Sharing::start(&net, &config.sharing)?;
        let ((model, cut), source) = match local {
            Some((loaded, local)) => {
                let shared = sharing.share(loaded.0.id(), &local)?;
                (loaded, Source::Local { _shared: shared })
            }
            None => fetch_model(&config, &net, &mut peers, &sharing).await?,
        };
        config.address_file.tell(|| Addresses {
            peer_id: net.id().clone(),
            addresses: net.addresses(),
            grpc: ports.grpc_addr(),
            http: Some(ports.http_addr()),
            metrics: ports.metrics_addr(),
        })?;
        tracing::info!(
            peer = %net.id(), http = %ports.http_addr(), grpc = %ports.grpc_addr(), model = model.id(),
            "gateway started"
        );
        let sharing = (sharing, source);
        Ok(Self { config, model, cut, net, peers, ports, registry, sharing, keys })
    }

    /// The node's peer id.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        self.net.id()
    }

    /// Its TCP gRPC port.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.ports.grpc_addr()
    }

    /// Its HTTP port.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.ports.http_addr()
    }

    /// Answers until `shutdown`; then takes nothing more in, lets what runs finish, and leaves the swarm.
    ///
    /// # Errors
    /// When a server fails.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), GatewayError> {
        let Self { config, model, cut, net, peers, ports, registry, sharing: (sharing, _source), keys } =
            self;
        registry.register(|registry| {
            net.metrics(registry);
            sharing.metrics(registry);
        });
        registry.show_swarm(net.status());
        let digest = model.digest();
        let generator = Generator::new(
            swarm(&net, &model, cut.clone()),
            config.generations.clone(),
            GenerationMetrics::new(&registry, model.id()),
        );
        let answering = generator.clone();
        sharing.give_way_while(move || answering.running() > 0);
        let completer = Completer::new(model, Arc::new(generator.clone()));
        let completer = completer.with_strict_context(config.api.strict_context);
        let api = Api::new(completer.clone(), generator.clone(), &registry, &config.generations, &config.api);
        let status = SwarmStatusService::server(net.status());
        let inference = InferenceService::server(completer, generator.clone(), config.api.allow_any_model);

        let stop = CancellationToken::new();
        let _stop_when_dropped = stop.clone().drop_guard();
        let (mut servers, mut tasks) = (JoinSet::new(), JoinSet::new());
        let health = ports.health();
        health.set(status_service::NAME, true).await;
        tasks.spawn(tell_health(health, generator.clone()).map(Ok));
        tasks.spawn(tell_misfits(net.status(), digest, cut).map(Ok));
        if let Some((keys, reread)) = keys {
            tasks.spawn(reread.follow(move |entries| keys.take(entries)).map(Ok));
        }
        let services = |routes: Routes| routes.add_service(status).add_service(inference);
        for server in ports.serve(api, services, &registry, &stop) {
            servers.spawn(server.map(Ok));
        }
        let peers = peer_server().add_service(net.peer_service()).serve_with_incoming(peers);
        // Streams of peers come for as long as the network's thread lives.
        tasks.spawn(async move {
            peers.await?;
            Err(NetError::Stopped.into())
        });

        let ended = tokio::select! {
            ended = first_end(&mut servers) => ended,
            ended = first_end(&mut tasks) => ended,
            () = shutdown => {
                generator.drain(config.drain_timeout).await;
                Ok(())
            }
        };
        stop.cancel();
        net.leave().await;
        // The servers end by themselves within their grace; the others are ended here.
        while servers.join_next().await.is_some() {}
        drop(net);
        tasks.shutdown().await;
        ended
    }
}

/// None of the tasks ends before it is told to, unless it fails.
async fn first_end(tasks: &mut JoinSet<Result<(), GatewayError>>) -> Result<(), GatewayError> {
    match tasks.join_next().await {
        Some(Ok(ended)) => ended,
        Some(Err(error)) => Err(io::Error::other(error).into()),
        None => Ok(()),
    }
}

/// Beyond this machine nobody is let in by mistake.
fn check_open(config: &Config) -> Result<(), GatewayError> {
    if config.clients.keys_file().is_some() {
        return Ok(());
    }
    let ports = [("--http-listen", config.http_listen), ("--grpc-listen", config.grpc_listen)];
    let beyond = ports.into_iter().filter(|(_, address)| !address.ip().to_canonical().is_loopback());
    for (flag, address) in beyond {
        if !config.clients.open_gateway {
            return Err(GatewayError::Open { flag, address });
        }
        tracing::warn!(
            flag, %address,
            "OPEN GATEWAY: whoever reaches this port uses the model and sees the swarm; --api-keys-file ends that"
        );
    }
    Ok(())
}

/// Waits for the model that other nodes hold, and takes its header. Meanwhile peers can ask what this node is.
async fn fetch_model(
    config: &Config,
    net: &SwarmNet,
    peers: &mut PeerListener,
    sharing: &Sharing,
) -> Result<(Loaded, Source), GatewayError> {
    let asked = match &config.model {
        ModelRef::Swarm(asked) => *asked,
        _ => None,
    };
    let model = describe_until(net, peers, sharing.fetch(asked, &config.hub)).await?;
    let loaded = load(model.path().to_owned(), model.digest(), config).await?;
    Ok((loaded, Source::Swarm { _model: model }))
}

/// The model as far as text goes, and how it is cut.
type Loaded = (Arc<ServedModel>, Arc<Cut>);

async fn load(path: PathBuf, digest: ModelDigest, config: &Config) -> Result<Loaded, GatewayError> {
    let shown = path.display().to_string();
    let read = move || {
        let (model, header) = (ServedModel::load(&path, digest)?, Header::read_without_arrays(&path)?);
        let parts = header.parts()?;
        Ok::<_, TextError>((model, parts.layer_bytes(), parts.head_bytes()))
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?;
    let (model, layers, head) = read.map_err(|source| GatewayError::Model { path: shown, source })?;
    let costs = CutCosts { layers: &layers, head };
    let cut = Cut::new(costs, config.net.total_shards, config.shard_weights.as_ref())?;
    Ok((Arc::new(model.named(config.api.served_model_name.clone())), Arc::new(cut)))
}

fn swarm(net: &SwarmNet, model: &ServedModel, cut: Arc<Cut>) -> Swarm {
    let peers = net.clone();
    let connect: Connect = Arc::new(move |worker| {
        let net = peers.clone();
        async move {
            let channel = net.channel(&worker).await;
            channel.map_err(|error| Refusal::new(RefusalCause::HopFailed, error.to_string()))
        }
        .boxed()
    });
    let model = GatewayModel {
        name: model.id().into(),
        digest: model.digest(),
        context_length: model.context_length(),
        cut,
    };
    Swarm::new(net.status(), connect, model)
}

/// Says in the log which workers are not used because they cut the model in another way; each once, until it changes.
async fn tell_misfits(mut status: watch::Receiver<Arc<SwarmStatus>>, digest: ModelDigest, cut: Arc<Cut>) {
    let mut told = BTreeSet::new();
    loop {
        let found = misfits(&status.borrow_and_update(), digest, &cut);
        for Misfit { worker, shard, theirs, ours } in found.difference(&told) {
            tracing::warn!(
                %worker, %shard, %theirs, %ours,
                "a worker is not used, it cuts the model differently: give every node the same --total-shards, \
                 --shard-weights and version"
            );
        }
        told = found;
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Health checks of the inference service answer whether a generation could start now.
async fn tell_health(health: Health, generator: Generator) {
    let mut status = generator.status();
    loop {
        status.mark_unchanged();
        health.set(inference_service::NAME, generator.readiness().is_ok()).await;
        if status.changed().await.is_err() {
            return;
        }
    }
}
