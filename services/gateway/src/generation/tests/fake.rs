//! Workers that speak the real protocol on loopback and make up their tokens: the next token is a function of all
//! tokens before it, so a session that was rebuilt wrongly goes on differently.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use swarm_proto::{
    CollectSession, FromBelow, FromHop, HopFailure, OpenSession, Opened, Refusal, RefusalCause, ToHop,
    wire::{
        self,
        shard_service_server::{ShardService, ShardServiceServer},
    },
};
use swarm_types::{
    Attempt, HopTiming, ModelDigest, ModelId, NodeId, Replica, ReplicaState, SampledToken, SessionId, Step,
    StepInput, StepOutput, SwarmStatus, TargetScore, TokenId, TokenLogprob, fixture,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::AbortHandle,
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server},
};

use crate::swarm::{GatewayModel, Swarm};

pub(super) const DIGEST: ModelDigest = ModelDigest([9; 32]);
const CONTEXT: u32 = 400;

/// What goes wrong in an attempt.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Nothing,
    /// A hop is reported as failed instead of the answer that reaches this position.
    HopFails {
        worker: NodeId,
        cause: RefusalCause,
        at: u32,
    },
    /// All streams end without a word at this position, before it is computed.
    Breaks {
        at: u32,
    },
    /// They end when it is computed, and the answer is lost.
    LosesAnswer {
        at: u32,
    },
    /// From this position on there is no answer.
    Silent {
        at: u32,
    },
    /// Answers of an older attempt come in between.
    Stale,
    /// An answer is for another position.
    WrongPosition {
        at: u32,
    },
    /// Answers are held back until this many steps wait for one.
    HoldsBack {
        steps: usize,
    },
    /// The last hop does not take the session.
    Refuses {
        cause: RefusalCause,
        message: &'static str,
    },
}

/// What the fakes saw and have to do.
#[derive(Default)]
struct Script {
    /// One for each attempt, in order; afterwards nothing goes wrong.
    faults: VecDeque<Fault>,
    /// Positions that the hops still have in a later attempt, at most; none: they have forgotten all.
    keep: Option<u32>,
    /// Positions that all hops but the first still have then.
    below: Option<u32>,
    /// What was computed of each session, and the last answer with a token.
    kept: HashMap<SessionId, (Vec<TokenId>, Option<StepOutput>)>,
    opened: Vec<OpenSession>,
    /// What the last hop was told, one for each attempt.
    told: Vec<CollectSession>,
    /// `(position, rows)` of every step.
    steps: Vec<(u32, usize)>,
    most_held_back: usize,
    collectors: HashMap<(SessionId, Attempt), Collector>,
}

/// A gateway that waits for a session's tokens.
struct Collector {
    wish: CollectSession,
    answers: mpsc::Sender<Result<wire::CollectResponse, Status>>,
}

/// A swarm of fakes.
pub(super) struct FakeSwarm {
    shared: Arc<Shared>,
    status: watch::Sender<Arc<SwarmStatus>>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    servers: Vec<AbortHandle>,
}

struct Shared {
    script: Mutex<Script>,
    /// Sessions that a first hop holds open.
    open_sessions: watch::Sender<usize>,
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no test panics with the script")
    }
}

pub(super) fn worker(name: &str) -> NodeId {
    format!("12D3{name}").parse().expect("valid")
}

/// The continuation that the fakes give to a prompt.
pub(super) fn continuation(prompt: &[TokenId], length: usize) -> Vec<TokenId> {
    let mut tokens = prompt.to_vec();
    for _ in 0..length {
        tokens.push(next_token(&tokens));
    }
    tokens.split_off(prompt.len())
}

fn next_token(tokens: &[TokenId]) -> TokenId {
    let mut hasher = DefaultHasher::new();
    tokens.hash(&mut hasher);
    TokenId(1000 + (hasher.finish() % 1000) as u32)
}

/// What the rows of a step add to the sum.
fn pooled(step: &Step) -> f64 {
    (step.position..step.end()).map(|position| f64::from(position) + 1.0).sum()
}

pub(super) fn score(token: TokenId) -> f32 {
    -(token.0 as f32) / 10.0
}

impl FakeSwarm {
    /// Shard i is served by the workers `names[i]`, all loaded.
    pub(super) async fn start(names: &[&[&str]], faults: impl IntoIterator<Item = Fault>) -> Self {
        let script = Script { faults: faults.into_iter().collect(), ..Script::default() };
        let shared = Shared { script: Mutex::new(script), open_sessions: watch::Sender::new(0) };
        let shards: Vec<Vec<_>> = names
            .iter()
            .map(|names| names.iter().map(|name| (worker(name), ReplicaState::Loaded)).collect())
            .collect();
        let mut swarm = Self {
            shared: Arc::new(shared),
            status: watch::Sender::new(Arc::new(status(&shards))),
            addresses: BTreeMap::new(),
            servers: vec![],
        };
        for (worker, _) in shards.into_iter().flatten() {
            if !swarm.addresses.contains_key(&worker) {
                swarm.serve(worker).await;
            }
        }
        swarm
    }

    async fn serve(&mut self, worker: NodeId) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        self.addresses.insert(worker, listener.local_addr().expect("bound"));
        let service = ShardServiceServer::new(FakeHop(self.shared.clone()));
        let server = Server::builder().add_service(service);
        let task = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        self.servers.push(task.abort_handle());
    }

    /// The hops keep their caches when a stream breaks, but no more than so many positions.
    pub(super) fn keep(&self, positions: u32) {
        self.shared.script().keep = Some(positions);
    }

    /// The first hop keeps no more than so many positions, the others so many.
    pub(super) fn keep_below(&self, first: u32, below: u32) {
        self.keep(first);
        self.shared.script().below = Some(below);
    }

    /// Tells the gateway another state of one worker.
    pub(super) fn set_state(&self, name: &str, state: ReplicaState) {
        let worker = worker(name);
        self.status.send_modify(|status| {
            let mut shards = status.shards.clone();
            let replicas = shards.iter_mut().flat_map(|shard| &mut shard.replicas);
            replicas.filter(|replica| replica.worker == worker).for_each(|replica| replica.state = state);
            let (cluster, node) = (status.cluster.clone(), status.node.clone());
            *status =
                Arc::new(SwarmStatus::new(cluster, node, status.admission, shards, status.revision + 1));
        });
    }

    /// The gateway's side of it.
    pub(super) fn swarm(&self) -> Swarm {
        let addresses = self.addresses.clone();
        let connect = move |worker: NodeId| {
            let address = addresses.get(&worker).copied();
            async move {
                let unreachable = || Refusal::new(RefusalCause::HopFailed, "cannot be reached");
                let address = address.ok_or_else(unreachable)?;
                let endpoint = Channel::from_shared(format!("http://{address}")).expect("valid");
                endpoint.connect().await.map_err(|_| unreachable())
            }
            .boxed()
        };
        let cut = Arc::new(fixture::cut(self.status.borrow().total_shards));
        let model = GatewayModel { name: "fake".into(), digest: DIGEST, context_length: CONTEXT, cut };
        Swarm::new(self.status.subscribe(), Arc::new(connect), model)
    }

    pub(super) fn opened(&self) -> Vec<OpenSession> {
        self.shared.script().opened.clone()
    }

    /// What the last hop was told, one for each attempt.
    pub(super) fn told(&self) -> Vec<CollectSession> {
        self.shared.script().told.clone()
    }

    pub(super) fn steps(&self) -> Vec<(u32, usize)> {
        self.shared.script().steps.clone()
    }

    pub(super) fn most_held_back(&self) -> usize {
        self.shared.script().most_held_back
    }

    /// How many sessions a first hop holds open.
    pub(super) fn open_sessions(&self) -> watch::Receiver<usize> {
        self.shared.open_sessions.subscribe()
    }
}

impl Drop for FakeSwarm {
    fn drop(&mut self) {
        self.servers.iter().for_each(AbortHandle::abort);
    }
}

fn status(shards: &[Vec<(NodeId, ReplicaState)>]) -> SwarmStatus {
    let replica = |(worker, state): &(NodeId, ReplicaState)| Replica {
        model: ModelId { digest: DIGEST, ..fixture::model() },
        ..fixture::replica(worker.as_str(), *state)
    };
    fixture::status(shards.iter().map(|replicas| replicas.iter().map(replica).collect()).collect())
}

struct FakeHop(Arc<Shared>);

#[tonic::async_trait]
impl ShardService for FakeHop {
    type ForwardStream = BoxStream<'static, Result<wire::ForwardResponse, Status>>;
    type CollectStream = ReceiverStream<Result<wire::CollectResponse, Status>>;

    async fn collect(
        &self,
        request: Request<wire::CollectRequest>,
    ) -> Result<Response<Self::CollectStream>, Status> {
        let collect = CollectSession::try_from(request.into_inner())?;
        let mut script = self.0.script();
        if let Some(Fault::Refuses { cause, message }) = script.faults.front().cloned() {
            script.faults.pop_front();
            return Err(Refusal::new(cause, message).into());
        }
        let (answers, stream) = mpsc::channel(64);
        let keeps = script.keep.is_some();
        let last = script.kept.get(&collect.session).filter(|_| keeps).and_then(|(_, last)| last.clone());
        let accepted = FromHop::Accepted(last).into_wire(collect.attempt);
        answers.try_send(Ok(accepted)).expect("room for the first");
        script.told.push(collect.clone());
        let key = (collect.session.clone(), collect.attempt);
        script.collectors.insert(key, Collector { wish: collect, answers });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn forward(
        &self,
        request: Request<Streaming<wire::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let mut steps = request.into_inner();
        let first = steps.message().await?.ok_or_else(|| Status::invalid_argument("nothing sent"))?;
        let ToHop::Open(open) = ToHop::try_from(first)? else {
            return Err(Status::invalid_argument("the first message must be open"));
        };
        let mut script = self.0.script();
        script.opened.push((*open).clone());
        let fault = script.faults.pop_front().unwrap_or(Fault::Nothing);
        let collector = script.collectors.remove(&(open.session.clone(), open.attempt));
        let (mut history, _) = script.kept.get(&open.session).cloned().unwrap_or_default();
        history.truncate(script.keep.unwrap_or(0) as usize);
        let positions = history.len() as u32;
        let below = script.below.unwrap_or(positions).max(positions);
        drop(script);
        let Collector { wish, answers } = collector.ok_or_else(|| Status::not_found("nobody collects"))?;
        let (trouble, up) = mpsc::channel(4);
        let opened = Opened { positions, below, replays: 0 };
        let opened = FromBelow::Opened(opened).into();
        trouble.try_send(Ok(opened)).expect("room for the first");
        let shared = self.0.clone();
        shared.open_sessions.send_modify(|open| *open += 1);
        tokio::spawn(async move {
            let session = FakeSession { shared: shared.clone(), open: *open, wish, fault, answers, trouble };
            session.run(history, steps).await;
            shared.open_sessions.send_modify(|open| *open -= 1);
        });
        Ok(Response::new(ReceiverStream::new(up).boxed()))
    }
}

/// All hops of one attempt in one.
struct FakeSession {
    shared: Arc<Shared>,
    open: OpenSession,
    wish: CollectSession,
    fault: Fault,
    answers: mpsc::Sender<Result<wire::CollectResponse, Status>>,
    trouble: mpsc::Sender<Result<wire::ForwardResponse, Status>>,
}

impl FakeSession {
    /// Ends when the gateway ends it, or by its fault.
    async fn run(self, mut history: Vec<TokenId>, mut steps: Streaming<wire::ForwardRequest>) {
        let mut held_back = VecDeque::new();
        while let Ok(Some(message)) = steps.message().await {
            let Ok(ToHop::Step(step)) = ToHop::try_from(message) else { return };
            assert!(step.position as usize <= history.len(), "{step:?} leaves a gap");
            if matches!(self.fault, Fault::Breaks { at } if step.end() >= at) {
                return;
            }
            history.truncate(step.position as usize);
            let StepInput::Tokens(tokens) = &step.input else { return };
            history.extend_from_slice(tokens);
            if step.rebuilds {
                self.shared.script().steps.push((step.position, step.rows()));
                continue;
            }
            let end_of_prompt = step.samples > 0;
            held_back.push_back(self.compute(&step, &history));
            if let Fault::HoldsBack { steps: most } = self.fault
                && !end_of_prompt
            {
                if held_back.len() < most {
                    continue;
                }
                self.look_for_more(&mut steps, held_back.len()).await;
                let Some(oldest) = held_back.pop_front() else { return };
                if self.answer(oldest).await.is_none() {
                    return;
                }
                continue;
            }
            while let Some(oldest) = held_back.pop_front() {
                if self.answer(oldest).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Whether the gateway sends one more although so many wait.
    async fn look_for_more(&self, steps: &mut Streaming<wire::ForwardRequest>, waiting: usize) {
        let more = timeout(Duration::from_millis(50), steps.message()).await.is_ok();
        let mut script = self.shared.script();
        script.most_held_back = script.most_held_back.max(waiting + usize::from(more));
    }

    fn compute(&self, step: &Step, history: &[TokenId]) -> StepOutput {
        let output = self.output(step, history);
        let mut script = self.shared.script();
        script.steps.push((step.position, step.rows()));
        let last = Some(output.clone()).filter(|output| !output.tokens.is_empty());
        script.kept.insert(self.open.session.clone(), (history.to_vec(), last));
        output
    }

    fn output(&self, step: &Step, history: &[TokenId]) -> StepOutput {
        let top = self.wish.sampling.top_logprobs;
        let logprob = |token| TokenLogprob { token, logprob: score(token) };
        let alternatives = || (0..top.unwrap_or(0)).map(|n| logprob(TokenId(n))).collect::<Vec<_>>();
        let sampled = || {
            let token = next_token(history);
            SampledToken { token, logprob: top.map(|_| score(token)), top: alternatives() }
        };
        StepOutput {
            position: step.end(),
            tokens: (0..step.samples).map(|_| sampled()).collect(),
            scores: (0..step.scores)
                .map(|row| TargetScore {
                    target: logprob(self.told(step.position + row + 1)),
                    top: alternatives(),
                })
                .collect(),
            pooled: if step.pools { vec![pooled(step)] } else { vec![] },
            timings: vec![HopTiming::default(); self.open.below.len() + 1],
        }
    }

    /// The token at this position, which only `Collect` tells.
    fn told(&self, position: u32) -> TokenId {
        *self.wish.tokens.get(position as usize).expect("what is to be scored was told")
    }

    /// `None` when the session is over.
    async fn answer(&self, mut output: StepOutput) -> Option<()> {
        let position = output.position;
        match &self.fault {
            Fault::HopFails { worker, cause, at } if position >= *at => {
                let refusal = Refusal::of_field(*cause, "prompt_tokens", "as the test has it");
                let failed = HopFailure { worker: worker.clone(), refusal };
                self.trouble.send(Ok(FromBelow::Failed(failed).into())).await.ok()?;
                return None;
            }
            Fault::LosesAnswer { at } if position >= *at => return None,
            Fault::Silent { at } if position >= *at => return Some(()),
            Fault::WrongPosition { at } if position >= *at => output.position += 1,
            Fault::Stale => {
                let mut stale = output.clone();
                stale.tokens.iter_mut().for_each(|sampled| sampled.token = TokenId(7));
                self.collected(stale, Attempt(self.open.attempt.0 - 1)).await?;
            }
            _ => {}
        }
        self.collected(output, self.open.attempt).await
    }

    async fn collected(&self, output: StepOutput, attempt: Attempt) -> Option<()> {
        self.answers.send(Ok(FromHop::Output(output).into_wire(attempt))).await.ok()
    }
}
