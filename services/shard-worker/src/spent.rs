//! Where a session's time went on this hop, told in its span and in those of its two phases.

use std::time::Duration;

use swarm_process::trace::milliseconds;
use swarm_types::{HopTiming, Step, StepKind};
use tracing::{Span, field::Empty, info_span};

/// Sums of a session's steps, told in the session's span when this is dropped, however the session ends.
#[derive(Debug)]
pub(crate) struct Spent {
    session: Span,
    sums: Sums,
    phase: Phase,
    /// The step that was just computed is the prompt's last: the one that samples.
    prompt_ends: bool,
    decoding: bool,
}

/// The prompt, or the tokens after it: a span of its own, which tells its part.
#[derive(Debug)]
struct Phase {
    span: Span,
    sums: Sums,
}

#[derive(Clone, Copy, Default, Debug)]
struct Sums {
    queue: Duration,
    compute: Duration,
    /// Handing results to the network, which takes time when the next hop has enough of them.
    send: Duration,
    /// With a sign, as `rows`: the layer that makes traces takes other numbers for texts.
    steps: i64,
    rows: i64,
}

impl Spent {
    /// Nothing yet. The current span is the session's.
    pub(crate) fn new() -> Self {
        let session = Span::current();
        let phase = Phase::new(&session, "prefill");
        Self { session, sums: Sums::default(), phase, prompt_ends: false, decoding: false }
    }

    /// A step has passed the engine.
    pub(crate) fn computed(&mut self, step: &Step, timing: HopTiming) {
        if step.kind == StepKind::Decode {
            self.decode();
        }
        for sums in [&mut self.sums, &mut self.phase.sums] {
            sums.queue += timing.queue;
            sums.compute += timing.compute;
            sums.steps += 1;
            sums.rows += step.rows() as i64;
        }
        self.prompt_ends = step.kind == StepKind::Prefill && step.samples > 0;
    }

    /// Its result was handed on.
    pub(crate) fn sent(&mut self, took: Duration) {
        for sums in [&mut self.sums, &mut self.phase.sums] {
            sums.send += took;
        }
        if self.prompt_ends {
            let Sums { queue, compute, send, rows, .. } = self.sums;
            tracing::debug!(rows, ?queue, ?compute, ?send, "prompt passed");
            self.decode();
        }
    }

    fn decode(&mut self) {
        if !self.decoding {
            self.decoding = true;
            self.phase = Phase::new(&self.session, "decode");
        }
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.sums.record(&self.session);
    }
}

impl Phase {
    fn new(session: &Span, name: &'static str) -> Self {
        let span = info_span!(
            parent: session,
            "phase",
            otel.name = name,
            llama_swarm.queue_ms = Empty,
            llama_swarm.compute_ms = Empty,
            llama_swarm.send_ms = Empty,
            llama_swarm.steps = Empty,
            llama_swarm.rows = Empty,
        );
        Self { span, sums: Sums::default() }
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        self.sums.record(&self.span);
    }
}

impl Sums {
    fn record(&self, span: &Span) {
        span.record("llama_swarm.queue_ms", milliseconds(self.queue))
            .record("llama_swarm.compute_ms", milliseconds(self.compute))
            .record("llama_swarm.send_ms", milliseconds(self.send))
            .record("llama_swarm.steps", self.steps)
            .record("llama_swarm.rows", self.rows);
    }
}
