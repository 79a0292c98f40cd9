//! The service: joins the swarm, opens its ports, answers, drains.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use futures::FutureExt;
use model_hub::HubError;
use swarm_net::{NetError, PeerListener, Role, SwarmNet, peer_server};
use swarm_process::{
    address_file::Addresses,
    bodies::BodyBounds,
    descriptors,
    grpc::{Health, PublicServer},
    listener::{Bounds, Listener},
    metrics::Registry,
    status_service::{self, SwarmStatusService},
    telemetry::{self, TelemetryError},
};
use swarm_proto::{Refusal, RefusalCause};
use swarm_types::NodeId;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    Config,
    completion::Completer,
    generation::{GenerationMetrics, Generator},
    http::Api,
    inference_service::{self, InferenceService},
    swarm::{Connect, GatewayModel, Swarm},
    text::{ServedModel, TextError},
};

/// A gateway that cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The model's file cannot be had.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The model's file cannot be used.
    #[error("model {path}: {source}")]
    Model {
        /// Which file.
        path: String,
        /// What is wrong with it.
        source: TextError,
    },
    /// The network does not start.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A port or file.
    #[error(transparent)]
    Io(#[from] io::Error),
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
    net: SwarmNet,
    peers: PeerListener,
    public: PublicServer,
    http: Listener,
}

impl Gateway {
    /// Finds the model, opens the ports, joins the swarm.
    ///
    /// # Errors
    /// Says what is missing and how to give it.
    pub async fn bind(config: Config) -> Result<Self, GatewayError> {
        let path = model_hub::resolve(&config.model, &config.hub).await?;
        let model = load(path).await?;
        let bounds = Bounds::default().beside(config.generations.at_once());
        let public = PublicServer::bind_within(config.grpc_listen, bounds, BodyBounds::default()).await?;
        let public = public.with_messages_of(inference_service::NAME, inference_service::MAX_MESSAGE_BYTES);
        let http = Listener::bind(config.http_listen, "HTTP", "--http-listen", bounds).await?;
        let identity = config.net.load_identity("gateway")?;
        let (net, peers) = SwarmNet::bind(config.net.clone(), Role::Gateway, identity).await?;
        config.address_file.tell(|| Addresses {
            peer_id: net.id().clone(),
            addresses: net.addresses(),
            grpc: public.local_addr(),
            http: Some(http.local_addr()),
        })?;
        tracing::info!(
            peer = %net.id(), http = %http.local_addr(), grpc = %public.local_addr(), model = model.id(),
            "gateway started"
        );
        Ok(Self { config, model, net, peers, public, http })
    }

    /// The node's peer id.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        self.net.id()
    }

    /// Its TCP gRPC port.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.public.local_addr()
    }

    /// Its HTTP port.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    /// Answers until `shutdown`; then takes nothing more in, lets what runs finish, and leaves the swarm.
    ///
    /// # Errors
    /// When a server fails.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), GatewayError> {
        let Self { config, model, net, peers, public, http } = self;
        let registry = Registry::default();
        registry.register(|registry| net.metrics(registry));
        registry.show_swarm(net.status());
        let generator = Generator::new(
            swarm(&net, &model),
            config.generations.clone(),
            GenerationMetrics::new(&registry),
        );
        let completer = Completer::new(model, Arc::new(generator.clone()));
        let api = Api::new(completer.clone(), generator.clone(), registry.clone(), &config.generations);
        let routes = Routes::from(registry.routes())
            .add_service(SwarmStatusService::server(net.status()))
            .add_service(InferenceService::server(completer, generator.clone()));

        let stop = CancellationToken::new();
        let _stop_when_dropped = stop.clone().drop_guard();
        let (mut servers, mut tasks) = (JoinSet::new(), JoinSet::new());
        let health = public.health();
        health.set(status_service::NAME, true).await;
        tasks.spawn(tell_health(health, generator.clone()).map(Ok));
        servers.spawn(http.serve(api.routes(), stop.clone()).map(Ok));
        let names = [inference_service::NAME, status_service::NAME];
        let (token, peer_service) = (stop.clone(), net.peer_service());
        servers.spawn(async move { public.serve(&names, routes, token).await }.map(Ok));
        let peers = peer_server().add_service(peer_service).serve_with_incoming(peers);
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

async fn load(path: PathBuf) -> Result<Arc<ServedModel>, GatewayError> {
    let shown = path.display().to_string();
    let model = tokio::task::spawn_blocking(move || ServedModel::load(&path)).await;
    match model.map_err(io::Error::other)? {
        Ok(model) => Ok(Arc::new(model)),
        Err(source) => Err(GatewayError::Model { path: shown, source }),
    }
}

fn swarm(net: &SwarmNet, model: &ServedModel) -> Swarm {
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
    };
    Swarm::new(net.status(), connect, model)
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
