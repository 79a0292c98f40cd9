//! The one table of what this worker knows of sessions: the newest attempt, the gateway that waits for its tokens, the
//! stream that runs, and the slot with its cache.
//!
//! What is stale is decided here and nowhere else (`table.rs`). A slot outlives its stream when that broke: under
//! a lease, bounded in time and number, and in bytes since it counts as used cache, for a newer attempt to take over.
//! The table owns slots but cannot free them: whoever takes one out closes it in the engine.

mod table;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shard_engine::Slot;
use swarm_proto::{CollectSession, OpenSession, Refusal, RefusalCause};
use swarm_types::{Attempt, NodeId, SessionId, StepOutput};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub(crate) use table::{Answers, Bounds, Collector, Held};
use table::{Cache, Call, Entry, Table, add_answered, tokens_worth};

/// Answers that wait for the network; the gateway has only a few steps under way.
const ANSWERS_WAITING: usize = 16;
/// The gateway opens `Forward` right after `Collect` was accepted.
const FORWARD_WITHIN: Duration = Duration::from_secs(30);

/// All sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    table: Arc<Mutex<Table>>,
    running: watch::Sender<usize>,
    leased: watch::Sender<usize>,
    /// Something has to be let go at another time than before.
    changed: Arc<Notify>,
}

/// What a gateway that collects is given.
#[derive(Debug)]
pub(crate) struct Collecting {
    pub answers: mpsc::Receiver<StepOutput>,
    /// The last answer of an older attempt.
    pub last: Option<StepOutput>,
}

/// What a stream that enters is given.
#[derive(Debug)]
pub(crate) struct Entered {
    pub place: Place,
    /// The gateway that waits for the session's tokens here.
    pub collector: Option<Collector>,
    /// The cache of an older attempt. It is the place's again once it is held.
    pub inherited: Option<Held>,
}

/// A stream's place. When it is dropped without [`Place::end`], the cache is leased.
#[derive(Debug)]
pub(crate) struct Place {
    sessions: Sessions,
    session: SessionId,
    attempt: Attempt,
    /// Cancelled when a newer attempt takes over.
    pub superseded: CancellationToken,
}

/// Charges a place's cache to its gateway.
#[derive(Debug)]
pub(crate) struct Meter {
    sessions: Sessions,
    session: SessionId,
}

impl Sessions {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            table: Arc::new(Mutex::new(Table::new(bounds))),
            running: watch::Sender::new(0),
            leased: watch::Sender::new(0),
            changed: Arc::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many streams run, now and on every change.
    pub(crate) fn running(&self) -> watch::Receiver<usize> {
        self.running.subscribe()
    }

    /// How many caches are leased, now and on every change.
    pub(crate) fn leased(&self) -> watch::Receiver<usize> {
        self.leased.subscribe()
    }

    /// From now on new streams are refused.
    pub(crate) fn drain(&self) {
        self.table().draining = true;
    }

    /// Notes a gateway; forgotten when its session does not come in time.
    pub(crate) fn collect(&self, wish: CollectSession, gateway: &NodeId) -> Result<Collecting, Refusal> {
        let CollectSession { session, attempt, sampling, grammar, mut tokens } = wish;
        let (sender, answers) = mpsc::channel(ANSWERS_WAITING);
        let mut table = self.table();
        table.begin(&session, attempt, gateway, Call::Collect)?;
        let held = tokens.len() as u64 + tokens_worth(grammar.as_ref());
        table.check_waiting(&session, gateway, held)?;
        let entry = table.entries.entry(session).or_insert_with(|| Entry::new(attempt, gateway));
        let last = match &entry.cache {
            Cache::Leased(held, _) => held.last.clone(),
            Cache::Nothing | Cache::InUse(..) => None,
        };
        if let Some(last) = &last {
            add_answered(&mut tokens, last);
        }
        let collector = Collector { answers: sender, sampling, grammar, tokens };
        entry.collected = true;
        entry.collector = Some((collector, Instant::now() + FORWARD_WITHIN));
        self.told(table);
        Ok(Collecting { answers, last })
    }

    /// A place for a stream, taking over from an older attempt of its session.
    pub(crate) fn enter(&self, open: &OpenSession) -> Result<Entered, Refusal> {
        let OpenSession { session, attempt, gateway, .. } = open;
        let superseded = CancellationToken::new();
        let mut table = self.table();
        if table.draining {
            return Err(Refusal::new(RefusalCause::NotReady, "the worker is draining: use another replica"));
        }
        table.begin(session, *attempt, gateway, Call::Forward)?;
        table.check_place(gateway)?;
        let entry = table.entries.entry(session.clone()).or_insert_with(|| Entry::new(*attempt, gateway));
        entry.forwarded = true;
        let collector = entry.collector.take().map(|(collector, _)| collector);
        let cache = std::mem::replace(&mut entry.cache, Cache::InUse(superseded.clone(), None));
        self.told(table);
        let place = Place { sessions: self.clone(), session: session.clone(), attempt: *attempt, superseded };
        Ok(Entered { place, collector, inherited: cache.into_held() })
    }

    /// The leased cache that was left first, taken out because its memory is wanted.
    pub(crate) fn evict(&self) -> Option<Slot> {
        let mut table = self.table();
        let slot = table.evict_oldest();
        self.count(table);
        slot
    }

    /// Lets go what is over its time or its bounds: slots to close, and when to look again. Gateways that waited in
    /// vain are let go by the way.
    pub(crate) fn let_go(&self, now: Instant) -> (Vec<Slot>, Option<Instant>) {
        let mut table = self.table();
        let slots = table.let_go(now);
        let next = table.next_time();
        self.count(table);
        (slots, next)
    }

    /// Resolves when [`Self::let_go`] is wanted earlier than it said.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Something may have to be let go earlier than was known.
    fn told(&self, table: MutexGuard<'_, Table>) {
        self.count(table);
        self.changed.notify_one();
    }

    /// Tells how many there are, before others change the table.
    fn count(&self, table: MutexGuard<'_, Table>) {
        let (running, leased) = table.counts();
        let set = |count: usize| move |now: &mut usize| std::mem::replace(now, count) != count;
        self.running.send_if_modified(set(running));
        self.leased.send_if_modified(set(leased));
        drop(table);
    }
}

impl Place {
    /// By which the place's cache is charged.
    pub(crate) fn meter(&self) -> Meter {
        Meter { sessions: self.sessions.clone(), session: self.session.clone() }
    }

    /// Gives the place its slot. False when a newer attempt has taken over meanwhile: then the slot is the caller's.
    pub(crate) fn hold(&self, held: Held) -> bool {
        match self.sessions.table().cache_of(&self.session, self.attempt) {
            Some(Cache::InUse(_, place)) => {
                *place = Some(held);
                true
            }
            _ => false,
        }
    }

    /// Keeps an answer's tokens until the next, in case it is lost on the way.
    pub(crate) fn answers(&self, output: &StepOutput) {
        if let Some(Cache::InUse(_, Some(held))) = self.sessions.table().cache_of(&self.session, self.attempt)
        {
            let (tokens, timings) = (output.tokens.clone(), output.timings.clone());
            held.last = Some(StepOutput { position: output.position, tokens, scores: vec![], timings });
        }
    }

    /// The session is over, nobody will come back for it. Its slot must be closed already.
    pub(crate) fn end(self) {
        let mut table = self.sessions.table();
        if let Some(cache) = table.cache_of(&self.session, self.attempt) {
            *cache = Cache::Nothing;
        }
        table.drop_empty();
        self.sessions.told(table);
    }
}

impl Meter {
    /// For the bytes that the session's cache sets aside, if its gateway may have as many.
    pub(crate) fn charge(&self, bytes: u64) -> Result<(), Refusal> {
        self.sessions.table().charge(&self.session, bytes)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.sessions.table();
        let lease = table.bounds.lease;
        let Some(cache) = table.cache_of(&self.session, self.attempt) else { return };
        *cache = std::mem::replace(cache, Cache::Nothing).leased(lease);
        table.drop_empty();
        self.sessions.told(table);
    }
}

#[cfg(test)]
mod tests;
