//! Fetches as traces show them.

use std::time::Instant;

use swarm_types::ModelDigest;
use torrent_exchange::{Metrics, Progress};
use tracing::{Span, field::Empty, info_span};

use crate::FilesError;

/// One fetch. Its span ends, and tells what came, when this is dropped, also where the fetch was given up.
pub(crate) struct Traced {
    span: Span,
    metrics: Metrics,
    /// Bytes and wrong pieces that had come before.
    before: (u64, u64),
    since: Instant,
}

impl Traced {
    /// Begins now. What a node counts is counted for all its fetches, of which there is one at a time.
    pub(crate) fn begin(model: &str, info_hash: ModelDigest, metrics: &Metrics) -> Self {
        let span = info_span!(
            "fetch",
            otel.status_code = Empty,
            otel.status_description = Empty,
            llama_swarm.model = model,
            llama_swarm.info_hash = %info_hash,
            llama_swarm.bytes_wanted = Empty,
            llama_swarm.bytes_received = Empty,
            llama_swarm.peers = Empty,
            llama_swarm.pieces_wrong = Empty,
            llama_swarm.seconds = Empty,
        );
        let before = (metrics.received.get(), metrics.wrong.get());
        Self { span, metrics: metrics.clone(), before, since: Instant::now() }
    }

    /// What the fetch runs in.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// So much is wanted.
    pub(crate) fn wants(&self, bytes: u64) {
        self.span.record("llama_swarm.bytes_wanted", number(bytes));
    }

    /// How it ended, and how far it had come.
    pub(crate) fn ended<T>(&self, result: &Result<T, FilesError>, progress: Progress) {
        self.span.record("llama_swarm.peers", number(progress.givers as u64));
        if let Err(error) = result {
            self.span.record("otel.status_code", "ERROR");
            self.span.record("otel.status_description", tracing::field::display(error));
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let (received, wrong) = self.before;
        let since = |now: u64, before: u64| number(now.saturating_sub(before));
        self.span.record("llama_swarm.bytes_received", since(self.metrics.received.get(), received));
        self.span.record("llama_swarm.pieces_wrong", since(self.metrics.wrong.get(), wrong));
        self.span.record("llama_swarm.seconds", self.since.elapsed().as_secs_f64());
    }
}

/// Traces have numbers with a sign alone; others are told as texts.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
