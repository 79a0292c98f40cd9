//! One session on this hop, from its first message to its end.

use std::{
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use shard_client::{HopSession, HopTrouble};
use shard_engine::{Slot, SlotOptions, StepResult};
use swarm_proto::{FromBelow, HopFailure, OpenSession, Opened, Refusal, RefusalCause, ToHop};
use swarm_types::{NodeId, SamplingParams, Step, StepInput, StepOutput};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::{Span, field::display};

use crate::{
    caller::Caller,
    engine_thread::EngineHandle,
    host::{Host, WantedSlot},
    queues::Computed,
    replays::Sent,
    sessions::{Answers, Collector, Entered, Place},
    spent::Spent,
    standing::Standing,
};

/// The first message comes right behind the call.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// A gateway that takes no answer for so long is not alive.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest step and the slowest client take seconds; a session that stands still for so long was forgotten, and
/// its cache is needed.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// A gateway sends the first step right behind the session.
const FIRST_STEP_WITHIN: Duration = Duration::from_secs(30);
/// From the hop above it comes when that one has computed it, which it may do for many sessions before.
const FIRST_STEP_BELOW_WITHIN: Duration = Duration::from_secs(120);
/// When the stream to the hop below ends, what failed there is usually named on the way up a moment later.
const BLAME_GRACE: Duration = Duration::from_millis(200);

/// A `Forward` call.
pub(crate) struct Call {
    /// The gateway, or the hop above.
    pub caller: Caller,
    /// What comes down to this hop.
    pub from_above: Above,
    /// What goes up.
    pub above: mpsc::Sender<FromBelow>,
}

pub(crate) type Above = Pin<Box<dyn Stream<Item = FromAbove> + Send>>;

/// What comes down.
pub(crate) enum FromAbove {
    Message(ToHop),
    /// No message that could be read.
    Wrong(Refusal),
    /// The stream broke.
    Broken,
}

/// Where results go.
enum Below {
    Hop { worker: NodeId, session: HopSession, trouble: Box<HopTrouble> },
    Gateway(Answers),
}

/// What a session has here.
#[derive(Clone, Copy)]
struct Seat<'a> {
    host: &'a Host,
    place: &'a Place,
    engine: &'a EngineHandle,
    slot: Slot,
    /// What went to the hop below.
    sent: &'a Sent,
    /// What the slot had computed when this attempt came.
    positions: u32,
    /// The slot has computed something, now or before: it is worth a lease.
    has_rows: &'a AtomicBool,
}

struct Session<'a> {
    seat: Seat<'a>,
    open: OpenSession,
    above: mpsc::Sender<FromBelow>,
    below: Below,
    standing: Standing,
    /// How long it may stand still now.
    patience: Duration,
    spent: Spent,
}

/// How a session's stream ended.
enum End {
    /// The session is over. What is below is told by whoever gets this.
    Over(Below),
    /// The stream broke, its caller has left or a newer attempt took over: nobody is there to hear of it.
    Broken,
    /// This hop refused it.
    Refused(HopFailure),
    /// It cannot go on below.
    FailedBelow(HopFailure),
}

/// Runs the session that a `Forward` call opens, and tells trouble up. The cache is freed when the session is over or
/// refused; otherwise it is leased.
pub(crate) async fn serve(host: Host, call: Call) {
    let above = call.above.clone();
    let failure = match run(&host, call).await {
        End::Over(Below::Hop { session, trouble, .. }) => return session.end(*trouble).await,
        End::Over(Below::Gateway(_)) | End::Broken => return,
        End::Refused(failure) => {
            host.refused(&failure);
            failure
        }
        End::FailedBelow(failure) => {
            tracing::debug!(worker = %failure.worker, error = %failure.refusal, "a hop below failed");
            failure
        }
    };
    // The caller may be gone, which is an answer too.
    let _ = timeout(COLLECT_TIMEOUT, above.send(FromBelow::Failed(failure))).await;
}

async fn run(host: &Host, mut call: Call) -> End {
    let open = match first_message(&mut call.from_above).await {
        Ok(Some(open)) => open,
        Ok(None) => return End::Broken,
        Err(refusal) => return refused_by(host, refusal),
    };
    Span::current()
        .record("llama_swarm.session", display(&open.session))
        .record("llama_swarm.attempt", i64::from(open.attempt.0))
        .record("llama_swarm.shards", display(open.hop.shards));
    let entered = call.caller.check_open(&open).and_then(|()| {
        let engine = host.admit(&open)?;
        Ok((engine, host.sessions().enter(&open)?))
    });
    let (engine, Entered { place, collector, inherited }) = match entered {
        Ok(entered) => entered,
        Err(refusal) => return refused_by(host, refusal),
    };
    // Only the last hop has something to know besides its steps.
    let collector = collector.filter(|_| open.below.is_empty());
    let (answers, wanted) = match collector {
        Some(Collector { answers, sampling, grammar, tokens }) => {
            (Some(answers), WantedSlot { options: options(&open, Some(sampling)), grammar, tokens })
        }
        None => (None, WantedSlot { options: options(&open, None), grammar: None, tokens: vec![] }),
    };
    // Not to be cancelled: what the engine has opened must be held by the place, or closed.
    let (slot, sent, positions) = match host.slot(&engine, wanted, &place, inherited).await {
        Ok((held, positions)) => (held.slot, held.sent.clone(), place.hold(held).then_some(positions)),
        Err(refusal) => {
            place.end();
            return refused_by(host, refusal);
        }
    };
    let Some(positions) = positions else {
        engine.close(slot).await;
        return End::Broken;
    };
    let has_rows = AtomicBool::new(positions > 0);
    let seat =
        Seat { host, place: &place, engine: &engine, slot, sent: &sent, positions, has_rows: &has_rows };
    let end = pass_steps(seat, call, open, answers).await;
    if matches!(end, End::Over(_) | End::Refused(_)) || !has_rows.load(Ordering::Relaxed) {
        // Closed first, so that whoever gets the place finds the memory free.
        engine.close(slot).await;
        place.end();
    }
    end
}

async fn pass_steps(seat: Seat<'_>, call: Call, open: OpenSession, answers: Option<Answers>) -> End {
    let Call { caller, mut from_above, above } = call;
    let patience = match caller.begins_route(&open) {
        true => FIRST_STEP_WITHIN,
        false => FIRST_STEP_BELOW_WITHIN,
    };
    let steps = async {
        let below = open_below(seat.host, &open, answers).await?;
        let spent = Spent::new();
        let standing = Standing::new(seat.positions);
        let mut session = Session { seat, open, above: above.clone(), below, standing, patience, spent };
        session.steps(&mut from_above).await?;
        Ok(session.below)
    };
    tokio::select! {
        biased; // A step of an attempt that is superseded finds no slot: that is no fault of its caller.
        () = seat.place.superseded.cancelled() => End::Broken,
        ended = steps => ended.map_or_else(|end| end, End::Over),
        () = above.closed() => End::Broken,
    }
}

fn refused_by(host: &Host, refusal: Refusal) -> End {
    End::Refused(HopFailure { worker: host.id().clone(), refusal })
}

/// The first message; none when the caller has left.
async fn first_message(from_above: &mut Above) -> Result<Option<OpenSession>, Refusal> {
    let invalid = |what: &str| Refusal::invalid("message", what);
    match timeout(OPEN_WITHIN, from_above.next()).await {
        Ok(Some(FromAbove::Message(ToHop::Open(open)))) => Ok(Some(*open)),
        Ok(Some(FromAbove::Message(ToHop::Step(_)))) => Err(invalid("the first must be open, got a step")),
        Ok(Some(FromAbove::Message(ToHop::End))) => Err(invalid("the first must be open, got end")),
        Ok(Some(FromAbove::Wrong(refusal))) => Err(refusal),
        Ok(Some(FromAbove::Broken)) => Ok(None),
        Ok(None) => Err(invalid("the first must be open, got none")),
        Err(_) => Err(Refusal::new(RefusalCause::Timeout, "the first message did not come in time")),
    }
}

fn options(open: &OpenSession, sampling: Option<SamplingParams>) -> SlotOptions {
    SlotOptions {
        shards: open.hop.shards,
        prompt_tokens: open.prompt_tokens,
        max_positions: open.max_positions,
        sampling,
        grammar: None,
    }
}

async fn open_below(host: &Host, open: &OpenSession, answers: Option<Answers>) -> Result<Below, End> {
    let Some((next, rest)) = open.below.split_first() else {
        let missing = "no gateway collects this session: open Collect first";
        let refused = || refused_by(host, Refusal::new(RefusalCause::UnknownSession, missing));
        return answers.map(Below::Gateway).ok_or_else(refused);
    };
    let worker = next.worker.clone();
    let opened = async {
        let channel = host.channel(&worker).await?;
        let open = OpenSession { hop: next.clone(), below: rest.to_vec(), ..open.clone() };
        HopSession::open(channel, open).await
    };
    match opened.await {
        Ok((session, trouble)) => Ok(Below::Hop { worker, session, trouble: Box::new(trouble) }),
        Err(refusal) => Err(End::FailedBelow(HopFailure { worker, refusal })),
    }
}

impl Session<'_> {
    /// Passes steps until the caller says that the session is over.
    async fn steps(&mut self, from_above: &mut Above) -> Result<(), End> {
        if let Below::Gateway(_) = self.below {
            tell_opened(&self.above, self.standing.of_the_last()).await?;
        }
        let mut last = Instant::now();
        loop {
            let still = self.patience.saturating_sub(last.elapsed());
            let message = tokio::select! {
                biased; // That the session is over matters more than who left after it.
                message = from_above.next() => message,
                news = self.below.news() => {
                    self.opened_below(news?).await?;
                    continue;
                }
                () = sleep(still) => return Err(self.idle()),
            };
            let refused = match message {
                Some(FromAbove::Message(ToHop::Step(step))) => {
                    self.pass(step).await?;
                    (last, self.patience) = (Instant::now(), IDLE);
                    continue;
                }
                Some(FromAbove::Message(ToHop::End)) => return Ok(()),
                None | Some(FromAbove::Broken) => return Err(End::Broken),
                Some(FromAbove::Message(ToHop::Open(_))) => Refusal::invalid("message", "open came twice"),
                Some(FromAbove::Wrong(refusal)) => refusal,
            };
            return Err(self.wrong_step(refused));
        }
    }

    fn refused(&self, refusal: Refusal) -> End {
        refused_by(self.seat.host, refusal)
    }

    fn idle(&self) -> End {
        let message = format!("no step came for {} s", self.patience.as_secs());
        self.refused(Refusal::new(RefusalCause::Timeout, message))
    }

    /// A step is not what it must be. The first hop has refused what a client can get wrong, so further down either the
    /// hop above is broken or this one. Which of them nobody can tell, so none is named but the one that says so; the
    /// gateway knows the route.
    fn wrong_step(&self, refusal: Refusal) -> End {
        if refusal.cause != RefusalCause::InvalidArgument || self.open.hop.shards.start() == 0 {
            return self.refused(refusal);
        }
        let message = format!("the hop above does not keep to the protocol: {refusal}");
        self.refused(Refusal { cause: RefusalCause::WrongStep, message, ..refusal })
    }

    /// Computes a step and hands the result on.
    async fn pass(&mut self, step: Step) -> Result<(), End> {
        let computed = self.seat.engine.step(self.seat.slot, step).await;
        let Computed { mut step, result, timing } = computed.map_err(|refusal| self.wrong_step(refusal))?;
        self.seat.has_rows.store(true, Ordering::Relaxed);
        self.spent.computed(&step, timing);
        step.timings.push(timing);
        let sending = Instant::now();
        match result {
            StepResult::Activations(values) => {
                let rows = u32::try_from(step.rows()).unwrap_or(u32::MAX);
                self.seat.sent.keep(step.position, rows, &values);
                let passed = Step { input: StepInput::Activations { rows, values }, ..step };
                if let Some(passed) = self.standing.hands_on(passed) {
                    self.send_down(passed).await?;
                }
            }
            StepResult::Output(_) if step.rebuilds => {}
            StepResult::Output(output) => self.answer(StepOutput { timings: step.timings, ..output }).await?,
        }
        let took = sending.elapsed();
        self.seat.host.sent(took);
        self.spent.sent(took);
        Ok(())
    }

    /// All hops below have the session: says so further up, and sends down again what they have lost.
    async fn opened_below(&mut self, below: Opened) -> Result<(), End> {
        let (told, mut again) = self.standing.opened(below, self.seat.sent);
        tell_opened(&self.above, told).await?;
        while !again.is_empty() {
            let lost =
                || Refusal::new(RefusalCause::HopFailed, "what was sent below had to make room meanwhile");
            let step = self.seat.sent.again(again.clone()).ok_or_else(|| self.refused(lost()))?;
            again.start = step.end();
            self.seat.host.replayed(step.rows());
            self.send_down(step).await?;
        }
        Ok(())
    }

    async fn send_down(&mut self, step: Step) -> Result<(), End> {
        let Below::Hop { worker, session, trouble } = &mut self.below else {
            return Err(self.misplaced());
        };
        let mut sending = pin!(session.send(step));
        let refusal = loop {
            tokio::select! {
                sent = &mut sending => match sent {
                    Ok(()) => return Ok(()),
                    Err(refusal) => break refusal,
                },
                news = trouble.next() => match news {
                    FromBelow::Opened(opened) => {
                        // Steps were sent before it came, so nothing is sent again.
                        let (told, _) = self.standing.opened(opened, self.seat.sent);
                        tell_opened(&self.above, told).await?;
                    }
                    FromBelow::Failed(failure) => return Err(End::FailedBelow(failure)),
                },
            }
        };
        if refusal.cause == RefusalCause::InvalidArgument {
            // Too large for whichever hop, so it is not that one's fault.
            return Err(refused_by(self.seat.host, refusal));
        }
        let named = timeout(BLAME_GRACE, trouble.failure()).await;
        let unnamed = |_| HopFailure { worker: worker.clone(), refusal };
        Err(End::FailedBelow(named.unwrap_or_else(unnamed)))
    }

    async fn answer(&self, output: StepOutput) -> Result<(), End> {
        let Below::Gateway(answers) = &self.below else {
            return Err(self.misplaced());
        };
        if !output.tokens.is_empty() {
            self.seat.place.answers(&output);
        }
        match timeout(COLLECT_TIMEOUT, answers.send(output)).await {
            Ok(Ok(())) => Ok(()),
            // The gateway has left, or lost its connection.
            Ok(Err(_)) => Err(End::Broken),
            Err(_) => Err(self.refused(Refusal::new(RefusalCause::Timeout, "the gateway takes no answers"))),
        }
    }

    fn misplaced(&self) -> End {
        self.refused(Refusal::new(RefusalCause::Shards, "the route does not end with the last shard"))
    }
}

/// Tells the caller where the session stands, from this hop down.
async fn tell_opened(above: &mpsc::Sender<FromBelow>, opened: Opened) -> Result<(), End> {
    above.send(FromBelow::Opened(opened)).await.map_err(|_| End::Broken)
}

impl Below {
    /// Resolves when all hops below have the session, with where they stand, and when it cannot go on
    /// below: there a hop has failed, or the gateway has just left.
    async fn news(&mut self) -> Result<Opened, End> {
        match self {
            Self::Hop { trouble, .. } => match trouble.next().await {
                FromBelow::Opened(opened) => Ok(opened),
                FromBelow::Failed(failure) => Err(End::FailedBelow(failure)),
            },
            Self::Gateway(answers) => {
                answers.closed().await;
                Err(End::Broken)
            }
        }
    }
}
