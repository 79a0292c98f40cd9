//! A worker on free ports of this machine, and a peer that plays the gateway and the hop below.
// Used by one test binary only, and what fails here fails a test.
#![allow(unreachable_pub, clippy::unwrap_used)]

use std::{net::SocketAddr, pin::Pin, time::Duration};

use clap::Parser;
use futures::{Stream, StreamExt};
use gguf::{Header, tiny::TinyModel};
use shard_engine::cut_of;
use shard_worker::{Config, Worker, WorkerError};
use swarm_net::{Identity, MethodLimit, NetConfig, PeerCalls, Role, SwarmNet, peer_server_for};
use swarm_proto::{
    CollectSession, FromBelow, HopFailure, OpenSession, Opened, Refusal, RefusalCause,
    wire::{
        self, ForwardRequest,
        forward_request::Message,
        shard_service_client::ShardServiceClient,
        shard_service_server::{ShardService, ShardServiceServer},
    },
};
use swarm_types::{
    Attempt, Cut, Hop, ModelDigest, NodeId, Precision, Replica, ReplicaState, SamplingParams, SessionId,
    ShardRange, SwarmStatus,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::Channel};

/// Nothing here takes this long, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Numbers in one activation of the model.
pub const HIDDEN: usize = 64;
/// Positions of the model's longest session.
pub const CONTEXT: u32 = 512;
/// Bytes of cache that one position takes in one of the model's two layers.
pub const POSITION_BYTES: u32 = 128;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

/// A worker, and the peer that asks it.
pub struct Scene {
    pub worker: NodeId,
    pub peer: SwarmNet,
    grpc: SocketAddr,
    shards: ShardRange,
    cut: Cut,
    digest: ModelDigest,
    heard: mpsc::Receiver<ForwardRequest>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), WorkerError>>,
    _folder: TempDir,
}

/// What the peer does when it is a hop below the worker.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum HopBelow {
    /// Refuses each session for want of room.
    Full,
    /// Tells trouble that makes no sense.
    Mumbles,
    /// Says that somebody has failed who is not on the route.
    Accuses,
    /// Never answers.
    Silent,
    /// Takes every session and answers nothing more; what it hears is kept.
    Listens,
    /// The same, and says that it stands there.
    Stands(u32),
}

impl Scene {
    /// A worker with `shards` of a model of two layers that is cut into `total_shards`. `flags` are words.
    pub async fn start(shards: &str, total_shards: u32, flags: &str) -> Self {
        Self::with_hop_below(shards, total_shards, flags, HopBelow::Silent).await
    }

    pub async fn with_hop_below(shards: &str, total_shards: u32, flags: &str, below: HopBelow) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (model, identity) = (folder.path().join("tiny.gguf"), folder.path().join("worker.key"));
        TinyModel { layers: 2, context: CONTEXT, ..TinyModel::default() }.write(&model).unwrap();
        let header = Header::read_without_arrays(&model).unwrap();
        let cut = cut_of(&header, total_shards, None).unwrap();
        let words = format!(
            "worker --shard-id {shards} --total-shards {total_shards} --threads 1 --cluster test --grpc-listen \
             127.0.0.1:0 --listen /ip4/127.0.0.1/udp/0/quic-v1 --model {} --identity {} {flags}",
            model.display(),
            identity.display()
        );
        let worker = Worker::bind(Cli::parse_from(words.split_whitespace()).config).await.unwrap();
        let (id, grpc, entry) = (worker.id().clone(), worker.grpc_addr(), worker.addresses().remove(0));
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(worker.run(async { drop(stopped.await) }));
        let (ears, heard) = mpsc::channel(64);
        let mut scene = Self {
            worker: id,
            peer: peer(total_shards, entry, below, ears).await,
            heard,
            grpc,
            shards: shards.parse().unwrap(),
            cut,
            digest: ModelDigest([0; 32]),
            stop: Some(stop),
            running,
            _folder: folder,
        };
        scene.digest = scene.sees(|replica| replica.state == ReplicaState::Loaded).await.model.digest;
        scene
    }

    /// Waits until the peer sees the worker so.
    pub async fn sees(&self, wanted: impl Fn(&Replica) -> bool) -> Replica {
        let mut status = self.peer.status();
        let found = |status: &SwarmStatus| {
            let replicas = status.shards.iter().flat_map(|shard| &shard.replicas);
            replicas.into_iter().find(|replica| replica.worker == self.worker && wanted(replica)).cloned()
        };
        let seen = soon(status.wait_for(|status| found(status).is_some())).await.unwrap();
        found(&seen).unwrap()
    }

    /// Waits until the worker is known to run this many sessions.
    pub async fn runs(&self, sessions: u32) {
        self.sees(|replica| replica.capabilities.active_sessions == sessions).await;
    }

    pub async fn client(&self) -> ShardServiceClient<Channel> {
        ShardServiceClient::new(self.channel().await)
    }

    pub async fn channel(&self) -> Channel {
        self.peer.channel(&self.worker).await.unwrap()
    }

    /// The first message of a session that fits; the peer is the hop below if the worker has not the last shard.
    pub fn opening(&self, session: u32, attempt: u32) -> wire::OpenSession {
        let rest = ShardRange::new(self.shards.end(), self.cut.total_shards()).ok();
        let below = rest.map(|shards| Hop { worker: self.peer.id().clone(), shards });
        OpenSession {
            session: session_id(session),
            attempt: Attempt(attempt),
            gateway: self.peer.id().clone(),
            model_digest: self.digest,
            precision: Precision::default(),
            cut: self.cut.clone(),
            hop: Hop { worker: self.worker.clone(), shards: self.shards },
            below: below.into_iter().collect(),
            prompt_tokens: 2,
            max_positions: 16,
        }
        .into()
    }

    /// A gateway's wish for a session's tokens.
    pub fn wish(&self, session: u32, attempt: u32) -> wire::CollectRequest {
        CollectSession {
            session: session_id(session),
            attempt: Attempt(attempt),
            sampling: SamplingParams::greedy(),
            grammar: None,
            tokens: vec![],
        }
        .into()
    }

    pub async fn collect(&self, session: u32, attempt: u32) -> Collecting {
        self.collect_with(self.wish(session, attempt)).await
    }

    pub async fn collect_with(&self, wish: wire::CollectRequest) -> Collecting {
        let mut answers = soon(self.client().await.collect(wish)).await.unwrap().into_inner();
        let first = soon(answers.message()).await.unwrap().unwrap();
        let Some(wire::collect_response::Message::Accepted(wire::Accepted { last })) = first.message else {
            panic!("{first:?}")
        };
        Collecting { last: last.map(told), answers }
    }

    /// Makes the call and sends these messages; its end of the stream stays open.
    pub async fn forward(&self, messages: impl IntoIterator<Item = Message>) -> Forwarding {
        let (steps, waiting) = mpsc::channel(16);
        for message in messages {
            steps.try_send(ForwardRequest { message: Some(message) }).unwrap();
        }
        let call = self.client().await.forward(ReceiverStream::new(waiting)).await;
        Forwarding { steps, news: call.unwrap().into_inner() }
    }

    /// A session that runs, opened as it should be.
    pub async fn session(&self, session: u32, attempt: u32) -> (Forwarding, Collecting) {
        self.session_with(self.opening(session, attempt), session).await
    }

    pub async fn session_with(&self, open: wire::OpenSession, session: u32) -> (Forwarding, Collecting) {
        let collecting = self.collect(session, open.attempt).await;
        (self.forward([Message::Open(open)]).await, collecting)
    }

    /// The worker's counters, as anybody gets them.
    pub async fn metrics(&self) -> String {
        let mut http = TcpStream::connect(self.grpc).await.unwrap();
        http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        http.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }

    /// How often the worker has refused for this cause.
    pub async fn refused(&self, cause: RefusalCause) -> u64 {
        self.metric(&format!("sessions_refused_total{{cause=\"{cause}\"}}")).await
    }

    /// One number of the worker's; 0 when it was never told.
    pub async fn metric(&self, name: &str) -> u64 {
        let line = format!("llama_swarm_{name} ");
        // All series have the swarm's name, and it is the same for all.
        let metrics = self.metrics().await.replace("{cluster=\"test\"}", "");
        let metrics = metrics.replace("cluster=\"test\",", "");
        metrics.lines().find_map(|text| text.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
    }

    /// Waits until a number of the worker's is so: the engine frees caches behind what ends their sessions.
    pub async fn counts(&self, name: &str, wanted: u64) {
        let reached = async {
            while self.metric(name).await != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(reached).await;
    }

    /// What the worker says next to a hop below that listens.
    pub async fn heard(&mut self) -> ForwardRequest {
        soon(self.heard.recv()).await.unwrap()
    }

    /// Tells the worker to end.
    pub fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until it has.
    pub async fn ended(&mut self) -> Result<(), WorkerError> {
        soon(&mut self.running).await.unwrap()
    }
}

/// A `Forward` call.
pub struct Forwarding {
    steps: mpsc::Sender<ForwardRequest>,
    news: Streaming<wire::ForwardResponse>,
}

impl Forwarding {
    pub async fn send(&self, step: wire::Step) {
        self.say(Message::Step(step)).await;
    }

    /// The worker may have ended the call already, which its answer tells.
    pub async fn say(&self, message: Message) {
        let _ = soon(self.steps.send(ForwardRequest { message: Some(message) })).await;
    }

    /// Says that the session is over and waits until the worker has ended its own end of the call.
    pub async fn end(mut self) {
        self.say(Message::End(wire::EndSession {})).await;
        self.ended().await;
    }

    /// Ends this end of the call without that, and waits until the worker has ended its own.
    pub async fn close(self) {
        let Self { steps, news } = self;
        drop(steps);
        let mut half = Self { steps: mpsc::channel(1).0, news };
        half.ended().await;
    }

    /// Where the worker and all below it stand.
    pub async fn opened(&mut self) -> u32 {
        self.stands().await.positions
    }

    /// The same with all that is told of it.
    pub async fn stands(&mut self) -> Opened {
        match self.next().await.expect("the session opens") {
            FromBelow::Opened(opened) => opened,
            FromBelow::Failed(failure) => panic!("{failure:?}"),
        }
    }

    /// Why the worker ended the session.
    pub async fn failure(&mut self) -> HopFailure {
        soon(self.failed()).await
    }

    /// The same, however long it takes.
    pub async fn failed(&mut self) -> HopFailure {
        loop {
            let news = self.news.message().await.unwrap().expect("the session failed");
            if let FromBelow::Failed(failure) = news.try_into().unwrap() {
                return failure;
            }
        }
    }

    /// Waits until the worker has ended the session without a word.
    pub async fn ended(&mut self) {
        while let Some(news) = self.next().await {
            assert!(matches!(news, FromBelow::Opened(_)), "{news:?}");
        }
    }

    async fn next(&mut self) -> Option<FromBelow> {
        soon(self.news.message()).await.unwrap().map(|news| news.try_into().unwrap())
    }
}

/// A `Collect` call.
pub struct Collecting {
    /// What the worker answered last to an older attempt.
    pub last: Option<(u32, Option<u32>)>,
    answers: Streaming<wire::CollectResponse>,
}

impl Collecting {
    /// The next answer's position, and its token if there is one; nothing at the end.
    pub async fn answer(&mut self) -> Option<(u32, Option<u32>)> {
        match soon(self.answers.message()).await.unwrap()?.message.unwrap() {
            wire::collect_response::Message::Output(output) => Some(told(output)),
            wire::collect_response::Message::Accepted(_) => panic!("accepted twice"),
        }
    }
}

fn told(output: wire::Output) -> (u32, Option<u32>) {
    (output.position, output.tokens.first().map(|sampled| sampled.token))
}

pub fn session_id(number: u32) -> SessionId {
    format!("00000000-0000-4000-8000-{number:012}").parse().unwrap()
}

/// A step to a first hop.
pub fn step(position: u32, tokens: &[u32]) -> wire::Step {
    let kind = wire::StepKind::Prefill.into();
    wire::Step { kind, position, tokens: tokens.to_vec(), samples: 1, ..wire::Step::default() }
}

/// A step to a hop further down.
pub fn step_below(position: u32, rows: u32) -> wire::Step {
    let activations = swarm_proto::activations_to_bytes(&vec![0.5; rows as usize * HIDDEN]);
    wire::Step { rows, activations, ..step(position, &[]) }
}

pub async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(PATIENCE, event).await.expect("it comes in time")
}

const FORWARD: &str = "/swarm.v1.ShardService/Forward";
const CALLS: PeerCalls =
    PeerCalls { sessions: 64, limits: &[MethodLimit { path: FORWARD, first: 1 << 20, later: 16 << 20 }] };

/// A node that asks, and is a hop below when the worker's route goes on.
async fn peer(
    total_shards: u32,
    entry: String,
    below: HopBelow,
    ears: mpsc::Sender<ForwardRequest>,
) -> SwarmNet {
    let config = NetConfig {
        cluster: "test".into(),
        listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()],
        rendezvous: vec![entry],
        total_shards,
        ..NetConfig::default()
    };
    let (net, peers) = SwarmNet::bind(config, Role::Gateway, Identity::ephemeral()).await.unwrap();
    let hop = ShardServiceServer::new(FakeHop { id: net.id().clone(), below, ears });
    let server = peer_server_for(CALLS).add_service(net.peer_service()).add_service(hop);
    tokio::spawn(server.serve_with_incoming(peers));
    net
}

struct FakeHop {
    id: NodeId,
    below: HopBelow,
    ears: mpsc::Sender<ForwardRequest>,
}

#[tonic::async_trait]
impl ShardService for FakeHop {
    type ForwardStream = Pin<Box<dyn Stream<Item = Result<wire::ForwardResponse, Status>> + Send>>;
    type CollectStream = Pin<Box<dyn Stream<Item = Result<wire::CollectResponse, Status>> + Send>>;

    async fn forward(
        &self,
        request: Request<Streaming<ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let refusal = Refusal::new(RefusalCause::Full, "no room");
        let mut failed = wire::HopFailed::from(HopFailure { worker: self.id.clone(), refusal });
        match self.below {
            HopBelow::Full => {}
            HopBelow::Mumbles => failed.worker = "nobody!".into(),
            HopBelow::Accuses => failed.worker = Identity::ephemeral().id().to_string(),
            HopBelow::Silent => std::future::pending().await,
            HopBelow::Listens | HopBelow::Stands(_) => {
                let (ears, mut said) = (self.ears.clone(), request.into_inner());
                tokio::spawn(async move {
                    while let Ok(Some(message)) = said.message().await {
                        ears.send(message).await.unwrap();
                    }
                });
                let opened = match self.below {
                    HopBelow::Stands(positions) => {
                        Some(Ok(FromBelow::Opened(Opened { positions, below: positions, replays: 0 }).into()))
                    }
                    _ => None,
                };
                let told = futures::stream::iter(opened).chain(futures::stream::pending());
                return Ok(Response::new(Box::pin(told)));
            }
        }
        let message = Some(wire::forward_response::Message::Failed(failed));
        let told = wire::ForwardResponse { message };
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(told)]))))
    }

    async fn collect(
        &self,
        _: Request<wire::CollectRequest>,
    ) -> Result<Response<Self::CollectStream>, Status> {
        Err(Status::unimplemented("only hops in the middle are tested"))
    }
}
