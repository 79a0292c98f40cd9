//! The service: joins the swarm, opens its ports, answers, drains.

use std::{future::pending, io, net::SocketAddr, path::Path, sync::Arc};

use futures::FutureExt;
use model_files::Sharing;
use swarm_net::{NetError, PeerListener, Role, SwarmNet, peer_server};
use swarm_process::{
    address_file::Addresses,
    descriptors,
    grpc::Health,
    metrics::Registry,
    reread::Reread,
    status_service::{self, SwarmStatusService},
    telemetry,
};
use swarm_proto::{Refusal, RefusalCause};
use swarm_types::{Cut, NodeId};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::service::Routes;

use crate::{
    Config,
    clients::{ClientMetrics, Entry, Keys},
    completion::Completer,
    error::GatewayError,
    generation::{GenerationMetrics, Generator},
    http::Front,
    inference_service::{self, InferenceService},
    misfits,
    model::{Found, Model},
    ports::Ports,
    swarm::{Connect, GatewayModel, Swarm},
    text::ServedModel,
};

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
    net: SwarmNet,
    peers: PeerListener,
    ports: Ports,
    registry: Registry,
    sharing: Sharing,
    /// Nothing while its header is to come from other nodes.
    model: Option<Model>,
    /// What is to be read again when it changes.
    keys: Option<(Keys, Reread<Vec<Entry>>)>,
}

impl Gateway {
    /// Finds the model, opens the ports, joins the swarm. A model that comes from other nodes is found once the gateway
    /// runs.
    ///
    /// # Errors
    /// Says what is missing and how to give it.
    pub async fn bind(config: Config) -> Result<Self, GatewayError> {
        check_open(&config)?;
        let registry = Registry::of(&config.net.cluster);
        let metrics = ClientMetrics::new(&registry);
        let keys = match config.clients.keys_file().map(Path::to_owned) {
            Some(file) => Some(Keys::open(file, metrics).await?),
            None => None,
        };
        let found = Found::of(&config).await?;
        let ports = Ports::bind(&config, keys.as_ref().map(|(keys, _)| keys.clone())).await?;
        let identity = config.net.load_identity("gateway")?;
        let (net, peers) = SwarmNet::bind(config.net.clone(), Role::Gateway, identity).await?;
        let sharing = Sharing::start(&net, &config.sharing)?;
        let model = found.map(|found| found.share(&sharing)).transpose()?;
        config.address_file.tell(|| Addresses {
            peer_id: net.id().clone(),
            addresses: net.addresses(),
            grpc: ports.grpc_addr(),
            http: Some(ports.http_addr()),
            metrics: ports.metrics_addr(),
        })?;
        tracing::info!(
            peer = %net.id(), http = %ports.http_addr(), grpc = %ports.grpc_addr(), model = %config.model,
            "gateway started"
        );
        Ok(Self { config, net, peers, ports, registry, sharing, model, keys })
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

    /// Answers until `shutdown`; then takes nothing more in, lets what runs finish, and leaves the swarm. Before the
    /// model's header is here, requests are told so.
    ///
    /// # Errors
    /// When a server fails, or the model cannot be had.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), GatewayError> {
        let Self { config, net, peers, ports, registry, sharing, model, keys } = self;
        registry.register(|registry| {
            net.metrics(registry);
            sharing.metrics(registry);
        });
        registry.show_swarm(net.status());
        let (health, front) = (ports.health(), ports.front(&registry).logging(config.log_requests));
        health.set(status_service::NAME, true).await;
        health.set(inference_service::NAME, false).await;
        let inference = InferenceService::logging(config.log_requests);
        let work = Work { config, net, sharing, registry, front, inference, health };
        let mut answering = model.map(|model| work.answer_by(model));

        let stop = CancellationToken::new();
        let _stop_when_dropped = stop.clone().drop_guard();
        let (mut servers, mut tasks) = (JoinSet::new(), JoinSet::new());
        if let Some((keys, reread)) = keys {
            tasks.spawn(reread.follow(move |entries| keys.take(entries)).map(Ok));
        }
        for server in ports.serve(&work.front, work.services(), &work.registry, &stop) {
            servers.spawn(server.map(Ok));
        }
        let peers = peer_server().add_service(work.net.peer_service()).serve_with_incoming(peers);
        // Streams of peers come for as long as the network's thread lives.
        tasks.spawn(async move {
            peers.await?;
            Err(NetError::Stopped.into())
        });

        let ended = tokio::select! {
            ended = first_end(&mut servers) => ended,
            ended = first_end(&mut tasks) => ended,
            ended = work.answer(&mut answering) => ended,
            () = shutdown => {
                if let Some(answering) = &answering {
                    answering.generator.drain(work.config.drain_timeout).await;
                }
                Ok(())
            }
        };
        stop.cancel();
        work.net.leave().await;
        // The servers end by themselves within their grace; the others are ended here.
        while servers.join_next().await.is_some() {}
        drop((answering, work));
        tasks.shutdown().await;
        ended
    }
}

/// What a gateway answers with.
struct Work {
    config: Config,
    net: SwarmNet,
    sharing: Sharing,
    registry: Registry,
    front: Front,
    inference: InferenceService,
    health: Health,
}

/// What is there once the model's header is.
struct Answering {
    generator: Generator,
    /// The model's file is given to others.
    _files: model_files::Model,
    _telling: [AbortOnDropHandle<()>; 2],
}

impl Work {
    /// Gets the model if it is not there yet, and answers by it from then on.
    async fn answer(&self, answering: &mut Option<Answering>) -> Result<(), GatewayError> {
        if answering.is_none() {
            let model = Model::fetch(&self.config, &self.sharing).await?;
            tracing::info!(model = model.served.id(), "the model's header is here");
            *answering = Some(self.answer_by(model));
        }
        pending().await
    }

    fn answer_by(&self, Model { served, cut, files }: Model) -> Answering {
        let Self { config, net, sharing, registry, front, inference, health } = self;
        let digest = served.digest();
        let generator = Generator::new(
            swarm(net, &served, cut.clone()),
            config.generations.clone(),
            GenerationMetrics::new(registry, served.id()),
        );
        let answering = generator.clone();
        sharing.give_way_while(move || answering.running() > 0);
        let completer = Completer::new(served, Arc::new(generator.clone()));
        let completer = completer.with_strict_context(config.api.strict_context);
        front.answer_by(completer.clone(), generator.clone(), &config.generations, &config.api);
        inference.answer_by(completer, generator.clone(), config.api.allow_any_model);
        let telling = [
            tokio::spawn(tell_health(health.clone(), generator.clone())),
            tokio::spawn(misfits::tell(net.status(), digest, cut)),
        ];
        Answering { generator, _files: files, _telling: telling.map(AbortOnDropHandle::new) }
    }

    /// On the gRPC port.
    fn services(&self) -> impl FnOnce(Routes) -> Routes + use<> {
        let status = SwarmStatusService::server(self.net.status(), self.net.forgetting());
        let inference = self.inference.clone().server();
        |routes| routes.add_service(status).add_service(inference)
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
