//! The thread that computes: it alone owns the engine, takes all that is waiting, and runs it as one batch.

use std::{collections::HashMap, time::Instant};

use shard_engine::{Engine, EngineError, ModelInfo, SessionOptions, StepResult};
use swarm_proto::{Refusal, RefusalCause};
use swarm_types::{Attempt, HopTiming, SessionId, Step};
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use crate::{metrics::Metrics, queues::Queues};

/// Commands that wait; more make their senders wait.
const COMMANDS_WAITING: usize = 1024;

pub(crate) type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

enum Command {
    Open { session: SessionId, attempt: Attempt, options: SessionOptions, answer: Answer<()> },
    Step(Waiting),
    Close { session: SessionId, attempt: Attempt },
}

/// A step that waits for its turn.
pub(crate) struct Waiting {
    pub session: SessionId,
    pub attempt: Attempt,
    pub step: Step,
    pub since: Instant,
    pub span: Span,
    pub answer: Answer<(StepResult, HopTiming)>,
}

/// Gives work to the engine. Cheap to clone; the thread ends when the last is dropped.
#[derive(Clone)]
pub(crate) struct EngineHandle {
    commands: mpsc::Sender<Command>,
}

impl EngineHandle {
    /// Starts the thread. The receiver resolves when it has ended, which it does early only by an internal error.
    pub(crate) fn start(
        engine: Engine,
        batch_tokens: usize,
        metrics: Metrics,
    ) -> (Self, oneshot::Receiver<()>) {
        let (commands, waiting) = mpsc::channel(COMMANDS_WAITING);
        let (alive, ended) = oneshot::channel::<()>();
        let thread = EngineThread {
            engine,
            commands: waiting,
            attempts: HashMap::new(),
            queues: Queues::new(batch_tokens),
            metrics,
        };
        let run = move || {
            thread.run();
            drop(alive);
        };
        std::thread::Builder::new().name("engine".into()).spawn(run).expect("a process may start a thread");
        (Self { commands }, ended)
    }

    /// Opens a session; an older attempt of it is closed first.
    pub(crate) async fn open(
        &self,
        session: SessionId,
        attempt: Attempt,
        options: SessionOptions,
    ) -> Result<(), Refusal> {
        let (answer, opened) = oneshot::channel();
        self.send(Command::Open { session, attempt, options, answer }).await?;
        opened.await.map_err(|_| gone())?
    }

    /// Runs a step; waits its turn.
    pub(crate) async fn step(
        &self,
        session: SessionId,
        attempt: Attempt,
        step: Step,
    ) -> Result<(StepResult, HopTiming), Refusal> {
        let (answer, computed) = oneshot::channel();
        let (since, span) = (Instant::now(), Span::current());
        self.send(Command::Step(Waiting { session, attempt, step, since, span, answer })).await?;
        computed.await.map_err(|_| gone())?
    }

    /// Ends a session, if this is still its attempt.
    pub(crate) async fn close(&self, session: SessionId, attempt: Attempt) {
        // An engine that is gone has no sessions.
        let _ = self.send(Command::Close { session, attempt }).await;
    }

    async fn send(&self, command: Command) -> Result<(), Refusal> {
        self.commands.send(command).await.map_err(|_| gone())
    }
}

fn gone() -> Refusal {
    Refusal::new(RefusalCause::Internal, "the engine has stopped")
}

struct EngineThread {
    engine: Engine,
    commands: mpsc::Receiver<Command>,
    attempts: HashMap<SessionId, Attempt>,
    queues: Queues,
    metrics: Metrics,
}

impl EngineThread {
    fn run(mut self) {
        loop {
            if self.queues.is_empty() {
                match self.commands.blocking_recv() {
                    Some(command) => self.on_command(command),
                    None => return,
                }
            }
            while let Ok(command) = self.commands.try_recv() {
                self.on_command(command);
            }
            let batch = self.queues.next_batch();
            if !batch.is_empty() {
                self.run_batch(batch);
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Open { session, attempt, options, answer } => {
                let opened = self.open(session, attempt, options);
                let _ = answer.send(opened);
            }
            Command::Close { session, attempt } if self.attempts.get(&session) == Some(&attempt) => {
                self.close(&session);
            }
            Command::Close { .. } => {}
            Command::Step(waiting) => self.queues.push(waiting),
        }
    }

    fn open(&mut self, session: SessionId, attempt: Attempt, options: SessionOptions) -> Result<(), Refusal> {
        if self.attempts.get(&session).is_some_and(|current| *current >= attempt) {
            return Err(Refusal::new(RefusalCause::StaleAttempt, format!("attempt {attempt} is not newer")));
        }
        self.close(&session);
        self.engine.open(session.clone(), options).map_err(refusal)?;
        self.attempts.insert(session, attempt);
        self.report();
        Ok(())
    }

    fn close(&mut self, session: &SessionId) {
        if self.attempts.remove(session).is_some() {
            self.engine.close(session);
            self.report();
        }
    }

    fn report(&self) {
        self.metrics.kv_bytes.set(i64::try_from(self.engine.kv_bytes_used()).unwrap_or(i64::MAX));
    }

    fn run_batch(&mut self, batch: Vec<Waiting>) {
        let started = Instant::now();
        let (mut steps, mut callers) = (vec![], vec![]);
        for waiting in batch {
            if waiting.answer.is_closed() {
                // Its session has ended meanwhile.
                continue;
            }
            if self.attempts.get(&waiting.session) != Some(&waiting.attempt) {
                let message = format!("attempt {} has no session here", waiting.attempt);
                let _ = waiting.answer.send(Err(Refusal::new(RefusalCause::UnknownSession, message)));
                continue;
            }
            callers.push((waiting.answer, waiting.since, waiting.span));
            steps.push((waiting.session, waiting.step));
        }
        let rows: usize = steps.iter().map(|(_, step)| step.tokens.len()).sum();
        let results = self.engine.run(steps);
        let compute = started.elapsed();
        self.metrics.rows.inc_by(rows as u64);
        self.metrics.batch_rows.observe(rows as f64);
        self.metrics.compute_seconds.observe(compute.as_secs_f64());
        for ((answer, since, span), result) in callers.into_iter().zip(results) {
            let queue = started - since;
            self.metrics.queue_seconds.observe(queue.as_secs_f64());
            let timing = HopTiming { queue, compute, batch_rows: u32::try_from(rows).unwrap_or(u32::MAX) };
            span.in_scope(|| tracing::debug!(?queue, ?compute, rows, "step computed"));
            let _ = answer.send(result.map(|result| (result, timing)).map_err(refusal));
        }
    }
}

fn refusal(error: EngineError) -> Refusal {
    let cause = match &error {
        EngineError::Invalid { .. } => RefusalCause::InvalidArgument,
        EngineError::UnknownSession(_) => RefusalCause::UnknownSession,
        EngineError::Full { .. } => RefusalCause::Full,
        EngineError::Model { .. }
        | EngineError::Device { .. }
        | EngineError::NotFinite(_)
        | EngineError::Compute(_) => RefusalCause::Internal,
    };
    Refusal::new(cause, error.to_string())
}

/// Tokens per second of one session through the engine, by a short run of its own.
pub(crate) fn measure_speed(engine: &mut Engine) -> Result<f32, EngineError> {
    const STEPS: u32 = 8;
    let info: ModelInfo = engine.info().clone();
    let session: SessionId = "00000000-0000-4000-8000-000000000000".parse().expect("a UUID of 36 characters");
    let options = SessionOptions {
        shards: info.shards,
        prompt_tokens: 0,
        max_positions: STEPS.min(info.context_length),
        sampling: Some(swarm_types::SamplingParams::greedy()),
    };
    engine.open(session.clone(), options)?;
    let embeds = info.shards.start() == 0;
    let started = Instant::now();
    let mut steps = 0u32;
    for position in 0..STEPS.min(info.context_length) {
        let activations = if embeds { vec![] } else { vec![0.1; info.hidden] };
        let tokens = vec![swarm_types::TokenId(0)];
        let step = Step { position, tokens, activations, sample: true, ..Step::default() };
        for result in engine.run(vec![(session.clone(), step)]) {
            result?;
        }
        steps += 1;
    }
    let elapsed = started.elapsed().as_secs_f32();
    engine.close(&session);
    Ok(if elapsed > 0.0 { steps as f32 / elapsed } else { 0.0 })
}
