//! The thread that computes: it alone owns the engine, takes all that is waiting, and runs it as one batch.

use std::time::Instant;

use shard_engine::{Engine, EngineError, Slot, SlotOptions};
use swarm_proto::{Refusal, RefusalCause};
use swarm_types::{HopTiming, Step, TokenId};
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use crate::{
    metrics::Metrics,
    queues::{Answer, Computed, Queues, Waiting},
    sessions::Meter,
    stalls::{Pace, Pulse},
};

/// Commands that wait; more make their senders wait.
const COMMANDS_WAITING: usize = 1024;

enum Command {
    Open { options: SlotOptions, tokens: Vec<TokenId>, meter: Meter, answer: Answer<OpenSlot> },
    TakeOver { slot: Slot, tokens: Vec<TokenId>, answer: Answer<OpenSlot> },
    Step(Waiting),
    Close(Slot),
}

/// A slot that is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenSlot {
    pub slot: Slot,
    /// Positions computed.
    pub positions: u32,
}

/// Gives work to the engine. Cheap to clone; the thread ends when the last is dropped.
#[derive(Clone)]
pub(crate) struct EngineHandle {
    commands: mpsc::Sender<Command>,
    pulse: Pulse,
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
        let queues = Queues::new(batch_tokens);
        let pulse = Pulse::default();
        let pace = Pace::new(pulse.clone());
        let thread = EngineThread { engine, commands: waiting, queues, metrics, pace };
        let run = move || {
            thread.run();
            drop(alive);
        };
        std::thread::Builder::new().name("engine".into()).spawn(run).expect("a process may start a thread");
        (Self { commands, pulse }, ended)
    }

    /// Whether the engine computes, and for how long.
    pub(crate) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Opens a slot, if its gateway may have as much cache, and tells it the session's tokens.
    pub(crate) async fn open(
        &self,
        options: SlotOptions,
        tokens: Vec<TokenId>,
        meter: Meter,
    ) -> Result<OpenSlot, Refusal> {
        self.ask(|answer| Command::Open { options, tokens, meter, answer }).await
    }

    /// The same cache under a new key, told the session's tokens again. Steps that wait under the old key are refused.
    pub(crate) async fn take_over(&self, slot: Slot, tokens: Vec<TokenId>) -> Result<OpenSlot, Refusal> {
        self.ask(|answer| Command::TakeOver { slot, tokens, answer }).await
    }

    /// Runs a step; waits its turn.
    pub(crate) async fn step(&self, slot: Slot, step: Step) -> Result<Computed, Refusal> {
        let (since, span) = (Instant::now(), Span::current());
        self.ask(|answer| Command::Step(Waiting { slot, step, since, span, answer })).await
    }

    /// Frees a slot.
    pub(crate) async fn close(&self, slot: Slot) {
        // An engine that is gone has no slots.
        let _ = self.commands.send(Command::Close(slot)).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let _waits = self.pulse.waits();
        self.commands.send(command(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn gone() -> Refusal {
    Refusal::new(RefusalCause::Internal, "the engine has stopped")
}

struct EngineThread {
    engine: Engine,
    commands: mpsc::Receiver<Command>,
    queues: Queues,
    metrics: Metrics,
    pace: Pace,
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
            Command::Open { options, tokens, meter, answer } => {
                let opened = self.open(options, tokens, &meter);
                self.report();
                let _ = answer.send(opened);
            }
            Command::TakeOver { slot, tokens, answer } => {
                let taken = self.engine.take_over(slot);
                let taken =
                    taken.and_then(|(slot, positions)| self.told(OpenSlot { slot, positions }, tokens));
                self.report();
                let _ = answer.send(taken.map_err(refusal));
            }
            Command::Close(slot) => {
                self.engine.close(slot);
                self.report();
            }
            Command::Step(waiting) => self.queues.push(waiting),
        }
        self.pace.goes_on();
    }

    fn open(
        &mut self,
        options: SlotOptions,
        tokens: Vec<TokenId>,
        meter: &Meter,
    ) -> Result<OpenSlot, Refusal> {
        meter.charge(self.engine.cache_bytes(&options).map_err(refusal)?)?;
        let slot = self.engine.open(options).map_err(refusal)?;
        self.told(OpenSlot { slot, positions: 0 }, tokens).map_err(refusal)
    }

    /// A slot that cannot be told its session's tokens is of no use.
    fn told(&mut self, open: OpenSlot, tokens: Vec<TokenId>) -> Result<OpenSlot, EngineError> {
        let told = self.engine.tell(open.slot, tokens);
        if told.is_err() {
            self.engine.close(open.slot);
        }
        told.map(|()| open)
    }

    fn report(&self) {
        self.metrics.kv_bytes.set(i64::try_from(self.engine.kv_bytes_used()).unwrap_or(i64::MAX));
    }

    fn run_batch(&mut self, batch: Vec<Waiting>) {
        let started = Instant::now();
        let (mut steps, mut callers) = (vec![], vec![]);
        for Waiting { slot, step, since, span, answer } in batch {
            // Otherwise its session has ended meanwhile.
            if !answer.is_closed() {
                callers.push((answer, since, span));
                steps.push((slot, step));
            }
        }
        let rows: usize = steps.iter().map(|(_, step)| step.rows()).sum();
        self.pace.begins(rows);
        let results = self.engine.run(&steps);
        let compute = started.elapsed();
        self.pace.ended(rows, compute);
        self.metrics.rows.inc_by(rows as u64);
        self.metrics.batch_rows.observe(rows as f64);
        self.metrics.compute_seconds.observe(compute.as_secs_f64());
        let computed = steps.into_iter().zip(results);
        for ((answer, since, span), ((_, step), result)) in callers.into_iter().zip(computed) {
            let queue = started - since;
            self.metrics.queue_seconds.observe(queue.as_secs_f64());
            let timing = HopTiming { queue, compute, batch_rows: u32::try_from(rows).unwrap_or(u32::MAX) };
            span.in_scope(|| tracing::debug!(?queue, ?compute, rows, "step computed"));
            let _ = answer.send(result.map(|result| Computed { step, result, timing }).map_err(refusal));
        }
    }
}

fn refusal(error: EngineError) -> Refusal {
    let cause = match &error {
        EngineError::Invalid { field, reason } => return Refusal::invalid(field, reason),
        EngineError::Grammar(reason) => return Refusal::of_field(RefusalCause::Grammar, "grammar", reason),
        EngineError::UnknownSlot => RefusalCause::UnknownSession,
        EngineError::Full { .. } => RefusalCause::Full,
        EngineError::Model { .. }
        | EngineError::Device { .. }
        | EngineError::NotFinite(_)
        | EngineError::Compute(_) => RefusalCause::Internal,
    };
    Refusal::new(cause, error.to_string())
}
