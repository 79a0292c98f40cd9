//! The service: joins the swarm, loads its layers, serves them, drains.

use std::{collections::BTreeMap, io, net::SocketAddr, path::PathBuf, sync::atomic::AtomicU64};

use gguf::Header;
use prometheus_client::metrics::gauge::Gauge;
use shard_client::{MAX_COLLECT_BYTES, MAX_MESSAGE_BYTES, MAX_OPEN_BYTES};
use shard_engine::{
    BackendChoice, CANDLE_THREADS_VARIABLE, CutError, DeviceChoice, Footprint, Usage, cut_of,
};
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
use swarm_types::{Cut, ModelDigest, ModelId, NodeId};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};
use tonic::service::Routes;

use crate::{
    Config, WorkerError,
    host::{Host, Served},
    load::Load,
    metrics::Metrics,
    offer::{Fixed, Loading, announce, grpc_address, offers},
    room,
    sessions::{Bounds, Sessions},
    shard_service::{self, ShardServer},
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
    model: PathBuf,
    net: SwarmNet,
    peers: PeerListener,
    public: PublicServer,
    fixed: Fixed,
}

impl Worker {
    /// Finds the model, opens the ports, joins the swarm and announces the shards as not loaded yet.
    ///
    /// # Errors
    /// Says what is missing and how to give it.
    pub async fn bind(config: Config) -> Result<Self, WorkerError> {
        let model = model_hub::resolve(&config.model, &config.hub).await?;
        let header = Header::read_without_arrays(&model);
        let failed = |source| WorkerError::Model { path: model.display().to_string(), source };
        let header = header.map_err(failed)?;
        let (cut, footprint) = plan(&header, &config).map_err(|error| match error {
            CutError::Header(source) => failed(source),
            CutError::Layers(error) => error.into(),
        })?;
        room::check(&footprint, &config)?;
        let public = PublicServer::bind(config.grpc_listen).await?.secured(config.tls.open_mutual().await?);
        let identity = config.net.load_identity(&identity_name(&config))?;
        let (net, peers) = SwarmNet::bind(config.net.clone(), Role::Worker, identity).await?;
        let fixed = Fixed {
            shards: config.shard_id,
            cut,
            model: ModelId::new(
                header.name(&file_name(&model)),
                ModelDigest(header.digest),
                config.precision,
            ),
            device: config.device.to_string(),
            kv_bytes: config.kv_memory.0,
            grpc_address: grpc_address(public.local_addr(), &net.addresses()),
        };
        net.announce(offers(&fixed, Loading::Percent(0), 0, &BTreeMap::new())?);
        config.address_file.tell(|| Addresses {
            peer_id: net.id().clone(),
            addresses: net.addresses(),
            grpc: public.local_addr(),
            http: None,
            metrics: None,
        })?;
        warn_of_threads(&config);
        tracing::info!(peer = %net.id(), shards = %config.shard_id, grpc = %public.local_addr(), "worker started");
        Ok(Self { config, model, net, peers, public, fixed })
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
        let registry = Registry::default();
        let metrics = register(&registry, &self.net);
        registry.show_swarm(self.net.status());
        show_limits(&registry, &self.config);
        let sessions = Sessions::new(bounds(&self.config));
        let (loading, percent) = watch::channel(Loading::Percent(0));
        let (engine, loaded) = watch::channel(None);
        let health = self.public.health();
        health.set(shard_service::NAME, false).await;
        health.set(status_service::NAME, true).await;

        let stop = CancellationToken::new();
        let _stop_when_dropped: DropGuard = stop.clone().drop_guard();
        let host = Host::new(self.net.clone(), self.served(), loaded, sessions.clone(), metrics.clone());
        let _keeper = AbortOnDropHandle::new(tokio::spawn(host.clone().keep_leases()));
        let server = ShardServer(host);
        let peers = serve_peers(server, self.calls(), self.net.peer_service(), self.peers, stop.clone());
        let mut peers = self.net.spawn(peers);
        let mut public = tokio::spawn(serve_public(self.public, registry, self.net.clone(), stop.clone()));
        let announcer =
            tokio::spawn(announce(self.net.clone(), self.fixed.clone(), percent, sessions.running()));
        let load = Load { config: self.config.clone(), model: self.model, metrics: metrics.clone() };
        let counter = count_sessions(sessions.running(), sessions.leased(), metrics);
        let _counter = AbortOnDropHandle::new(tokio::spawn(counter));
        let compute = async {
            let ended = load.run(&loading, &engine, &health).await?;
            let _ = ended.await;
            Err(WorkerError::EngineStopped)
        };
        let ended = tokio::select! {
            ended = compute => ended,
            ended = flatten(&mut peers) => ended,
            ended = flatten(&mut public) => ended,
            () = shutdown => Ok(()),
        };
        // It must not announce the shards as loaded any more.
        announcer.abort();
        let _ = announcer.await;
        if ended.is_ok() {
            let draining =
                offers(&self.fixed, Loading::Draining, *sessions.running().borrow(), &BTreeMap::new())?;
            drain(&self.config, &self.net, draining, &sessions, &health).await;
        }
        self.net.leave().await;
        ended
    }

    /// A peer may be the hop above of all sessions.
    fn calls(&self) -> PeerCalls {
        let places = self.config.max_sessions;
        PeerCalls { sessions: places.saturating_add(places / 8 + 1), limits: &LIMITS }
    }

    fn served(&self) -> Served {
        Served {
            model: self.model.clone(),
            shards: self.fixed.shards,
            cut: self.fixed.cut.clone(),
            digest: self.fixed.model.digest,
            precision: self.fixed.model.precision,
        }
    }
}

fn register(registry: &Registry, net: &SwarmNet) -> Metrics {
    let mut metrics = None;
    registry.register(|registry| {
        net.metrics(registry);
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
        let sessions = u64::from(config.max_sessions);
        registry.register("sessions_limit", "Sessions that may be open (--max-sessions)", limit(sessions));
    });
}

/// Which layers all shards have, and what those of this worker will take.
fn plan(header: &Header, config: &Config) -> Result<(Cut, Footprint), CutError> {
    let cut = cut_of(header, config.net.total_shards, config.shard_weights.as_ref())?;
    let Config { precision, kv_type, batch_tokens: batch_rows, .. } = *config;
    let usage = Usage { precision, kv_type, batch_rows };
    let footprint = Footprint::of(header, &cut, config.shard_id, usage)?;
    Ok((cut, footprint))
}

fn file_name(path: &std::path::Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
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

/// Says when candle's products will not run on as many threads as the worker was given: on a small share of a large
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
    let routes = Routes::from(registry.routes()).add_service(SwarmStatusService::server(net.status()));
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
