//! Asking the DHT who serves which shard: every shard every 10 to 15 seconds, less often while nothing changes in a
//! swarm that is whole, and at once what is still missing when a new peer is connected.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    kad::{GetProvidersOk, GetRecordError, GetRecordOk, QueryId, QueryResult, Record},
};
use swarm_types::ShardId;

use crate::{
    directory::records::{Kad, Keys},
    metrics::{Lookup, Metrics},
};

/// The shortest time between two rounds of questions about all shards.
const ROUND: Duration = Duration::from_secs(10);
/// While nothing changes it is four times as long after each round, up to this.
const LONGEST_ROUND: Duration = Duration::from_secs(320);
/// Rounds are up to this much later, so that nodes that started together do not ask together.
const JITTER: Duration = Duration::from_secs(5);
/// Several peers often come at once; one question serves all.
const DEBOUNCE: Duration = Duration::from_millis(150);
/// New peers cause no more than one question a shard in this time; in twice as long the next time, up to the bound,
/// until a round was quiet.
const HURRIED_EVERY: Duration = Duration::from_secs(1);
const HURRIED_SELDOM: Duration = Duration::from_secs(8);
/// Questions that wait for answers. Each ends within the DHT's own timeout.
const MAX_RUNNING: usize = 4096;

/// What a question brought to light.
#[derive(Debug)]
pub(crate) enum Found {
    /// Still to be checked.
    Record { query: u64, record: Record },
    /// Authenticated by the nodes that store them, who may lie: a reason to dial, no more.
    Providers { shard: ShardId, providers: BTreeSet<PeerId> },
}

/// The questions of one node.
#[derive(Debug)]
pub(crate) struct Queries {
    keys: Keys,
    metrics: Metrics,
    running: HashMap<QueryId, Query>,
    asked: u64,
    next_round: Instant,
    round: Duration,
    hurried: Option<Instant>,
    last_hurried: Option<Instant>,
    hurried_every: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Query {
    number: u64,
    shard: ShardId,
    found: bool,
}

impl Queries {
    pub(crate) fn new(keys: Keys, metrics: Metrics, now: Instant) -> Self {
        Self {
            keys,
            metrics,
            running: HashMap::new(),
            asked: 0,
            next_round: now + ROUND,
            round: ROUND,
            hurried: None,
            last_hurried: None,
            hurried_every: HURRIED_EVERY,
        }
    }

    /// Somebody has come or gone: what is known of shards may be old.
    pub(crate) fn changed(&mut self, now: Instant) {
        self.round = ROUND;
        self.next_round = self.next_round.min(now + ROUND + random_up_to(JITTER));
    }

    /// Something is new: ask soon for what is missing.
    pub(crate) fn hurry(&mut self, now: Instant) {
        let earliest = self.last_hurried.map_or(now, |last| last + self.hurried_every);
        self.hurried.get_or_insert(earliest.max(now + DEBOUNCE));
    }

    /// Asks what is due. `missing` gives the shards that are worth a hurried question; `whole`: somebody serves each.
    pub(crate) fn tick(
        &mut self,
        kad: &mut Kad,
        whole: bool,
        missing: impl FnOnce() -> Vec<ShardId>,
        now: Instant,
    ) {
        if self.next_round <= now {
            self.next_round = now + self.round + random_up_to(JITTER);
            self.round = if whole { (4 * self.round).min(LONGEST_ROUND) } else { ROUND };
            self.hurried = None;
            self.hurried_every = HURRIED_EVERY;
            for shard in 0..self.keys.total_shards() {
                self.ask(kad, ShardId(shard));
            }
        } else if self.hurried.is_some_and(|at| at <= now) {
            self.hurried = None;
            self.last_hurried = Some(now);
            self.hurried_every = (2 * self.hurried_every).min(HURRIED_SELDOM);
            for shard in missing() {
                self.ask(kad, shard);
            }
        }
    }

    fn ask(&mut self, kad: &mut Kad, shard: ShardId) {
        if self.running.len() + 2 > MAX_RUNNING {
            return;
        }
        self.asked += 1;
        let query = Query { number: self.asked, shard, found: false };
        let key = self.keys.shard(shard);
        tracing::debug!("[DHT] [QUERY {}] Looking for shard {shard}", query.number);
        self.running.insert(kad.get_record(key.clone()), query);
        self.running.insert(kad.get_providers(key), query);
    }

    /// Takes a step of a question's answer.
    pub(crate) fn on_progress(&mut self, id: QueryId, result: QueryResult, last: bool) -> Option<Found> {
        let running = self.running.get_mut(&id)?;
        let query = *running;
        if matches!(result, QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(_)))) && !query.found {
            running.found = true;
            self.metrics.looked_up(Lookup::Found);
        }
        if last {
            self.running.remove(&id);
        }
        match result {
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => {
                Some(Found::Record { query: query.number, record: found.record })
            }
            QueryResult::GetRecord(Err(error)) => {
                let outcome = match error {
                    GetRecordError::NotFound { .. } => Lookup::NotFound,
                    GetRecordError::Timeout { .. } => Lookup::Timeout,
                };
                tracing::debug!(
                    "[DHT] [QUERY {}] ✗ No record found in DHT for shard {}",
                    query.number,
                    query.shard
                );
                self.metrics.looked_up(outcome);
                None
            }
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                Some(Found::Providers { shard: query.shard, providers: providers.into_iter().collect() })
            }
            _ => None,
        }
    }
}

fn random_up_to(bound: Duration) -> Duration {
    let random = RandomState::new().hash_one(0);
    bound.mul_f64(random as f64 / u64::MAX as f64)
}
