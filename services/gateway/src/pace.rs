//! How long a session's step takes on a worker, as far as one can tell: by the steps that it answered to this gateway,
//! by what it has measured of itself, by who else is there, by how far it is, and by how long steps on its routes take
//! beyond all that: a worker that has no more than a part of a processor does not see what it waits for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use swarm_types::{NodeId, Replica};

/// What was measured counts for so long: who was slow then is tried again.
const LASTS: Duration = Duration::from_secs(10 * 60);
/// Workers measure themselves once, after loading, often beside others that load: less than this says nothing.
const ROUGH: f64 = 4.0;
/// Of a worker of which nothing is known, seconds a step.
const UNKNOWN: f64 = 0.01;
/// Round trips up to this are the noise of busy machines.
const NEAR: Duration = Duration::from_millis(2);
/// Times that differ by less than this factor are the same.
const SAME: f64 = 1.25;

/// Beyond what hops account for, steps have been slow on routes with a worker: half of that counts after each of these,
/// so that it is tried again.
const HALF_AS_SLOW: Duration = Duration::from_secs(30);

/// What steps of one row took with each worker. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paces(Arc<Mutex<BTreeMap<NodeId, Pace>>>);

#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Seconds a step and shard, of a session that is alone: the least, which rises slowly.
    step: f64,
    /// Seconds of a step on its routes that no hop accounts for, the latest ones most.
    rest: f64,
    at: Instant,
}

/// What was measured of one worker, in seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Measured {
    /// A step and shard in its engine, of a session that is alone.
    pub(crate) step: f64,
    /// Of a step on its routes, what no hop accounts for.
    pub(crate) rest: f64,
    /// Since it was measured last.
    pub(crate) age: f64,
}

impl Paces {
    /// A worker has computed so long for a step of one row through so many shards, of which the hops of its route have
    /// left so much unaccounted for.
    pub(crate) fn answered(
        &self,
        worker: &NodeId,
        shards: u32,
        compute: Duration,
        rest: Duration,
        now: Instant,
    ) {
        let took = compute.as_secs_f64() / f64::from(shards.max(1));
        let left = rest.as_secs_f64();
        let mut paces = self.paces();
        match paces.get_mut(worker).filter(|pace| now.duration_since(pace.at) < LASTS) {
            Some(Pace { step, rest, at }) => {
                *step += (took - *step) / if took < *step { 2.0 } else { 64.0 };
                *rest += (left - *rest) / 8.0;
                *at = now;
            }
            None => {
                paces.retain(|_, pace| now.duration_since(pace.at) < LASTS);
                paces.insert(worker.clone(), Pace { step: took, rest: left, at: now });
            }
        }
    }

    /// Of the workers that were measured lately.
    pub(crate) fn now(&self, now: Instant) -> BTreeMap<NodeId, Measured> {
        let paces = self.paces();
        let young = paces.iter().filter(|(_, pace)| now.duration_since(pace.at) < LASTS);
        let measured = |&Pace { step, rest, at }: &Pace| {
            let age = now.duration_since(at).as_secs_f64();
            Measured { step, rest, age }
        };
        young.map(|(worker, pace)| (worker.clone(), measured(pace))).collect()
    }

    fn paces(&self) -> MutexGuard<'_, BTreeMap<NodeId, Pace>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares the replicas of one shard by the time of a step.
pub(crate) struct Predictor<'a> {
    measured: &'a BTreeMap<NodeId, Measured>,
    /// The least step that was measured of one, in seconds.
    least: Option<f64>,
    /// The least that was left unaccounted for with one, in seconds.
    least_rest: f64,
    /// The least that one says of itself.
    said: Option<f64>,
}

impl<'a> Predictor<'a> {
    /// Of these replicas, some of which were measured.
    pub(crate) fn of<'r>(
        replicas: impl Iterator<Item = &'r Replica> + Clone,
        measured: &'a BTreeMap<NodeId, Measured>,
    ) -> Self {
        let of = replicas.clone().filter_map(|replica| measured.get(&replica.worker));
        let least = of.clone().map(|of| of.step).reduce(f64::min);
        let least_rest = of.map(|of| of.rest).reduce(f64::min).unwrap_or_default();
        Self { measured, least, least_rest, said: replicas.filter_map(says).reduce(f64::min) }
    }

    /// A step's time on this replica for one more session beside so many, with the way to it and from it; as a number
    /// that is the same for times which differ by little.
    pub(crate) fn step(&self, replica: &Replica, sessions: u32, ways: Duration) -> i64 {
        let measured = self.measured.get(&replica.worker);
        let alone = measured.map_or_else(|| self.guessed(replica), |of| of.step);
        let more = measured.map_or(0.0, |of| self.more(of));
        let far = ways.saturating_sub(NEAR).as_secs_f64();
        let seconds = alone * f64::from(sessions.saturating_add(1)) + far + more;
        // Never infinite: nothing takes less than this.
        (seconds.max(1e-9).ln() / SAME.ln()).round() as i64
    }

    /// What steps with this worker take more than with the others, and nobody accounts for: it counts less and less
    /// while the worker is not measured.
    fn more(&self, of: &Measured) -> f64 {
        let more = (of.rest - self.least_rest) * (-of.age / HALF_AS_SLOW.as_secs_f64()).exp2();
        (more - NEAR.as_secs_f64()).max(0.0)
    }

    /// As fast as the fastest that was measured, if it does not say that it is much slower than others.
    fn guessed(&self, replica: &Replica) -> f64 {
        let base = self.least.or(self.said).unwrap_or(UNKNOWN);
        match (says(replica), self.said) {
            (Some(own), Some(best)) if own > ROUGH * best => base * own / best,
            _ => base,
        }
    }
}

/// Seconds a step, as the worker has measured itself.
fn says(replica: &Replica) -> Option<f64> {
    let rate = f64::from(replica.capabilities.tokens_per_second);
    (rate > 0.0).then(|| rate.recip())
}

#[cfg(test)]
mod tests {
    use swarm_types::{Capabilities, ReplicaState, fixture};

    use super::*;

    fn replica(name: &str, tokens_per_second: f32) -> Replica {
        let capabilities = Capabilities { tokens_per_second, ..fixture::capabilities() };
        Replica { capabilities, ..fixture::replica(name, ReplicaState::Loaded) }
    }

    fn took(step: f64) -> Measured {
        Measured { step, rest: 0.0, age: 0.0 }
    }

    fn steps(replicas: &[Replica], measured: &BTreeMap<NodeId, Measured>) -> Vec<i64> {
        let predictor = Predictor::of(replicas.iter(), measured);
        replicas.iter().map(|replica| predictor.step(replica, 0, Duration::ZERO)).collect()
    }

    #[test]
    fn what_was_measured_counts_for_a_time_and_rises_slowly() {
        let (paces, start) = (Paces::default(), Instant::now());
        let worker: NodeId = "12D3a".parse().expect("valid");
        let ms = Duration::from_millis;
        let answers = |shards, took, at| paces.answered(&worker, shards, ms(took), ms(0), at);
        let step = |at| paces.now(at).get(&worker).map(|of| of.step);
        answers(2, 16, start);
        assert_eq!(step(start), Some(0.008));
        answers(1, 4, start);
        assert_eq!(step(start), Some(0.006));
        answers(1, 70, start);
        assert_eq!(step(start), Some(0.007), "others may have computed beside it");
        assert_eq!(step(start + LASTS), None);
        answers(1, 90, start + LASTS);
        assert_eq!(step(start + LASTS), Some(0.09), "what was is forgotten");
    }

    #[test]
    fn what_workers_say_of_themselves_counts_where_they_were_not_measured() {
        let replicas = [replica("12D3a", 100.0), replica("12D3b", 30.0), replica("12D3c", 5.0)];
        let [a, b, c] = steps(&replicas, &BTreeMap::new())[..] else { panic!("three") };
        assert!(a == b && b < c, "{a} {b} {c}");
        let measured =
            [(replicas[2].worker.clone(), took(0.001)), (replicas[0].worker.clone(), took(0.004))].into();
        let [a, b, c] = steps(&replicas, &measured)[..] else { panic!("three") };
        assert!(c < a, "it has shown to be fast");
        assert_eq!(b, c, "who was not measured is tried");
        assert_eq!(steps(&[replica("12D3a", 0.0)], &BTreeMap::new()).len(), 1, "nothing is known of it");
    }

    #[test]
    fn who_makes_its_routes_slow_is_gone_around_for_a_while() {
        let (paces, start, ms) = (Paces::default(), Instant::now(), Duration::from_millis);
        let replicas = [replica("12D3a", 100.0), replica("12D3b", 100.0)];
        for (replica, rest) in replicas.iter().zip([3, 15]) {
            paces.answered(&replica.worker, 1, ms(1), ms(rest), start);
        }
        let after = |seconds| steps(&replicas, &paces.now(start + Duration::from_secs(seconds)));
        assert!(after(0)[0] < after(0)[1], "{:?}", after(0));
        assert!(after(0)[1] > after(30)[1], "it counts less");
        assert_eq!(after(90)[0], after(90)[1], "it is tried again");
        (0..20).for_each(|_| paces.answered(&replicas[1].worker, 1, ms(1), ms(4), start));
        assert_eq!(after(0)[0], after(0)[1], "it is as fast as the other one again");
    }

    #[test]
    fn far_away_is_slow_and_near_is_near() {
        let (near, measured) = (replica("12D3a", 100.0), BTreeMap::new());
        let predictor = Predictor::of(std::iter::once(&near), &measured);
        let step = |sessions, ms| predictor.step(&near, sessions, Duration::from_millis(ms));
        assert_eq!(step(0, 0), step(0, 2));
        assert!(step(0, 80) > step(4, 0));
        assert!(step(9, 0) > step(7, 0));
    }
}
