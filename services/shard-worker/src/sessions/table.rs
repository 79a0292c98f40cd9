//! What is known of each session, and what gateways may have of it. Decides; tells nobody.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use shard_engine::{Slot, SlotOptions};
use swarm_proto::{Refusal, RefusalCause};
use swarm_types::{Attempt, Grammar, NodeId, SamplingParams, SessionId, StepOutput, TokenId};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    replays::Sent,
    shares::{Pool, Wish},
};

/// Tokens that gateways have told and that wait for their sessions: as many as 64 sessions of 65,536 positions have.
/// They wait for milliseconds.
pub(super) const TOKENS_WAITING: u64 = 4 << 20;

/// Where a session's answers go.
pub(crate) type Answers = mpsc::Sender<StepOutput>;

/// A gateway that waits for a session's tokens, and what it has told the last hop for that.
#[derive(Debug)]
pub(crate) struct Collector {
    pub answers: Answers,
    pub sampling: SamplingParams,
    pub grammar: Option<Grammar>,
    /// From position 0 on, as far as the last hop has to know them.
    pub tokens: Vec<TokenId>,
}

/// How much the table holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Sessions of one gateway that run, when no other has any; as many caches may be leased, and twice as many
    /// gateways may wait.
    pub sessions: usize,
    /// Bytes of all caches.
    pub kv_bytes: u64,
    /// How long a cache outlives a broken stream.
    pub lease: Duration,
}

impl Collector {
    /// What it holds while it waits, as so many tokens.
    fn tokens_worth(&self) -> u64 {
        self.tokens.len() as u64 + tokens_worth(self.grammar.as_ref())
    }
}

/// As many tokens take as much memory as the grammar does.
pub(super) fn tokens_worth(grammar: Option<&Grammar>) -> u64 {
    grammar.map_or(0, |grammar| grammar.text().len().div_ceil(size_of::<TokenId>()) as u64)
}

#[derive(Debug)]
pub(super) struct Table {
    pub entries: HashMap<SessionId, Entry>,
    pub bounds: Bounds,
    pools: Pools,
    pub draining: bool,
}

/// What gateways share.
#[derive(Debug)]
struct Pools {
    running: Pool,
    cache_bytes: Pool,
    waiting: Pool,
    tokens_waiting: Pool,
}

/// A session whose gateway waits, whose stream runs, or whose cache is leased.
#[derive(Debug)]
pub(super) struct Entry {
    /// Whose session it is: who collects its tokens, and who has opened it.
    gateway: NodeId,
    /// The newest that was heard of, by whichever call.
    attempt: Attempt,
    /// `Collect` has come for it.
    pub collected: bool,
    /// `Forward` has come for it.
    pub forwarded: bool,
    /// The gateway that waits for `Forward`, and until when.
    pub collector: Option<(Collector, Instant)>,
    pub cache: Cache,
    /// What the cache was charged with.
    bytes: u64,
}

#[derive(Debug)]
pub(super) enum Cache {
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
    /// What went to the hop below, on the others.
    pub sent: Sent,
}

/// The two calls that an attempt makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Collect,
    Forward,
}

/// The gateway gets the tokens of the last answer with this attempt and goes on behind them, so they count as told;
/// even if the cache they came from has to make room before the session's stream is here.
pub(super) fn add_answered(told: &mut Vec<TokenId>, last: &StepOutput) {
    // The last of them is at the answer's position.
    let first = (last.position as usize + 1).saturating_sub(last.tokens.len());
    if let Some(told_already) = told.len().checked_sub(first) {
        told.extend(last.tokens.iter().skip(told_already).map(|sampled| sampled.token));
    }
}

impl Table {
    pub(super) fn new(bounds: Bounds) -> Self {
        let sessions = bounds.sessions as u64;
        let pools = Pools {
            running: Pool::with_places_for_newcomers(sessions),
            cache_bytes: Pool::of(bounds.kv_bytes),
            waiting: Pool::with_places_for_newcomers(2 * sessions),
            tokens_waiting: Pool::of(TOKENS_WAITING),
        };
        Self { entries: HashMap::new(), bounds, pools, draining: false }
    }

    /// Whether a call may begin. One of a newer attempt ends the stream of the older and leases its cache; one that is
    /// not newer, or comes a second time, is stale.
    pub(super) fn begin(
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
        Ok(())
    }

    /// Whether a gateway may have one more session running.
    pub(super) fn check_place(&self, gateway: &NodeId) -> Result<(), Refusal> {
        let running = self.held(|entry| u64::from(entry.is_running()));
        if self.pools.running.grants(&Wish::new(gateway, 1, running)) {
            return Ok(());
        }
        let message = format!(
            "all {} sessions are taken, or this gateway's share (--max-sessions)",
            self.bounds.sessions
        );
        Err(Refusal::new(RefusalCause::Full, message))
    }

    /// Whether a gateway may wait for one more session, with these tokens.
    pub(super) fn check_waiting(
        &self,
        session: &SessionId,
        gateway: &NodeId,
        tokens: u64,
    ) -> Result<(), Refusal> {
        let full = |message: &str| Err(Refusal::new(RefusalCause::Full, message));
        let waiting = self.held(|entry| u64::from(entry.collector.is_some()));
        let is_new = !self.entries.contains_key(session);
        if is_new && !self.pools.waiting.grants(&Wish::new(gateway, 1, waiting)) {
            return full("too many sessions wait for their first step");
        }
        let told = self.held(|entry| entry.collector.as_ref().map_or(0, |(told, _)| told.tokens_worth()));
        if !self.pools.tokens_waiting.grants(&Wish::new(gateway, tokens, told)) {
            return full("too many tokens wait for their sessions");
        }
        Ok(())
    }

    /// Takes note of the bytes that a session's cache sets aside, if its gateway may have as many. Leased caches count
    /// for nobody: they go when memory is wanted.
    pub(super) fn charge(&mut self, session: &SessionId, bytes: u64) -> Result<(), Refusal> {
        let gateway = self.entries.get_mut(session).map(|entry| {
            entry.bytes = 0;
            entry.gateway.clone()
        });
        let ended = || Refusal::new(RefusalCause::StaleAttempt, "the session has ended meanwhile");
        let gateway = gateway.ok_or_else(ended)?;
        let held = self.held(|entry| if entry.is_running() { entry.bytes } else { 0 });
        if !self.pools.cache_bytes.grants(&Wish::new(&gateway, bytes, held)) {
            let what =
                format!("{bytes} bytes of cache are more than this gateway's share leaves (--kv-memory)");
            return Err(Refusal::of_field(RefusalCause::Full, "max_positions", what));
        }
        self.entries.entry(session.clone()).and_modify(|entry| entry.bytes = bytes);
        Ok(())
    }

    /// What each session holds for its gateway.
    fn held<'a>(&'a self, of: impl Fn(&Entry) -> u64 + 'a) -> impl Iterator<Item = (&'a NodeId, u64)> {
        self.entries.values().map(move |entry| (&entry.gateway, of(entry)))
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

    pub(super) fn drop_empty(&mut self) {
        self.entries.retain(|_, entry| entry.collector.is_some() || !matches!(entry.cache, Cache::Nothing));
    }

    /// Streams that run, and caches that are leased.
    pub(super) fn counts(&self) -> (usize, usize) {
        let count = |wanted: fn(&Cache) -> bool| self.entries.values().filter(|e| wanted(&e.cache)).count();
        (count(|cache| matches!(cache, Cache::InUse(..))), count(|cache| matches!(cache, Cache::Leased(..))))
    }

    fn leases(&self) -> impl Iterator<Item = (&SessionId, Instant)> {
        self.entries.iter().filter_map(|(session, entry)| match &entry.cache {
            Cache::Leased(_, until) => Some((session, *until)),
            Cache::Nothing | Cache::InUse(..) => None,
        })
    }

    /// Takes out the lease that was left first, of the gateway that has most.
    pub(super) fn evict_oldest(&mut self) -> Option<Slot> {
        let of = |session: &SessionId| self.entries.get(session).map(|entry| &entry.gateway);
        let count = |session| self.leases().filter(|(other, _)| of(other) == of(session)).count();
        let oldest = self.leases().min_by_key(|(session, until)| (Reverse(count(session)), *until));
        let oldest = oldest?.0.clone();
        let entry = self.entries.get_mut(&oldest)?;
        let cache = std::mem::replace(&mut entry.cache, Cache::Nothing);
        self.drop_empty();
        cache.into_held().map(|held| held.slot)
    }

    pub(super) fn let_go(&mut self, now: Instant) -> Vec<Slot> {
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
    pub(super) fn next_time(&self) -> Option<Instant> {
        let collectors = self.entries.values().filter_map(|entry| Some(entry.collector.as_ref()?.1));
        collectors.chain(self.leases().map(|(_, until)| until)).min()
    }

    /// The cache of the session, if the place's attempt is still the newest.
    pub(super) fn cache_of(&mut self, session: &SessionId, attempt: Attempt) -> Option<&mut Cache> {
        let entry = self.entries.get_mut(session)?;
        (entry.attempt == attempt).then_some(&mut entry.cache)
    }
}

impl Entry {
    pub(super) fn new(attempt: Attempt, gateway: &NodeId) -> Self {
        let gateway = gateway.clone();
        Self {
            bytes: 0,
            gateway,
            attempt,
            collected: false,
            forwarded: false,
            collector: None,
            cache: Cache::Nothing,
        }
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
            *self = Self { cache, bytes: self.bytes, ..Self::new(attempt, &self.gateway) };
        }
        Ok(())
    }

    fn is_running(&self) -> bool {
        matches!(self.cache, Cache::InUse(..))
    }
}

impl Cache {
    pub(super) fn into_held(self) -> Option<Held> {
        match self {
            Self::Nothing => None,
            Self::InUse(_, held) => held,
            Self::Leased(held, _) => Some(held),
        }
    }

    /// Not in use any more.
    pub(super) fn leased(self, lease: Duration) -> Self {
        match self {
            Self::InUse(stream, held) => {
                stream.cancel();
                held.map_or(Self::Nothing, |held| Self::Leased(held, Instant::now() + lease))
            }
            Self::Nothing | Self::Leased(..) => self,
        }
    }
}
