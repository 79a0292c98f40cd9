//! The one table of what this worker knows of sessions: the newest attempt, the gateway that waits for its tokens, the
//! stream that runs, and the slot with its cache.
//!
//! What is stale is decided here and nowhere else ([`Table::begin`]). A slot outlives its stream when that broke: under
//! a lease, bounded in time and number, and in bytes since it counts as used cache, for a newer attempt to take over.
//! The table owns slots but cannot free them: whoever takes one out closes it in the engine.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shard_engine::{Slot, SlotOptions};
use swarm_proto::{CollectSession, OpenSession, Refusal, RefusalCause};
use swarm_types::{Attempt, NodeId, SamplingParams, SessionId, StepOutput, TokenId};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Answers that wait for the network; the gateway has only a few steps under way.
const ANSWERS_WAITING: usize = 16;
/// The gateway opens `Forward` right after `Collect` was accepted.
const FORWARD_WITHIN: Duration = Duration::from_secs(30);

/// Where a session's answers go.
pub(crate) type Answers = mpsc::Sender<StepOutput>;

/// A gateway that waits for a session's tokens, and what it has told the last hop for that.
#[derive(Debug)]
pub(crate) struct Collector {
    pub answers: Answers,
    pub sampling: SamplingParams,
    /// From position 0 on, as far as the last hop has to know them.
    pub tokens: Vec<TokenId>,
}

/// How much the table holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Sessions that run; as many caches may be leased, and twice as many gateways may wait.
    pub sessions: usize,
    /// How long a cache outlives a broken stream.
    pub lease: Duration,
}

/// All sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    table: Arc<Mutex<Table>>,
    running: watch::Sender<usize>,
    leased: watch::Sender<usize>,
    /// Something has to be let go at another time than before.
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Table {
    entries: HashMap<SessionId, Entry>,
    bounds: Bounds,
    draining: bool,
}

/// A session whose gateway waits, whose stream runs, or whose cache is leased.
#[derive(Debug)]
struct Entry {
    /// Whose session it is: who collects its tokens, and who has opened it.
    gateway: NodeId,
    /// The newest that was heard of, by whichever call.
    attempt: Attempt,
    /// `Collect` has come for it.
    collected: bool,
    /// `Forward` has come for it.
    forwarded: bool,
    /// The gateway that waits for `Forward`, and until when.
    collector: Option<(Collector, Instant)>,
    cache: Cache,
}

#[derive(Debug)]
enum Cache {
    Nothing,
    /// By a stream, which the token ends. Its slot is there once the engine has opened it.
    InUse(CancellationToken, Option<Held>),
    Leased(Held, Instant),
}

/// A slot and what it is good for.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Held {
    pub slot: Slot,
    /// Only a session that is used in the same way may take it over.
    pub options: SlotOptions,
    /// The last answer with a token, on the last hop.
    pub last: Option<StepOutput>,
}

/// The two calls that an attempt makes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Collect,
    Forward,
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

impl Sessions {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            table: Arc::new(Mutex::new(Table { entries: HashMap::new(), bounds, draining: false })),
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
        let CollectSession { session, attempt, sampling, mut tokens } = wish;
        let (sender, answers) = mpsc::channel(ANSWERS_WAITING);
        let mut table = self.table();
        table.begin(&session, attempt, gateway, Call::Collect)?;
        let entry = table.entries.entry(session).or_insert_with(|| Entry::new(attempt, gateway));
        let last = match &entry.cache {
            Cache::Leased(held, _) => held.last.clone(),
            Cache::Nothing | Cache::InUse(..) => None,
        };
        if let Some(last) = &last {
            add_answered(&mut tokens, last);
        }
        let collector = Collector { answers: sender, sampling, tokens };
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

/// The gateway gets the tokens of the last answer with this attempt and goes on behind them, so they count as told;
/// even if the cache they came from has to make room before the session's stream is here.
fn add_answered(told: &mut Vec<TokenId>, last: &StepOutput) {
    // The last of them is at the answer's position.
    let first = (last.position as usize + 1).saturating_sub(last.tokens.len());
    if let Some(told_already) = told.len().checked_sub(first) {
        told.extend(last.tokens.iter().skip(told_already).map(|sampled| sampled.token));
    }
}

impl Table {
    /// Whether a call may begin. One of a newer attempt ends the stream of the older and leases its cache; one that is
    /// not newer, or comes a second time, is stale.
    fn begin(
        &mut self,
        session: &SessionId,
        attempt: Attempt,
        gateway: &NodeId,
        call: Call,
    ) -> Result<(), Refusal> {
        self.drop_closed();
        let lease = self.bounds.lease;
        if let Some(entry) = self.entries.get_mut(session) {
            entry.check_owner(gateway)?;
            entry.advance_to(attempt, call, lease)?;
        }
        let known = self.entries.get(session);
        match call {
            Call::Collect if known.is_none() && self.waiting() >= 2 * self.bounds.sessions => {
                Err(Refusal::new(RefusalCause::Full, "too many sessions wait for their first step"))
            }
            Call::Forward if self.counts().0 >= self.bounds.sessions => {
                let message = format!("all {} sessions are taken (--max-sessions)", self.bounds.sessions);
                Err(Refusal::new(RefusalCause::Full, message))
            }
            Call::Collect | Call::Forward => Ok(()),
        }
    }

    /// Forgets gateways that have left.
    fn drop_closed(&mut self) {
        for entry in self.entries.values_mut() {
            if entry.collector.as_ref().is_some_and(|(collector, _)| collector.answers.is_closed()) {
                entry.collector = None;
            }
        }
        self.drop_empty();
    }

    fn drop_empty(&mut self) {
        self.entries.retain(|_, entry| entry.collector.is_some() || !matches!(entry.cache, Cache::Nothing));
    }

    fn waiting(&self) -> usize {
        self.entries.values().filter(|entry| entry.collector.is_some()).count()
    }

    /// Streams that run, and caches that are leased.
    fn counts(&self) -> (usize, usize) {
        let count = |wanted: fn(&Cache) -> bool| self.entries.values().filter(|e| wanted(&e.cache)).count();
        (count(|cache| matches!(cache, Cache::InUse(..))), count(|cache| matches!(cache, Cache::Leased(..))))
    }

    fn leases(&self) -> impl Iterator<Item = (&SessionId, Instant)> {
        self.entries.iter().filter_map(|(session, entry)| match &entry.cache {
            Cache::Leased(_, until) => Some((session, *until)),
            Cache::Nothing | Cache::InUse(..) => None,
        })
    }

    fn evict_oldest(&mut self) -> Option<Slot> {
        let oldest = self.leases().min_by_key(|(_, until)| *until)?.0.clone();
        let entry = self.entries.get_mut(&oldest)?;
        let cache = std::mem::replace(&mut entry.cache, Cache::Nothing);
        self.drop_empty();
        cache.into_held().map(|held| held.slot)
    }

    fn let_go(&mut self, now: Instant) -> Vec<Slot> {
        for entry in self.entries.values_mut() {
            if entry.collector.as_ref().is_some_and(|(_, until)| *until <= now) {
                entry.collector = None;
            }
        }
        let mut slots = vec![];
        while self.leases().any(|(_, until)| until <= now) || self.counts().1 > self.bounds.sessions {
            slots.extend(self.evict_oldest());
        }
        self.drop_empty();
        slots
    }

    /// When something is over next.
    fn next_time(&self) -> Option<Instant> {
        let collectors = self.entries.values().filter_map(|entry| Some(entry.collector.as_ref()?.1));
        collectors.chain(self.leases().map(|(_, until)| until)).min()
    }
}

impl Entry {
    fn new(attempt: Attempt, gateway: &NodeId) -> Self {
        let gateway = gateway.clone();
        Self { gateway, attempt, collected: false, forwarded: false, collector: None, cache: Cache::Nothing }
    }

    /// A session is of one gateway for as long as anything of it is here, whichever call came first.
    fn check_owner(&self, gateway: &NodeId) -> Result<(), Refusal> {
        if self.gateway == *gateway {
            return Ok(());
        }
        let what = format!("the session is another gateway's, not that of {gateway}");
        Err(Refusal::of_field(RefusalCause::PermissionDenied, "gateway", what))
    }

    fn advance_to(&mut self, attempt: Attempt, call: Call, lease: Duration) -> Result<(), Refusal> {
        let came = match call {
            Call::Collect => self.collected,
            Call::Forward => self.forwarded,
        };
        if attempt < self.attempt || (attempt == self.attempt && came) {
            let message = format!("attempt {attempt} is not newer than {}", self.attempt);
            return Err(Refusal::new(RefusalCause::StaleAttempt, message));
        }
        if attempt > self.attempt {
            let cache = std::mem::replace(&mut self.cache, Cache::Nothing).leased(lease);
            *self = Self { cache, ..Self::new(attempt, &self.gateway) };
        }
        Ok(())
    }
}

impl Cache {
    fn into_held(self) -> Option<Held> {
        match self {
            Self::Nothing => None,
            Self::InUse(_, held) => held,
            Self::Leased(held, _) => Some(held),
        }
    }

    /// Not in use any more.
    fn leased(self, lease: Duration) -> Self {
        match self {
            Self::InUse(stream, held) => {
                stream.cancel();
                held.map_or(Self::Nothing, |held| Self::Leased(held, Instant::now() + lease))
            }
            Self::Nothing | Self::Leased(..) => self,
        }
    }
}

impl Place {
    /// Gives the place its slot. False when a newer attempt has taken over meanwhile: then the slot is the caller's.
    pub(crate) fn hold(&self, held: Held) -> bool {
        match self.sessions.table().cache_of(self) {
            Some(Cache::InUse(_, place)) => {
                *place = Some(held);
                true
            }
            _ => false,
        }
    }

    /// Keeps an answer's tokens until the next, in case it is lost on the way.
    pub(crate) fn answers(&self, output: &StepOutput) {
        if let Some(Cache::InUse(_, Some(held))) = self.sessions.table().cache_of(self) {
            let (tokens, timings) = (output.tokens.clone(), output.timings.clone());
            held.last = Some(StepOutput { position: output.position, tokens, scores: vec![], timings });
        }
    }

    /// The session is over, nobody will come back for it. Its slot must be closed already.
    pub(crate) fn end(self) {
        let mut table = self.sessions.table();
        if let Some(cache) = table.cache_of(&self) {
            *cache = Cache::Nothing;
        }
        table.drop_empty();
        self.sessions.told(table);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.sessions.table();
        let lease = table.bounds.lease;
        let Some(cache) = table.cache_of(self) else { return };
        *cache = std::mem::replace(cache, Cache::Nothing).leased(lease);
        table.drop_empty();
        self.sessions.told(table);
    }
}

impl Table {
    /// The cache of the session, if the place's attempt is still the newest.
    fn cache_of(&mut self, place: &Place) -> Option<&mut Cache> {
        let entry = self.entries.get_mut(&place.session)?;
        (entry.attempt == place.attempt).then_some(&mut entry.cache)
    }
}

#[cfg(test)]
mod tests;
