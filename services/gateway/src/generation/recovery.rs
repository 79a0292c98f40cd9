//! What a session learns from its failed attempts: whom to go around, how long to try, what to say in the end.
//!
//! Decides only; opening routes and waiting are the driver's business.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use swarm_proto::{Refusal, RefusalCause};
use swarm_types::{NodeId, Precision, ReplicaState, Route, SwarmStatus};
use tokio::time::Instant;

use super::{GenerationConfig, GenerationError};
use crate::route::RouteWish;

/// A session that fails this often, and for as long as one may wait for a route, without getting one token further
/// would fail again. Each try holds workers off for longer, so that it is left to those that last.
const MAX_FAILURES: u32 = 5;
/// A worker that failed is left alone for this long, and for twice as long with each further failure: long enough
/// that a dead one is known to be dead before the last try.
const HOLD_OFF: Duration = Duration::from_millis(250);
/// Longest time that a worker is left alone, reached with the sixth failure.
const MAX_HOLD_OFF: Duration = Duration::from_secs(8);
/// A worker that was gone and is back is another process, which has not failed yet; it may be the same machine, so it
/// is left alone for a moment all the same.
const BACK_HOLD_OFF: Duration = Duration::from_millis(500);
/// When a client should try again. Sessions end within seconds.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What broke an attempt.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Trouble {
    /// Whose fault it is, when that is known.
    pub(super) worker: Option<NodeId>,
    /// What happened.
    pub(super) refusal: Refusal,
}

impl Trouble {
    /// Trouble with a worker.
    pub(super) fn at(worker: &NodeId, refusal: Refusal) -> Self {
        Self { worker: Some(worker.clone()), refusal }
    }

    /// A worker that does not keep to the protocol.
    pub(super) fn protocol(worker: &NodeId, message: impl Into<String>) -> Self {
        Self::at(worker, Refusal::new(RefusalCause::Internal, message))
    }
}

/// A session's memory of its failures.
#[derive(Debug)]
pub(super) struct Recovery {
    /// The text is held to a grammar.
    held: bool,
    timeout: Duration,
    step_timeout: Duration,
    strikes: BTreeMap<NodeId, Strikes>,
    /// Workers of the last route: they have what the session computed there.
    kept: BTreeSet<NodeId>,
    /// Attempts in a row that brought no token.
    failures: u32,
    /// When the first of them broke.
    stands_since: Option<Instant>,
    /// When the first of the attempts broke that brought nothing at all since.
    broken_since: Option<Instant>,
    /// Some attempt was answered.
    answered: bool,
}

/// Failures of one worker.
#[derive(Clone, Copy, Debug)]
struct Strikes {
    count: u32,
    /// Not to be used before.
    until: Instant,
    /// It was seen to serve nothing since.
    is_gone: bool,
}

impl Strikes {
    fn none(now: Instant) -> Self {
        Self { count: 0, until: now, is_gone: false }
    }
}

impl Recovery {
    /// Nothing has failed yet. `held` is a session whose text is held to a grammar.
    pub(super) fn new(config: &GenerationConfig, held: bool) -> Self {
        Self {
            held,
            timeout: config.recovery_timeout,
            step_timeout: config.step_timeout,
            strikes: BTreeMap::new(),
            kept: BTreeSet::new(),
            failures: 0,
            stands_since: None,
            broken_since: None,
            answered: false,
        }
    }

    /// A step was answered: the route works so far.
    pub(super) fn answered(&mut self) {
        self.answered = true;
        self.broken_since = None;
    }

    /// Whether some attempt was answered, so that hops have something to keep.
    pub(super) fn has_answers(&self) -> bool {
        self.answered
    }

    /// The session got one token further.
    pub(super) fn advanced(&mut self) {
        self.failures = 0;
        self.stands_since = None;
    }

    /// The session leaves this route.
    pub(super) fn leaves(&mut self, route: &Route) {
        self.kept = route.hops().iter().map(|hop| hop.worker.clone()).collect();
    }

    /// Takes note of a broken attempt.
    ///
    /// # Errors
    /// When another attempt would be in vain.
    pub(super) fn record(&mut self, trouble: &Trouble, route: &Route) -> Result<(), GenerationError> {
        let now = Instant::now();
        let cause = trouble.refusal.cause;
        self.leaves(route);
        // Only the last hop knows the grammar, and it would say the same on another worker.
        let stuck = cause == RefusalCause::Grammar
            && self.held
            && trouble.worker.as_ref() == Some(&route.last().worker);
        if stuck || (cause == RefusalCause::InvalidArgument && !self.answered) {
            return Err(invalid(&trouble.refusal));
        }
        match &trouble.worker {
            Some(worker) => suspects(worker, cause, route).for_each(|suspect| self.strike(suspect, now)),
            // Nobody is to blame, so everybody is avoided, but nobody excluded.
            None => route.hops().iter().for_each(|hop| {
                self.strikes.entry(hop.worker.clone()).or_insert(Strikes::none(now));
            }),
        }
        // A full or loading worker has not failed; the time bound is enough for it.
        if !matches!(cause, RefusalCause::Full | RefusalCause::NotReady) {
            self.failures += 1;
        }
        let in_vain = |since: Instant| now.duration_since(since) >= self.timeout;
        let stands = in_vain(*self.stands_since.get_or_insert(now)) && self.failures >= MAX_FAILURES;
        if stands || in_vain(*self.broken_since.get_or_insert(now)) {
            return Err(self.give_up(trouble, None));
        }
        Ok(())
    }

    fn strike(&mut self, worker: &NodeId, now: Instant) {
        let strikes = self.strikes.entry(worker.clone()).or_insert(Strikes::none(now));
        let hold_off = HOLD_OFF.saturating_mul(2_u32.saturating_pow(strikes.count));
        strikes.count = strikes.count.saturating_add(1);
        strikes.until = now + hold_off.min(MAX_HOLD_OFF);
        strikes.is_gone = false;
    }

    /// Takes note of who is gone, and of who is back.
    pub(super) fn sees(&mut self, status: &SwarmStatus) {
        let now = Instant::now();
        let replicas = || status.shards.iter().flat_map(|shard| &shard.replicas);
        for (worker, strikes) in &mut self.strikes {
            if !replicas().any(|r| r.worker == *worker && r.state == ReplicaState::Loaded) {
                strikes.is_gone = true;
            } else if std::mem::take(&mut strikes.is_gone) {
                strikes.until = strikes.until.min(now + BACK_HOLD_OFF);
            }
        }
    }

    /// Whether to refuse at once rather than wait for a route: the session has not begun, and its workers are full.
    pub(super) fn is_refused(&self, trouble: &Trouble) -> bool {
        trouble.refusal.cause == RefusalCause::Full && !self.answered
    }

    /// How long a route is waited for.
    pub(super) fn patience(&self) -> Duration {
        self.timeout
    }

    /// Until when to wait for a route.
    pub(super) fn deadline(&self) -> Instant {
        self.broken_since.unwrap_or_else(Instant::now) + self.timeout
    }

    /// When the next worker may be tried again.
    pub(super) fn next_release(&self) -> Option<Instant> {
        let now = Instant::now();
        self.strikes.values().map(|strikes| strikes.until).filter(|until| *until > now).min()
    }

    /// What the next route must serve, and through whom it may go: of `any` route of the model.
    pub(super) fn wish(&self, any: RouteWish, precision: Precision) -> RouteWish {
        let now = Instant::now();
        let held_off = self.strikes.iter().filter(|(_, strikes)| strikes.until > now);
        RouteWish {
            precision: Some(precision),
            exclude: held_off.map(|(worker, _)| worker.clone()).collect(),
            avoid: self.strikes.keys().cloned().collect(),
            prefer: self.kept.clone(),
            ..any
        }
    }

    /// What the client hears when nothing helped. `missing` says why there is no other route.
    pub(super) fn give_up(&self, trouble: &Trouble, missing: Option<String>) -> GenerationError {
        let refusal = &trouble.refusal;
        let message = match missing {
            Some(missing) => format!("{}; {missing}", refusal.message),
            None => refusal.message.clone(),
        };
        match (&trouble.worker, refusal.cause) {
            (_, RefusalCause::Full) if !self.answered => GenerationError::Full { retry_after: RETRY_AFTER },
            (Some(worker), _) => GenerationError::HopFailed { worker: worker.clone(), message },
            (None, RefusalCause::Timeout) => GenerationError::Timeout { waited: self.step_timeout, message },
            (None, _) => GenerationError::Internal { message },
        }
    }
}

/// Who may be at fault: the hop that failed, and where it has only refused what it got, the hop above it as much. A hop
/// that says so cannot push another one out without itself.
fn suspects<'a>(
    worker: &'a NodeId,
    cause: RefusalCause,
    route: &'a Route,
) -> impl Iterator<Item = &'a NodeId> {
    let mut pairs = route.hops().iter().zip(route.hops().iter().skip(1));
    let above = pairs.find(|(_, hop)| hop.worker == *worker).map(|(above, _)| &above.worker);
    std::iter::once(worker).chain(above.filter(|_| cause == RefusalCause::WrongStep))
}

/// A worker's refusal of the request itself.
fn invalid(refusal: &Refusal) -> GenerationError {
    let message = refusal.message.clone();
    match refusal.field.clone() {
        Some(field) => GenerationError::Invalid { field, message },
        None => GenerationError::invalid("request", message),
    }
}
