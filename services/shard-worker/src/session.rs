//! One session on this hop, from its first message to its end.

use std::time::Duration;

use shard_client::{HopSession, HopTrouble};
use shard_engine::{SessionOptions, StepResult};
use swarm_proto::{FromHop, HopFailure, OpenSession, Refusal, RefusalCause, StepMessage, ToHop, wire};
use swarm_types::{Step, WorkerId};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Status, Streaming};

use crate::{
    collectors::Collector, engine_thread::EngineHandle, sessions::Place, shard_service::ShardServer,
};

/// The first message comes right behind the call.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// A gateway that takes no answer for so long is not alive.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The steps that come down to this hop.
pub(crate) type FromAbove = Streaming<wire::ForwardRequest>;
/// Trouble that goes up.
pub(crate) type Above = mpsc::Sender<Result<wire::ForwardResponse, Status>>;

/// Where results go.
enum Below {
    Hop { worker: WorkerId, session: HopSession, trouble: HopTrouble },
    Gateway(Collector),
}

struct Session {
    open: OpenSession,
    engine: EngineHandle,
    below: Below,
    place: Place,
}

/// How a session ended.
enum End {
    /// The caller ended or left it, or a newer attempt took over: nobody wants to hear of it.
    Quiet,
    /// Told up the route.
    Failed(HopFailure),
}

/// Runs the session that a `Forward` call opens, and tells trouble up. The cache is freed when this returns.
pub(crate) async fn serve(server: ShardServer, mut from_above: FromAbove, above: Above) {
    let end = match open(&server, &mut from_above).await {
        Ok(mut session) => {
            let end = session.run(&mut from_above, &above).await;
            session.engine.close(session.open.session.clone(), session.open.attempt).await;
            end
        }
        Err(refusal) => End::Failed(HopFailure { worker: server.id().clone(), refusal }),
    };
    if let End::Failed(failure) = end {
        server.refused(&failure);
        let failed = wire::ForwardResponse { failed: Some(failure.into()) };
        // The caller may be gone, which is an answer too.
        let _ = timeout(COLLECT_TIMEOUT, above.send(Ok(failed))).await;
    }
}

/// Checks the first message and opens the session here and below.
async fn open(server: &ShardServer, from_above: &mut FromAbove) -> Result<Session, Refusal> {
    let invalid = |message: &str| Refusal::new(RefusalCause::InvalidArgument, message);
    let first = match timeout(OPEN_WITHIN, from_above.message()).await {
        Ok(first) => first?.ok_or_else(|| invalid("message: the first must be open, got none"))?,
        Err(_) => return Err(Refusal::new(RefusalCause::Timeout, "the first message did not come in time")),
    };
    let ToHop::Open(open) = ToHop::try_from(first)? else {
        return Err(invalid("message: the first must be open, got a step"));
    };
    let engine = server.admit(&open)?;
    let place = server.sessions().enter(&open.session, open.attempt)?;
    let options = SessionOptions {
        shards: open.hop.shards,
        prompt_tokens: open.prompt_tokens,
        max_positions: open.max_positions,
        sampling: Some(open.sampling.clone()),
    };
    engine.open(open.session.clone(), open.attempt, options).await?;
    let below = match open_below(server, &open).await {
        Ok(below) => below,
        Err(refusal) => {
            engine.close(open.session.clone(), open.attempt).await;
            return Err(refusal);
        }
    };
    Ok(Session { open: *open, engine, below, place })
}

async fn open_below(server: &ShardServer, open: &OpenSession) -> Result<Below, Refusal> {
    let Some((next, rest)) = open.below.split_first() else {
        let collector = server.collectors().take(&open.session, open.attempt);
        let missing = "no gateway collects this session: open Collect first";
        return Ok(Below::Gateway(
            collector.ok_or_else(|| Refusal::new(RefusalCause::UnknownSession, missing))?,
        ));
    };
    let channel = server.channel(&next.worker).await?;
    let open = OpenSession { hop: next.clone(), below: rest.to_vec(), ..open.clone() };
    let (session, trouble) = HopSession::open(channel, open).await?;
    Ok(Below::Hop { worker: next.worker.clone(), session, trouble })
}

impl Session {
    async fn run(&mut self, from_above: &mut FromAbove, above: &Above) -> End {
        loop {
            let message = tokio::select! {
                message = from_above.message() => message,
                () = above.closed() => return End::Quiet,
                () = self.place.superseded.cancelled() => return End::Quiet,
                trouble = self.below.trouble() => return trouble.map_or(End::Quiet, End::Failed),
            };
            let step = match message {
                // The end and the break of the stream free the session alike.
                Ok(None) | Err(_) => return End::Quiet,
                Ok(Some(message)) => match self.step_of(message) {
                    Ok(Some(step)) => step,
                    Ok(None) => continue,
                    Err(refusal) => return self.failed(refusal),
                },
            };
            tokio::select! {
                done = self.pass(step) => if let Err(failure) = done { return failure },
                () = above.closed() => return End::Quiet,
            }
        }
    }

    fn failed(&self, refusal: Refusal) -> End {
        End::Failed(HopFailure { worker: self.open.hop.worker.clone(), refusal })
    }

    /// The step of a message; none when it is of an older attempt.
    fn step_of(&self, message: wire::ForwardRequest) -> Result<Option<Step>, Refusal> {
        match ToHop::try_from(message)? {
            ToHop::Step(StepMessage { attempt, step }) if attempt == self.open.attempt => Ok(Some(step)),
            ToHop::Step(StepMessage { attempt, .. }) if attempt < self.open.attempt => {
                tracing::debug!(%attempt, "dropped a step of an older attempt");
                Ok(None)
            }
            ToHop::Step(StepMessage { attempt, .. }) => {
                let message = format!("attempt: {attempt} is not the session's {}", self.open.attempt);
                Err(Refusal::new(RefusalCause::StaleAttempt, message))
            }
            ToHop::Open(_) => Err(Refusal::new(RefusalCause::InvalidArgument, "message: open came twice")),
        }
    }

    /// Computes a step and hands the result on.
    async fn pass(&mut self, mut step: Step) -> Result<(), End> {
        let (session, attempt) = (self.open.session.clone(), self.open.attempt);
        let (sample, mut timings) = (step.sample, std::mem::take(&mut step.timings));
        let (position, tokens, targets) = (step.position, step.tokens.clone(), step.targets.clone());
        let computed = self.engine.step(session, attempt, step).await;
        let (result, timing) = computed.map_err(|refusal| self.failed(refusal))?;
        timings.push(timing);
        match (result, &self.below) {
            (StepResult::Activations(activations), Below::Hop { worker, session, .. }) => {
                let step = Step { position, tokens, activations, sample, targets, timings };
                session.send(step).await.map_err(|refusal| {
                    End::Failed(HopFailure { worker: worker.clone(), refusal })
                })
            }
            (StepResult::Output(mut output), Below::Gateway(collector)) => {
                output.timings = timings;
                let message = FromHop::Output(output).into_wire(attempt);
                match timeout(COLLECT_TIMEOUT, collector.send(Ok(message))).await {
                    Ok(Ok(())) => Ok(()),
                    // The gateway has left: the session is over.
                    Ok(Err(_)) | Err(_) => Err(End::Quiet),
                }
            }
            _ => {
                let message = "the route does not end with the last shard";
                Err(self.failed(Refusal::new(RefusalCause::Shards, message)))
            }
        }
    }
}

impl Below {
    /// Resolves when the session cannot go on below; `None` when the gateway has just left.
    async fn trouble(&mut self) -> Option<HopFailure> {
        match self {
            Self::Hop { trouble, .. } => Some(trouble.next().await),
            Self::Gateway(collector) => {
                collector.closed().await;
                None
            }
        }
    }
}
