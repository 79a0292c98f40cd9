//! Where a session's time went on this hop, told in its span.

use std::time::Duration;

use swarm_types::{HopTiming, Step};
use tracing::Span;

/// The sum over a session's steps. Recorded in the session's span when it is dropped, however the session ends.
#[derive(Debug)]
pub(crate) struct Spent {
    span: Span,
    queue: Duration,
    compute: Duration,
    send: Duration,
    prefill_rows: usize,
    decode_steps: u64,
    /// A token was sampled, so the prompt is through.
    prefilled: bool,
}

impl Spent {
    /// Nothing yet. The current span is the session's.
    pub(crate) fn new() -> Self {
        Self {
            span: Span::current(),
            queue: Duration::ZERO,
            compute: Duration::ZERO,
            send: Duration::ZERO,
            prefill_rows: 0,
            decode_steps: 0,
            prefilled: false,
        }
    }

    /// A step has passed the engine.
    pub(crate) fn computed(&mut self, step: &Step, timing: HopTiming) {
        self.queue += timing.queue;
        self.compute += timing.compute;
        if self.prefilled {
            self.decode_steps += 1;
        } else {
            self.prefill_rows += step.tokens.len();
            self.prefilled = step.sample;
        }
    }

    /// Its result was handed on. The event tells how far the session was when the prompt was through.
    pub(crate) fn sent(&mut self, took: Duration) {
        self.send += took;
        if self.prefilled && self.decode_steps == 0 {
            let (queue_us, compute_us) = (micros(self.queue), micros(self.compute));
            tracing::info!(
                rows = self.prefill_rows,
                queue_us,
                compute_us,
                send_us = micros(self.send),
                "prompt passed"
            );
        }
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.span
            .record("queue_us", micros(self.queue))
            .record("compute_us", micros(self.compute))
            .record("send_us", micros(self.send))
            .record("prefill_rows", self.prefill_rows)
            .record("decode_steps", self.decode_steps);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
