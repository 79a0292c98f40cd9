//! What is under way with the origin of one fetch, and when it may be asked.

use std::{sync::Arc, time::Duration};

use model_torrent::{Metainfo, PieceIndex};
use swarm_types::NodeId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
    time::Instant,
};

use crate::{
    metrics::Metrics,
    origin::{Origin, OriginError},
    speed::Speed,
};

/// Peers have so long to be found, before a piece counts as one that no peer has. Those that were found have longer.
const REACHED_AFTER: Duration = Duration::from_secs(2);
/// How fast peers are is known after so long.
const MEASURED_AFTER: Duration = Duration::from_secs(10);
/// Peers that will take longer than this for what is missing are helped.
const LONG: u64 = 30;
/// After the first failure; doubles with each one more.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The origin of one fetch, if it has one.
pub(crate) struct OriginReads {
    /// By which it stands among the peers in the picker: no node has this id, those of nodes are hashes.
    pub(crate) id: NodeId,
    origin: Option<Arc<dyn Origin>>,
    reads: JoinSet<Read>,
    writes: Arc<Semaphore>,
    metainfo: Arc<Metainfo>,
    metrics: Metrics,
    /// Since when peers are being reached.
    pub(crate) reaching: Instant,
    /// Since when something is missing.
    pub(crate) missing: Instant,
    failures: u32,
    not_before: Instant,
    received: u64,
    speed: Speed,
    told: bool,
}

/// What came of one piece, and the right to check and write it.
pub(crate) struct Read {
    pub(crate) piece: PieceIndex,
    pub(crate) result: Result<(Vec<u8>, OwnedSemaphorePermit), OriginError>,
}

impl OriginReads {
    pub(crate) fn new(metainfo: Arc<Metainfo>, writes: Arc<Semaphore>, metrics: Metrics) -> Self {
        let now = Instant::now();
        Self {
            id: "origin".parse().expect("it is base58"),
            origin: None,
            reads: JoinSet::new(),
            writes,
            metainfo,
            metrics,
            reaching: now,
            missing: now,
            failures: 0,
            not_before: now,
            received: 0,
            speed: Speed::default(),
            told: false,
        }
    }

    /// From now on there is one.
    pub(crate) fn begin(&mut self, origin: Arc<dyn Origin>) {
        self.reads.abort_all();
        let now = Instant::now();
        (self.origin, self.failures, self.not_before, self.reaching) = (Some(origin), 0, now, now);
    }

    /// Whether there is one at all.
    pub(crate) fn is_there(&self) -> bool {
        self.origin.is_some()
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        self.origin.as_ref().map(|origin| origin.name()).unwrap_or_default()
    }

    /// Whether it may be asked for pieces that no peer has.
    pub(crate) fn may_fill_gaps(&self, now: Instant) -> bool {
        self.is_there() && self.not_before.max(self.reaching + REACHED_AFTER) <= now
    }

    /// Whether it may be asked for pieces that peers have: they will take long for what is missing.
    pub(crate) fn may_help(&self, missing: u64, bytes_per_second: u64, now: Instant) -> bool {
        let measured = self.missing + MEASURED_AFTER <= now;
        measured && self.may_fill_gaps(now) && missing > bytes_per_second.saturating_mul(LONG)
    }

    /// Whether nothing is under way with it.
    pub(crate) fn is_idle(&self) -> bool {
        self.reads.is_empty()
    }

    /// Asks it for a piece.
    pub(crate) fn read(&mut self, index: PieceIndex) {
        let Some((origin, piece)) = self.origin.clone().zip(self.metainfo.layout().piece(index)) else {
            return;
        };
        if !std::mem::replace(&mut self.told, true) {
            tracing::info!(origin = origin.name(), "pieces that peers lack are read from the origin");
        }
        let writes = self.writes.clone();
        self.reads.spawn(async move {
            let result = match origin.read(piece).await {
                Ok(bytes) => match writes.acquire_owned().await {
                    Ok(permit) => Ok((bytes, permit)),
                    Err(_) => Err(OriginError::Unavailable("the fetch has ended".into())),
                },
                Err(error) => Err(error),
            };
            Read { piece: index, result }
        });
    }

    /// The next piece that came or failed; nothing while none is under way. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Read> {
        loop {
            match self.reads.join_next().await? {
                Ok(read) => {
                    let count = read.result.as_ref().map_or(0, |(bytes, _)| bytes.len() as u64);
                    self.received += count;
                    self.metrics.origin_received.inc_by(count);
                    return Some(read);
                }
                Err(error) => panicked(error),
            }
        }
    }

    /// It gave what it should.
    pub(crate) fn gave(&mut self) {
        self.failures = 0;
    }

    /// It is not asked for a while; what is under way with it ends.
    pub(crate) fn pause(&mut self) {
        let wait = (FIRST_WAIT * 2u32.pow(self.failures.min(16))).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + wait;
        self.stop();
    }

    /// It is not asked again.
    pub(crate) fn give_up(&mut self) {
        self.origin = None;
        self.stop();
    }

    /// What is under way with it ends.
    pub(crate) fn stop(&mut self) {
        self.reads.abort_all();
    }

    /// A second passed.
    pub(crate) fn second(&mut self) {
        self.speed.second(self.received, !self.reads.is_empty());
    }

    /// Bytes a second, over some seconds.
    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.speed.mean().unwrap_or(0.0) as u64
    }
}

/// Who is aborted did nothing wrong.
fn panicked(error: JoinError) {
    if error.is_panic() {
        std::panic::resume_unwind(error.into_panic());
    }
}
