//! `ShardService`: `Forward` and `Collect` for authenticated peers.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use swarm_net::{PeerInfo, SwarmNet};
use swarm_process::trace;
use swarm_proto::{
    CollectSession, FromHop, HopFailure, OpenSession, Refusal, RefusalCause,
    wire::{self, shard_service_server::ShardService},
};
use swarm_types::{ModelDigest, NodeId, Precision, ShardRange};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::Channel};
use tracing::{Instrument, Span, field::Empty, info_span};

use crate::{
    collectors::{Collectors, FORWARD_WITHIN},
    engine_thread::EngineHandle,
    metrics::Metrics,
    session::{self, Call},
    sessions::Sessions,
};

/// What sessions must fit.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub shards: ShardRange,
    pub total_shards: u32,
    pub digest: ModelDigest,
    pub precision: Precision,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ShardServer(Arc<Inner>);

struct Inner {
    net: SwarmNet,
    served: Served,
    /// There once the layers are loaded.
    engine: watch::Receiver<Option<EngineHandle>>,
    sessions: Sessions,
    collectors: Collectors,
    metrics: Metrics,
}

impl ShardServer {
    pub(crate) fn new(
        net: SwarmNet,
        served: Served,
        engine: watch::Receiver<Option<EngineHandle>>,
        sessions: Sessions,
        metrics: Metrics,
        max_sessions: usize,
    ) -> Self {
        // As many again may be waiting for their first step.
        let collectors = Collectors::new(2 * max_sessions, FORWARD_WITHIN);
        Self(Arc::new(Inner { net, served, engine, sessions, collectors, metrics }))
    }

    pub(crate) fn id(&self) -> &NodeId {
        self.0.net.id()
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    pub(crate) fn collectors(&self) -> &Collectors {
        &self.0.collectors
    }

    pub(crate) async fn channel(&self, worker: &NodeId) -> Result<Channel, Refusal> {
        let channel = self.0.net.channel(worker).await;
        channel.map_err(|error| Refusal::new(RefusalCause::HopFailed, error.to_string()))
    }

    /// A step's result was handed on.
    pub(crate) fn sent(&self, took: Duration) {
        self.0.metrics.send_seconds.observe(took.as_secs_f64());
    }

    /// Counts a failure that began here; those of hops below are counted there.
    pub(crate) fn refused(&self, failure: &HopFailure) {
        let HopFailure { worker, refusal } = failure;
        self.0.metrics.refused(refusal.cause);
        Span::current()
            .record("otel.status_code", "ERROR")
            .record("otel.status_description", refusal.message.as_str())
            .record("error.type", refusal.cause.as_str());
        tracing::warn!(%worker, cause = %refusal.cause, error = %refusal, "session refused");
    }

    /// Counts a step of an older attempt, which is not answered.
    pub(crate) fn dropped(&self) {
        self.0.metrics.refused(RefusalCause::StaleAttempt);
    }

    /// The engine, if the session fits what is served here.
    pub(crate) fn admit(&self, open: &OpenSession) -> Result<EngineHandle, Refusal> {
        let Served { shards, total_shards, digest, precision } = &self.0.served;
        if open.hop.worker != *self.id() {
            let message = format!("hops: this is worker {}, not {}", self.id(), open.hop.worker);
            return Err(Refusal::new(RefusalCause::InvalidArgument, message));
        }
        if open.model_digest != *digest || open.precision != *precision {
            let message = format!(
                "model: this worker serves {digest} in {precision}, the session needs {} in {}",
                open.model_digest, open.precision
            );
            return Err(Refusal::new(RefusalCause::Model, message));
        }
        if open.total_shards != *total_shards || !shards.contains(open.hop.shards) {
            let message = format!(
                "hops: this worker serves shards {shards} of {total_shards}, the session needs {} of {}",
                open.hop.shards, open.total_shards
            );
            return Err(Refusal::new(RefusalCause::Shards, message));
        }
        let engine = self.0.engine.borrow().clone();
        engine.ok_or_else(|| Refusal::new(RefusalCause::NotReady, "the shard is still loading"))
    }
}

#[tonic::async_trait]
impl ShardService for ShardServer {
    type ForwardStream = ReceiverStream<Result<wire::ForwardResponse, Status>>;
    type CollectStream = Pin<Box<dyn Stream<Item = Result<wire::CollectResponse, Status>> + Send>>;

    async fn forward(
        &self,
        request: Request<Streaming<wire::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let caller = caller(&request)?;
        let span = session_span(self.id(), &caller);
        let trace = trace::Caller::of(request.metadata());
        trace.follow(&span);
        // One message at most is ever sent up.
        let (above, trouble) = mpsc::channel(1);
        let call = Call { caller, from_above: request.into_inner(), above };
        // The hop below gets the generation's context, not ours: sessions are siblings in the trace.
        tokio::spawn(trace.pass_on(session::serve(self.clone(), call)).instrument(span));
        Ok(Response::new(ReceiverStream::new(trouble)))
    }

    async fn collect(
        &self,
        request: Request<wire::CollectRequest>,
    ) -> Result<Response<Self::CollectStream>, Status> {
        let collect = CollectSession::try_from(request.into_inner());
        let added = collect.and_then(|collect| {
            let attempt = collect.attempt;
            Ok((attempt, self.collectors().add(collect)?))
        });
        let (attempt, (collector, answers)) =
            added.inspect_err(|refusal| self.0.metrics.refused(refusal.cause))?;
        let accepted = collector.try_send(Ok(FromHop::Accepted.into_wire(attempt)));
        accepted.map_err(|_| Status::internal("a new channel is full"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

fn caller<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let peer = request.extensions().get::<PeerInfo>().map(|peer| peer.0.clone());
    peer.ok_or_else(|| Status::unauthenticated("only peers are served"))
}

/// The session's part of the trace. What is not known yet is recorded when it is.
fn session_span(worker: &NodeId, caller: &NodeId) -> Span {
    info_span!(
        "session",
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
        error.type = Empty,
        rpc.system = "grpc",
        rpc.service = "swarm.v1.ShardService",
        rpc.method = "Forward",
        llama_swarm.worker = %worker,
        llama_swarm.caller = %caller,
        llama_swarm.session = Empty,
        llama_swarm.attempt = Empty,
        llama_swarm.shards = Empty,
        llama_swarm.queue_ms = Empty,
        llama_swarm.compute_ms = Empty,
        llama_swarm.send_ms = Empty,
        llama_swarm.steps = Empty,
        llama_swarm.rows = Empty,
    )
}
