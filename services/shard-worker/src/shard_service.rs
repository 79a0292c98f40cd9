//! `ShardService`: `Forward` and `Collect` for authenticated peers, between wire and domain.

use std::{error::Error, pin::Pin};

use futures::{Stream, StreamExt, stream};
use swarm_net::PeerInfo;
use swarm_process::trace;
use swarm_proto::{
    CollectSession, FromBelow, FromHop, Refusal, ToHop,
    wire::{self, shard_service_server::ShardService},
};
use swarm_types::NodeId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{Instrument, Span, field::Empty, info_span};

use crate::{
    caller::Caller,
    host::Host,
    session::{self, Call, FromAbove},
};

/// The name that health checks ask for to know whether sessions can be taken.
pub(crate) const NAME: &str = "swarm.v1.ShardService";
/// At most `opened` and `failed` are ever sent up.
const NEWS_WAITING: usize = 2;

/// The service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ShardServer(pub(crate) Host);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ShardService for ShardServer {
    type ForwardStream = Answers<wire::ForwardResponse>;
    type CollectStream = Answers<wire::CollectResponse>;

    async fn forward(
        &self,
        request: Request<Streaming<wire::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let caller = self.caller(&request, Caller::check_forward)?;
        let span = session_span(self.0.id(), caller.node());
        let trace = trace::Caller::of(request.metadata());
        trace.follow(&span);
        let (above, news) = mpsc::channel(NEWS_WAITING);
        let call = Call { caller, from_above: from_above(request.into_inner()), above };
        // The hop below gets the generation's context, not ours: sessions are siblings in the trace.
        tokio::spawn(trace.pass_on(session::serve(self.0.clone(), call)).instrument(span));
        let answers = ReceiverStream::new(news).map(|news: FromBelow| Ok(news.into()));
        Ok(Response::new(answers.boxed()))
    }

    async fn collect(
        &self,
        request: Request<wire::CollectRequest>,
    ) -> Result<Response<Self::CollectStream>, Status> {
        let caller = self.caller(&request, Caller::check_collect)?;
        let collect = CollectSession::try_from(request.into_inner());
        let collecting =
            collect.and_then(|wish| Ok((wish.attempt, self.0.sessions().collect(wish, caller.node())?)));
        let (attempt, collecting) = collecting.inspect_err(|refusal| self.0.count(refusal))?;
        let accepted = stream::iter([FromHop::Accepted(collecting.last)]);
        let answers = accepted.chain(ReceiverStream::new(collecting.answers).map(FromHop::Output));
        Ok(Response::new(answers.map(move |answer| Ok(answer.into_wire(attempt))).boxed()))
    }
}

impl ShardServer {
    /// Who calls, if they may.
    fn caller<T>(
        &self,
        request: &Request<T>,
        check: fn(&Caller) -> Result<(), Refusal>,
    ) -> Result<Caller, Status> {
        let caller = caller(request)?;
        check(&caller).inspect_err(|refusal| self.0.count(refusal))?;
        Ok(caller)
    }
}

/// What comes down a `Forward` stream.
fn from_above(messages: Streaming<wire::ForwardRequest>) -> Pin<Box<dyn Stream<Item = FromAbove> + Send>> {
    let read = |message: Result<wire::ForwardRequest, Status>| match message {
        Ok(message) => ToHop::try_from(message).map_or_else(FromAbove::Wrong, FromAbove::Message),
        Err(status) => unreadable(&status).map_or(FromAbove::Broken, FromAbove::Wrong),
    };
    messages.map(read).boxed()
}

/// A message that is too large or is none is refused; that the stream broke is no news to its caller.
fn unreadable(status: &Status) -> Option<Refusal> {
    let wrong = match status.code() {
        Code::OutOfRange => true,
        // A stream that was reset has this code too, and says so as the cause.
        Code::Internal => status.source().is_none(),
        _ => false,
    };
    wrong.then(|| Refusal::invalid("message", status.message()))
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let peer = request.extensions().get::<PeerInfo>();
    let peer = peer.ok_or_else(|| Status::unauthenticated("only peers are served"))?;
    Ok(Caller::new(peer.node.clone(), peer.role))
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
