//! Asking the DHT who serves which shard. Whoever is connected describes itself, so only those are to be found who are
//! not: a newcomer asks about every shard once it is there, and then ever less often, whoever else comes and goes; the
//! others are found by the newcomer. What is missing is asked for at once when a new peer is connected, and again and
//! again, with growing pauses, while it is missing.

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

/// From the start to the first round of questions about all shards, and the shortest time between two.
const ROUND: Duration = Duration::from_secs(10);
/// It is four times as long after each round, up to this.
const LONGEST_ROUND: Duration = Duration::from_secs(320);
/// When peers come and go the next round is earlier, but so much for each peer after the last: all of them ask then.
const ROUND_PER_PEER: Duration = Duration::from_secs(4);
/// While a shard is missing it is asked for after a pause as long as the shortest between rounds, and twice as long
/// each time, up to this.
const LONGEST_GAP: Duration = Duration::from_secs(60);
/// Rounds are up to this much later, so that nodes that started together do not ask together.
const JITTER: Duration = Duration::from_secs(5);
/// Several peers often come at once; one question serves all.
const DEBOUNCE: Duration = Duration::from_millis(150);
/// New peers cause no more than one question a shard in this time; in twice as long the next time, up to the bound,
/// until it was quiet for a while.
const HURRIED_EVERY: Duration = Duration::from_secs(1);
const HURRIED_SELDOM: Duration = Duration::from_secs(8);
const QUIET: Duration = Duration::from_secs(30);
/// Nodes that tell the same providers. The DHT would ask all that hold them.
const ENOUGH_ANSWERS: u32 = 3;
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
    last_round: Option<Instant>,
    next_round: Instant,
    round: Duration,
    rest: Duration,
    next_gap: Instant,
    gap: Duration,
    hurried: Option<Instant>,
    last_hurried: Option<Instant>,
    hurried_every: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Query {
    number: u64,
    shard: ShardId,
    found: u32,
}

impl Queries {
    pub(crate) fn new(keys: Keys, metrics: Metrics, now: Instant) -> Self {
        Self {
            keys,
            metrics,
            running: HashMap::new(),
            asked: 0,
            last_round: None,
            next_round: now + ROUND,
            round: ROUND,
            rest: ROUND,
            next_gap: now + ROUND,
            gap: ROUND,
            hurried: None,
            last_hurried: None,
            hurried_every: HURRIED_EVERY,
        }
    }

    /// Somebody has come or gone, and so many peers are connected.
    pub(crate) fn changed(&mut self, peers: usize, now: Instant) {
        let peers = u32::try_from(peers).unwrap_or(u32::MAX);
        self.rest = ROUND_PER_PEER.saturating_mul(peers).clamp(ROUND, LONGEST_ROUND);
        self.round = ROUND;
        let earliest = self.last_round.map_or(now, |last| last + self.rest).max(now + ROUND);
        self.next_round = self.next_round.min(earliest + random_up_to(JITTER));
        self.gap = ROUND;
        self.next_gap = self.next_gap.min(now + ROUND);
    }

    /// Something is new: ask soon for what is missing.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if self.last_hurried.is_some_and(|last| now.duration_since(last) >= QUIET) {
            self.hurried_every = HURRIED_EVERY;
        }
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
            self.last_round = Some(now);
            self.next_round = now + self.round.max(self.rest) + random_up_to(JITTER);
            self.round = (4 * self.round).min(LONGEST_ROUND);
            for shard in 0..self.keys.total_shards() {
                self.ask(kad, ShardId(shard), false);
            }
        }
        if whole {
            (self.next_gap, self.gap) = (now + ROUND, ROUND);
        } else if self.next_gap <= now {
            self.next_gap = now + self.gap + random_up_to(JITTER);
            self.gap = (2 * self.gap).min(LONGEST_GAP);
            self.hurry(now);
        }
        if self.hurried.is_some_and(|at| at <= now) {
            self.hurried = None;
            self.last_hurried = Some(now);
            self.hurried_every = (2 * self.hurried_every).min(HURRIED_SELDOM);
            for shard in missing() {
                self.ask(kad, shard, true);
            }
        }
    }

    /// Asks who provides the shard, and, where that is wanted, also for a record of one of them.
    fn ask(&mut self, kad: &mut Kad, shard: ShardId, for_record: bool) {
        if self.running.len() + 2 > MAX_RUNNING {
            return;
        }
        self.asked += 1;
        let query = Query { number: self.asked, shard, found: 0 };
        let key = self.keys.shard(shard);
        tracing::debug!("[DHT] [QUERY {}] Looking for shard {shard}", query.number);
        if for_record {
            self.running.insert(kad.get_record(key.clone()), query);
        }
        self.running.insert(kad.get_providers(key), query);
    }

    /// Takes a step of a question's answer.
    pub(crate) fn on_progress(
        &mut self,
        kad: &mut Kad,
        id: QueryId,
        result: QueryResult,
        last: bool,
    ) -> Option<Found> {
        let running = self.running.get_mut(&id)?;
        let query = *running;
        let enough = match &result {
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(_))) => Some(1),
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { .. })) => Some(ENOUGH_ANSWERS),
            _ => None,
        };
        if let Some(enough) = enough {
            running.found += 1;
            if enough == 1 && query.found == 0 {
                self.metrics.looked_up(Lookup::Found);
            }
            if running.found == enough
                && let Some(mut asking) = kad.query_mut(&id)
            {
                asking.finish();
            }
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

#[cfg(test)]
mod tests {
    use libp2p::kad;

    use super::*;
    use crate::directory::records;

    const SHARDS: u32 = 8;

    /// How many questions a node asks in so many seconds, of so many peers one of whom comes or goes every 3 s.
    fn asked(seconds: u64, peers: usize, whole: bool) -> u64 {
        let (me, keys, start) = (PeerId::random(), Keys::new("c".into(), SHARDS), Instant::now());
        let mut kad = kad::Behaviour::new(me, records::store(&keys, me));
        let mut queries = Queries::new(keys, Metrics::default(), start);
        for tick in 0..seconds * 10 {
            let now = start + Duration::from_millis(100 * tick);
            if peers > 0 && tick % 30 == 0 {
                queries.changed(peers, now);
            }
            queries.tick(&mut kad, whole, || vec![ShardId(3)], now);
        }
        queries.asked
    }

    #[test]
    fn a_newcomer_asks_about_all_and_then_seldom_whoever_comes_and_goes() {
        let round = u64::from(SHARDS);
        assert_eq!(asked(9, 40, true), 0, "peers tell by themselves");
        assert_eq!(asked(16, 40, true), round);
        assert_eq!(asked(160, 40, true), round, "a large swarm asks less often");
        assert_eq!(asked(600, 40, true), 4 * round);
        assert!(asked(60, 2, true) >= 3 * round, "a small one more often");
        assert_eq!(asked(600, 0, true), 5 * round, "and all of them ever less while nothing changes");
    }

    #[test]
    fn what_is_missing_is_asked_for_with_growing_pauses_that_end() {
        let rounds = asked(600, 0, true);
        let of_the_gap = asked(600, 0, false) - rounds;
        assert!((9..=14).contains(&of_the_gap), "{of_the_gap}");
        let while_others_come = asked(600, 40, false) - asked(600, 40, true);
        assert!((35..=70).contains(&while_others_come), "{while_others_come}");
    }
}
