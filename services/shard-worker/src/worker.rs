//! The service: joins the swarm, loads its layers, serves them, drains.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::atomic::AtomicU64};

use model_files::{LocalModel, Sharing};
use prometheus_client::metrics::gauge::Gauge;
use shard_client::{MAX_COLLECT_BYTES, MAX_MESSAGE_BYTES, MAX_OPEN_BYTES};
use shard_engine::{BackendChoice, CANDLE_THREADS_VARIABLE, DeviceChoice};
use swarm_net::{
    DescribeServer, MethodLimit, NetError, PeerCalls, PeerListener, Role, ShardOffer, SwarmNet,
    peer_server_for,
};
use swarm_process::{
    address_file::Addresses,
    descriptors,
    grpc::{Health, PublicServer},
    metrics::Registry,
    status_service::{self, SwarmStatusService},
    telemetry,
};
use swarm_proto::wire::shard_service_server::ShardServiceServer;
use swarm_types::NodeId;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};
use tonic::service::Routes;

use crate::{
    Config, WorkerError,
    engine_thread::EngineHandle,
    host::Host,
    load::Load,
    metrics::Metrics,
    model::Known,
    offer::{Fixed, Loading, announce, grpc_address, offers},
    replays::Replays,
    sessions::{Bounds, Sessions},
    shard_service::{self, ShardServer},
    stalls,
};

/// Runs a worker until `shutdown`, with logs and traces: what its process does between flags and exit code.
///
/// # Errors
/// What keeps it from starting or going on.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<(), WorkerError> {
    let telemetry = telemetry::init("shard-worker", &config.telemetry)?;
    descriptors::raise_limit();
    let worker = Worker::bind(config).await?;
    telemetry.identify(worker.id());
    worker.run(shutdown).await
}

/// A worker whose ports are open.
pub struct Worker {
    config: Config,
    net: SwarmNet,
    peers: PeerListener,
    public: PublicServer,
    sharing: Sharing,
    /// Nothing while it is to come from other nodes, or from a hub.
    model: Option<Model>,
}

/// The model, of which the header is here, and what the worker is with it.
struct Model {
    known: Known,
    fixed: Fixed,
    /// Where its bytes are.
    files: model_files::Model,
}

impl Worker {
    /// Finds the model, opens the ports, joins the swarm and announces the shards as not loaded yet. A model that comes
    /// from other nodes or from a hub is found once the worker runs.
    ///
    /// # Errors
    /// Says what is missing and how to give it.
    pub async fn bind(mut config: Config) -> Result<Self, WorkerError> {
        config.device = config.device.resolved();
        let local = match LocalModel::here(&config.model, &config.hub).await? {
            Some(local) => Some((Known::of(local.path(), local.digest(), &config)?, local)),
            None => None,
        };
        let public = PublicServer::bind(config.grpc_listen).await?.secured(config.tls.open_mutual().await?);
        let identity = config.net.load_identity(&identity_name(&config))?;
        let (net, peers) = SwarmNet::bind(config.net.clone(), Role::Worker, identity).await?;
        let sharing = Sharing::start(&net, &config.sharing)?;
        let model = match local {
            Some((known, local)) => {
                let shared = sharing.share(&known.model.name, &local)?;
                let files = model_files::Model::Local(local, shared);
                Some(Model { fixed: fixed(&config, &net, public.local_addr(), &known), known, files })
            }
            None => None,
        };
        if let Some(model) = &model {
            net.announce(offers(&model.fixed, Loading::Percent(0), 0, &BTreeMap::new())?);
        }
        config.address_file.tell(|| Addresses {
            peer_id: net.id().clone(),
            addresses: net.addresses(),
            grpc: public.local_addr(),
            http: None,
            metrics: None,
        })?;
        warn_of_threads(&config);
        tracing::info!(peer = %net.id(), shards = %config.shard_id, grpc = %public.local_addr(), "worker started");
        Ok(Self { config, net, peers, public, sharing, model })
    }

    /// The worker's peer id.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        self.net.id()
    }

    /// Multiaddresses where peers reach it.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.net.addresses()
    }

    /// Its TCP gRPC port.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.public.local_addr()
    }

    /// Loads the layers and serves until `shutdown`; then leaves the swarm and lets running sessions finish.
    ///
    /// # Errors
    /// When the layers cannot be loaded, or a server fails.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), WorkerError> {
        let Self { config, net, peers, public, sharing, model } = self;
        let registry = Registry::of(&config.net.cluster);
        let metrics = register(&registry, &net, &sharing);
        registry.show_swarm(net.status());
        show_limits(&registry, &config);
        let sessions = Sessions::new(bounds(&config));
        let running = sessions.running();
        sharing.give_way_while(move || *running.borrow() > 0);
        let (engine, loaded) = watch::channel(None);
        let health = public.health();
        health.set(shard_service::NAME, false).await;
        health.set(status_service::NAME, true).await;

        let stop = CancellationToken::new();
        let _stop_when_dropped: DropGuard = stop.clone().drop_guard();
        let replays = Replays::new(
            usize::try_from(config.replay_memory.0).unwrap_or(usize::MAX),
            metrics.replay_bytes.clone(),
        );
        let host = Host::new(net.clone(), loaded, sessions.clone(), replays, metrics.clone());
        let _keeper = AbortOnDropHandle::new(tokio::spawn(host.clone().keep_leases()));
        let server = ShardServer(host.clone());
        let peers = serve_peers(server, calls(&config), net.peer_service(), peers, stop.clone());
        let mut peers = net.spawn(peers);
        let grpc = public.local_addr();
        let mut public = tokio::spawn(serve_public(public, registry, net.clone(), stop.clone()));
        let counter = count_sessions(sessions.running(), sessions.leased(), metrics.clone());
        let _counter = AbortOnDropHandle::new(tokio::spawn(counter));
        let work = Work { config, net, sharing, host, sessions, metrics, health };
        let mut announced = None;
        let ended = tokio::select! {
            ended = work.compute(model, grpc, engine, &mut announced) => ended,
            ended = flatten(&mut peers) => ended,
            ended = flatten(&mut public) => ended,
            () = shutdown => Ok(()),
        };
        work.leave(announced, ended).await
    }
}

/// What a worker computes with.
struct Work {
    config: Config,
    net: SwarmNet,
    sharing: Sharing,
    host: Host,
    sessions: Sessions,
    metrics: Metrics,
    health: Health,
}

/// What is announced of the shards, and by whom.
struct Announced {
    fixed: Fixed,
    announcer: AbortOnDropHandle<()>,
}

impl Work {
    /// Gets the model, loads the layers, and computes until the engine stops.
    async fn compute(
        &self,
        model: Option<Model>,
        grpc: SocketAddr,
        engine: watch::Sender<Option<EngineHandle>>,
        announced: &mut Option<Announced>,
    ) -> Result<(), WorkerError> {
        let Self { config, net, sharing, host, sessions, metrics, health } = self;
        let Model { known, fixed, files } = match model {
            Some(model) => model,
            None => fetch_model(config, net, sharing, grpc).await?,
        };
        host.serve(known.served(config));
        let (loading, percent) = watch::channel(Loading::Percent(0));
        let announcer = announce(net.clone(), fixed.clone(), percent, sessions.running());
        let announcer = AbortOnDropHandle::new(tokio::spawn(announcer));
        *announced = Some(Announced { fixed, announcer });
        let load = Load { config: config.clone(), model: known, metrics: metrics.clone() };
        if let Some(model) = files.parts() {
            load.fetch(model, &loading).await?;
        }
        let ended = load.run(&loading, &engine, health).await?;
        let pulse = engine.borrow().as_ref().map(EngineHandle::pulse);
        let _watch = pulse.map(|pulse| {
            let watch = stalls::watch(pulse, sessions.running(), loading.clone(), metrics.clone());
            AbortOnDropHandle::new(tokio::spawn(watch))
        });
        let _ = ended.await;
        Err(WorkerError::EngineStopped)
    }

    /// Lets running sessions finish, if it `ended` well, and leaves the swarm.
    async fn leave(
        self,
        announced: Option<Announced>,
        ended: Result<(), WorkerError>,
    ) -> Result<(), WorkerError> {
        if let Some(Announced { fixed, announcer }) = announced {
            // It must not announce the shards as loaded any more.
            announcer.abort();
            let _ = announcer.await;
            if ended.is_ok() {
                let running = *self.sessions.running().borrow();
                let draining = offers(&fixed, Loading::Draining, running, &BTreeMap::new())?;
                drain(&self.config, &self.net, draining, &self.sessions, &self.health).await;
            }
        }
        if ended.is_ok() {
            self.net.retire().await;
        }
        self.net.leave().await;
        ended
    }
}

/// Gets a model that is not on this machine.
async fn fetch_model(
    config: &Config,
    net: &SwarmNet,
    sharing: &Sharing,
    grpc: SocketAddr,
) -> Result<Model, WorkerError> {
    let files = sharing.open(&config.model, &config.hub).await?;
    let known = Known::of(files.path(), files.digest(), config)?;
    let fixed = fixed(config, net, grpc, &known);
    net.announce(offers(&fixed, Loading::Percent(0), 0, &BTreeMap::new())?);
    Ok(Model { fixed, known, files })
}

/// What does not change from now on.
fn fixed(config: &Config, net: &SwarmNet, grpc: SocketAddr, known: &Known) -> Fixed {
    Fixed {
        shards: config.shard_id,
        cut: known.cut.clone(),
        model: known.model.clone(),
        device: config.device.to_string(),
        kv_bytes: config.kv_memory.0,
        grpc_address: grpc_address(grpc, &net.addresses()),
    }
}

/// A peer may be the hop above of all sessions.
fn calls(config: &Config) -> PeerCalls {
    let places = config.max_sessions;
    PeerCalls { sessions: places.saturating_add(places / 8 + 1), limits: &LIMITS }
}

fn register(registry: &Registry, net: &SwarmNet, sharing: &Sharing) -> Metrics {
    let mut metrics = None;
    registry.register(|registry| {
        net.metrics(registry);
        sharing.metrics(registry);
        metrics = Some(Metrics::register(registry));
    });
    metrics.expect("the closure has run")
}

fn bounds(config: &Config) -> Bounds {
    let (sessions, kv_bytes) = (config.max_sessions as usize, config.kv_memory.0);
    Bounds { sessions, kv_bytes, lease: config.session_lease }
}

/// What `kv_cache_bytes` and `sessions` are measured by.
fn show_limits(registry: &Registry, config: &Config) {
    let limit = |value: u64| {
        let gauge = Gauge::<u64, AtomicU64>::default();
        gauge.set(value);
        gauge
    };
    registry.register(|registry| {
        registry.register(
            "kv_cache_limit_bytes",
            "Bytes that caches may take (--kv-memory)",
            limit(config.kv_memory.0),
        );
        let replay = "Bytes that what was sent to hops below may take (--replay-memory)";
        registry.register("replay_limit_bytes", replay, limit(config.replay_memory.0));
        let sessions = u64::from(config.max_sessions);
        registry.register("sessions_limit", "Sessions that may be open (--max-sessions)", limit(sessions));
    });
}

fn identity_name(config: &Config) -> String {
    format!("worker-{}", config.shard_id)
}

async fn flatten(task: &mut JoinHandle<Result<(), WorkerError>>) -> Result<(), WorkerError> {
    match task.await {
        Ok(ended) => ended,
        Err(error) => Err(io::Error::other(error).into()),
    }
}

/// Says when candle's kernels will not run on as many threads as the worker was given: on a small share of a large
/// machine that costs most of the speed.
fn warn_of_threads(config: &Config) {
    if config.backend != BackendChoice::Candle || config.device != DeviceChoice::Cpu {
        return;
    }
    let threads = config.thread_count();
    let set = std::env::var(CANDLE_THREADS_VARIABLE).unwrap_or_default();
    if set.parse() != Ok(threads) {
        tracing::warn!(
            threads,
            set,
            "backend candle does not heed --threads: start the worker with {CANDLE_THREADS_VARIABLE}={threads}"
        );
    }
}

/// How large the requests of `ShardService` are.
const LIMITS: [MethodLimit; 2] = [
    MethodLimit { path: "/swarm.v1.ShardService/Forward", first: MAX_OPEN_BYTES, later: MAX_MESSAGE_BYTES },
    MethodLimit { path: "/swarm.v1.ShardService/Collect", first: MAX_COLLECT_BYTES, later: 0 },
];

/// The gRPC server inside libp2p streams.
async fn serve_peers(
    server: ShardServer,
    calls: PeerCalls,
    describe: DescribeServer,
    peers: PeerListener,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let shards = ShardServiceServer::new(server)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let server = peer_server_for(calls).add_service(shards).add_service(describe);
    tokio::select! {
        ended = server.serve_with_incoming(peers) => {
            ended?;
            Err(NetError::Stopped.into())
        }
        () = stop.cancelled() => Ok(()),
    }
}

async fn serve_public(
    public: PublicServer,
    registry: Registry,
    net: SwarmNet,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let status = SwarmStatusService::server(net.status(), net.forgetting());
    let routes = Routes::from(registry.routes()).add_service(status);
    public.serve(&[status_service::NAME], routes, stop).await;
    Ok(())
}

async fn count_sessions(
    mut running: watch::Receiver<usize>,
    mut leased: watch::Receiver<usize>,
    metrics: Metrics,
) {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    loop {
        metrics.sessions.set(number(*running.borrow_and_update()));
        metrics.leases.set(number(*leased.borrow_and_update()));
        let changed = tokio::select! {
            changed = running.changed() => changed,
            changed = leased.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Refuses new sessions and waits, bounded, for the running ones.
async fn drain(
    config: &Config,
    net: &SwarmNet,
    draining: Vec<ShardOffer>,
    sessions: &Sessions,
    health: &Health,
) {
    sessions.drain();
    health.set(shard_service::NAME, false).await;
    // Nobody plans a route through shards that are not loaded; to announce nothing would end the sessions that run.
    net.announce(draining);
    let mut count = sessions.running();
    let idle = count.wait_for(|count| *count == 0);
    if tokio::time::timeout(config.drain_timeout, idle).await.is_err() {
        tracing::warn!(timeout = ?config.drain_timeout, "sessions are cut off: they did not finish in time");
    }
}
