//! One session on this hop, from its first message to its end.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use shard_client::{HopSession, HopTrouble};
use shard_engine::{SessionOptions, StepResult};
use swarm_proto::{FromHop, HopFailure, OpenSession, Refusal, RefusalCause, StepMessage, ToHop, wire};
use swarm_types::{NodeId, Step, StepOutput};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::{Code, Status, Streaming};
use tracing::{Span, field::display};

use crate::{
    collectors::Collector, engine_thread::EngineHandle, sessions::Place, shard_service::ShardServer,
    spent::Spent,
};

/// The first message comes right behind the call.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// A gateway that takes no answer for so long is not alive.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest step and the slowest client take seconds; a session that stands still for so long was forgotten, and
/// its cache is needed.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// When the stream to the hop below ends, what failed there is usually named on the way up a moment later.
const BLAME_GRACE: Duration = Duration::from_millis(200);

/// A `Forward` call.
pub(crate) struct Call {
    /// The gateway, or the hop above.
    pub caller: NodeId,
    /// The steps that come down to this hop.
    pub from_above: Streaming<wire::ForwardRequest>,
    /// Trouble that goes up.
    pub above: mpsc::Sender<Result<wire::ForwardResponse, Status>>,
}

/// Where results go.
enum Below {
    Hop { worker: NodeId, session: HopSession, trouble: Box<HopTrouble> },
    Gateway(Collector),
}

struct Session {
    server: ShardServer,
    caller: NodeId,
    open: OpenSession,
    engine: EngineHandle,
    below: Below,
    spent: Spent,
}

/// How a session ended.
enum End {
    /// The caller ended or left it, or a newer attempt took over: nobody wants to hear of it.
    Quiet,
    /// This hop refused it.
    Refused(HopFailure),
    /// It cannot go on below.
    FailedBelow(HopFailure),
}

/// Runs the session that a `Forward` call opens, and tells trouble up. The cache is freed when this returns.
pub(crate) async fn serve(server: ShardServer, mut call: Call) {
    let failure = match run(&server, &mut call).await {
        End::Quiet => return,
        End::Refused(failure) => {
            server.refused(&failure);
            failure
        }
        End::FailedBelow(failure) => {
            tracing::debug!(worker = %failure.worker, error = %failure.refusal, "a hop below failed");
            failure
        }
    };
    let failed = wire::ForwardResponse { failed: Some(failure.into()) };
    // The caller may be gone, which is an answer too.
    let _ = timeout(COLLECT_TIMEOUT, call.above.send(Ok(failed))).await;
}

async fn run(server: &ShardServer, call: &mut Call) -> End {
    let open = match first_message(&mut call.from_above).await {
        Ok(Some(open)) => open,
        Ok(None) => return End::Quiet,
        Err(refusal) => return refused_by(server, refusal),
    };
    Span::current()
        .record("llama_swarm.session", display(&open.session))
        .record("llama_swarm.attempt", i64::from(open.attempt.0))
        .record("llama_swarm.shards", display(open.hop.shards));
    // Not to be cancelled: what the engine has opened must be closed.
    let (engine, place) = match admit(server, &open).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refused_by(server, refusal),
    };
    let (session, attempt) = (open.session.clone(), open.attempt);
    let steps = drive(server, call.caller.clone(), open, engine.clone(), &mut call.from_above);
    let end = tokio::select! {
        end = steps => end,
        () = call.above.closed() => End::Quiet,
        () = place.superseded.cancelled() => End::Quiet,
    };
    engine.close(session, attempt).await;
    end
}

fn refused_by(server: &ShardServer, refusal: Refusal) -> End {
    End::Refused(HopFailure { worker: server.id().clone(), refusal })
}

/// The first message; none when the caller has left.
async fn first_message(
    from_above: &mut Streaming<wire::ForwardRequest>,
) -> Result<Option<OpenSession>, Refusal> {
    let invalid = |message: &str| Refusal::new(RefusalCause::InvalidArgument, message);
    let first = match timeout(OPEN_WITHIN, from_above.message()).await {
        Ok(Ok(first)) => first.ok_or_else(|| invalid("message: the first must be open, got none"))?,
        Ok(Err(status)) => return unreadable(&status).map_or(Ok(None), Err),
        Err(_) => return Err(Refusal::new(RefusalCause::Timeout, "the first message did not come in time")),
    };
    match ToHop::try_from(first)? {
        ToHop::Open(open) => Ok(Some(*open)),
        ToHop::Step(_) => Err(invalid("message: the first must be open, got a step")),
    }
}

/// A message that is too large or is none is refused; that the stream broke is no news to its caller.
fn unreadable(status: &Status) -> Option<Refusal> {
    let wrong = match status.code() {
        Code::OutOfRange => true,
        // A stream that was reset has this code too, and says so as the cause.
        Code::Internal => status.source().is_none(),
        _ => false,
    };
    wrong.then(|| Refusal::new(RefusalCause::InvalidArgument, format!("message: {}", status.message())))
}

/// Opens the session in the engine.
async fn admit(server: &ShardServer, open: &OpenSession) -> Result<(EngineHandle, Place), Refusal> {
    let engine = server.admit(open)?;
    let place = server.sessions().enter(&open.session, open.attempt)?;
    let options = SessionOptions {
        shards: open.hop.shards,
        prompt_tokens: open.prompt_tokens,
        max_positions: open.max_positions,
        sampling: Some(open.sampling.clone()),
    };
    engine.open(open.session.clone(), open.attempt, options).await?;
    Ok((engine, place))
}

/// Opens the session below and runs its steps.
async fn drive(
    server: &ShardServer,
    caller: NodeId,
    open: OpenSession,
    engine: EngineHandle,
    from_above: &mut Streaming<wire::ForwardRequest>,
) -> End {
    match open_below(server, &open).await {
        Ok(below) => {
            let server = server.clone();
            Session { server, caller, open, engine, below, spent: Spent::new() }.run(from_above).await
        }
        Err(end) => end,
    }
}

async fn open_below(server: &ShardServer, open: &OpenSession) -> Result<Below, End> {
    let Some((next, rest)) = open.below.split_first() else {
        let collector = server.collectors().take(&open.session, open.attempt);
        let missing = "no gateway collects this session: open Collect first";
        let refused = || refused_by(server, Refusal::new(RefusalCause::UnknownSession, missing));
        return collector.map(Below::Gateway).ok_or_else(refused);
    };
    let worker = next.worker.clone();
    let opened = async {
        let channel = server.channel(&worker).await?;
        let open = OpenSession { hop: next.clone(), below: rest.to_vec(), ..open.clone() };
        HopSession::open(channel, open).await
    };
    match opened.await {
        Ok((session, trouble)) => Ok(Below::Hop { worker, session, trouble: Box::new(trouble) }),
        Err(refusal) => Err(End::FailedBelow(HopFailure { worker, refusal })),
    }
}

impl Session {
    async fn run(mut self, from_above: &mut Streaming<wire::ForwardRequest>) -> End {
        loop {
            let message = tokio::select! {
                message = from_above.message() => message,
                trouble = self.below.trouble() => return trouble.map_or(End::Quiet, End::FailedBelow),
                () = sleep(IDLE) => return self.idle(),
            };
            let step = match message {
                Ok(Some(message)) => self.step_of(message),
                // The end and the break of the stream free the session alike.
                Ok(None) => return End::Quiet,
                Err(status) => match unreadable(&status) {
                    Some(refusal) => Err(refusal),
                    None => return End::Quiet,
                },
            };
            let passed = match step {
                Ok(Some(step)) => self.pass(step).await,
                Ok(None) => Ok(()),
                Err(refusal) => Err(self.wrong_step(refusal)),
            };
            if let Err(end) = passed {
                return end;
            }
        }
    }

    fn refused(&self, refusal: Refusal) -> End {
        refused_by(&self.server, refusal)
    }

    fn idle(&self) -> End {
        let message = format!("no step came for {} minutes", IDLE.as_secs() / 60);
        self.refused(Refusal::new(RefusalCause::Timeout, message))
    }

    /// A step is not what it must be. The first hop has refused what a client can get wrong, so further down the
    /// fault is that of the hop above.
    fn wrong_step(&self, refusal: Refusal) -> End {
        if refusal.cause != RefusalCause::InvalidArgument || self.open.hop.shards.start() == 0 {
            return self.refused(refusal);
        }
        let message = format!("does not keep to the protocol: {refusal}");
        let refusal = Refusal::new(RefusalCause::HopFailed, message);
        End::Refused(HopFailure { worker: self.caller.clone(), refusal })
    }

    /// The step of a message; none when it is of an older attempt.
    fn step_of(&self, message: wire::ForwardRequest) -> Result<Option<Step>, Refusal> {
        match ToHop::try_from(message)? {
            ToHop::Step(StepMessage { attempt, step }) if attempt == self.open.attempt => Ok(Some(step)),
            ToHop::Step(StepMessage { attempt, .. }) if attempt < self.open.attempt => {
                tracing::debug!(%attempt, "dropped a step of an older attempt");
                self.server.dropped();
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
        let mut passed = Step {
            position: step.position,
            tokens: step.tokens.clone(),
            activations: vec![],
            sample: step.sample,
            targets: step.targets.clone(),
            timings: std::mem::take(&mut step.timings),
        };
        let computed = self.engine.step(self.open.session.clone(), self.open.attempt, step).await;
        let (result, timing) = computed.map_err(|refusal| self.wrong_step(refusal))?;
        self.spent.computed(&passed, timing);
        passed.timings.push(timing);
        let sending = Instant::now();
        match result {
            StepResult::Activations(activations) => self.send_down(Step { activations, ..passed }).await?,
            StepResult::Output(output) => {
                self.answer(StepOutput { timings: passed.timings, ..output }).await?
            }
        }
        let took = sending.elapsed();
        self.server.sent(took);
        self.spent.sent(took);
        Ok(())
    }

    async fn send_down(&mut self, step: Step) -> Result<(), End> {
        let Below::Hop { worker, session, trouble } = &mut self.below else {
            return Err(self.misplaced());
        };
        let refusal = tokio::select! {
            sent = session.send(step) => match sent {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            },
            failure = trouble.next() => return Err(End::FailedBelow(failure)),
        };
        if refusal.cause == RefusalCause::InvalidArgument {
            // Too large for whichever hop, so it is not that one's fault.
            return Err(self.refused(refusal));
        }
        let named = timeout(BLAME_GRACE, trouble.next()).await;
        let unnamed = |_| HopFailure { worker: worker.clone(), refusal };
        Err(End::FailedBelow(named.unwrap_or_else(unnamed)))
    }

    async fn answer(&self, output: StepOutput) -> Result<(), End> {
        let Below::Gateway(collector) = &self.below else {
            return Err(self.misplaced());
        };
        let message = FromHop::Output(output).into_wire(self.open.attempt);
        match timeout(COLLECT_TIMEOUT, collector.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            // The gateway has left: the session is over.
            Ok(Err(_)) => Err(End::Quiet),
            Err(_) => Err(self.refused(Refusal::new(RefusalCause::Timeout, "the gateway takes no answers"))),
        }
    }

    fn misplaced(&self) -> End {
        self.refused(Refusal::new(RefusalCause::Shards, "the route does not end with the last shard"))
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
