//! Which workers a session goes through: a pure decision over the swarm as this node sees it.
//!
//! Asks nobody and waits for nothing; when and how often to plan is the generation's business.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use swarm_types::{
    Cut, Hop, LayerRange, ModelDigest, NodeId, Precision, Replica, ReplicaState, Route, ShardId, ShardRange,
    ShardStatus, SwarmStatus,
};

pub use self::problem::{Missing, RouteProblem};
use crate::pace::{Measured, Predictor};

mod problem;

/// What a route must serve, and through whom it may go.
#[derive(Clone, Debug)]
pub struct RouteWish {
    /// The model file that every hop must hold.
    pub digest: ModelDigest,
    /// Which layers every shard must have.
    pub cut: Arc<Cut>,
    /// The precision that every hop must compute in. Absent: any, the swarm's own choice first.
    pub precision: Option<Precision>,
    /// Workers not to use at all.
    pub exclude: BTreeSet<NodeId>,
    /// Workers to use only for shards that nobody else has.
    pub avoid: BTreeSet<NodeId>,
    /// Workers that have more of the session than others.
    pub prefer: BTreeSet<NodeId>,
    /// Sessions that are known to be on a worker. Its own count arrives later, so the larger one is believed.
    pub sessions: BTreeMap<NodeId, u32>,
    /// What was measured of workers lately.
    pub(crate) paces: BTreeMap<NodeId, Measured>,
}

impl RouteWish {
    /// Any route that serves this model file, cut in this way.
    #[must_use]
    pub fn any(digest: ModelDigest, cut: Arc<Cut>) -> Self {
        Self {
            digest,
            cut,
            precision: None,
            exclude: BTreeSet::new(),
            avoid: BTreeSet::new(),
            prefer: BTreeSet::new(),
            sessions: BTreeMap::new(),
            paces: BTreeMap::new(),
        }
    }
}

/// A route, and how it computes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedRoute {
    /// One worker for each shard.
    pub route: Route,
    /// Of all its hops.
    pub precision: Precision,
}

/// A route of loaded replicas for every shard of the wished model. It takes preferred workers first, stays on a worker
/// as long as that worker has the next shard too, and otherwise takes the one with the least predicted time of a step;
/// of equals the one with the fewest sessions, then the one that has more of the shards that follow, then the smallest
/// id.
///
/// # Errors
/// Names the shards that no usable worker has.
pub fn plan_route(status: &SwarmStatus, wish: &RouteWish) -> Result<PlannedRoute, RouteProblem> {
    let plans = precisions(status, wish)
        .into_iter()
        .map(|precision| Planner { status, wish, precision }.plan())
        .collect::<Vec<_>>();
    let best = plans.into_iter().min_by_key(|plan| plan.as_ref().map_or_else(|p| p.missing.len() + 1, |_| 0));
    best.expect("there is at least one precision to try")
}

/// The precisions to try, the preferred one first.
fn precisions(status: &SwarmStatus, wish: &RouteWish) -> Vec<Precision> {
    if let Some(precision) = wish.precision {
        return vec![precision];
    }
    let served = status.model.as_ref().filter(|model| model.digest == wish.digest);
    let mut all = vec![Precision::Standard, Precision::Exact];
    all.sort_by_key(|precision| served.is_none_or(|model| model.precision != *precision));
    all
}

/// One try, in one precision.
struct Planner<'a> {
    status: &'a SwarmStatus,
    wish: &'a RouteWish,
    precision: Precision,
}

impl Planner<'_> {
    fn plan(&self) -> Result<PlannedRoute, RouteProblem> {
        // Going around a worker may leave it for good too early, so the second look does not go around any.
        self.walk(&self.wish.avoid).or_else(|_| self.walk(&BTreeSet::new()))
    }

    /// Takes the best worker for one shard after the other.
    fn walk(&self, avoid: &BTreeSet<NodeId>) -> Result<PlannedRoute, RouteProblem> {
        let mut hops: Vec<Hop> = Vec::new();
        let mut missing = Vec::new();
        for shard in &self.status.shards {
            match self.pick(shard, &hops, avoid) {
                Some(replica) => append(&mut hops, replica, shard.shard_id),
                None => missing.push((shard.shard_id, self.why_missing(shard))),
            }
        }
        match Route::new(hops, self.status.total_shards) {
            Ok(route) if missing.is_empty() => Ok(PlannedRoute { route, precision: self.precision }),
            _ => Err(RouteProblem { missing }),
        }
    }

    fn pick(&self, shard: &ShardStatus, hops: &[Hop], avoid: &BTreeSet<NodeId>) -> Option<&Replica> {
        let (current, left) = match hops.split_last() {
            Some((current, left)) => (Some(&current.worker), left),
            None => (None, hops),
        };
        // A session has one place on a worker, so a route never comes back to one that it has left.
        let was_left = |replica: &Replica| left.iter().any(|hop| hop.worker == replica.worker);
        let candidates = self.usable(shard.shard_id).filter(|replica| !was_left(replica));
        let predictor = Predictor::of(candidates.clone(), &self.wish.paces);
        candidates.min_by_key(|replica| {
            let sessions = self.sessions(replica);
            (
                avoid.contains(&replica.worker),
                !self.wish.prefer.contains(&replica.worker),
                current != Some(&replica.worker),
                predictor.step(replica, sessions, self.ways(replica, shard.shard_id, current)),
                sessions,
                Reverse(self.run_length(replica, shard.shard_id)),
                &replica.worker,
            )
        })
    }

    /// The round trip from the hop before, and behind the last shard the one to this node, as far as they are told.
    fn ways(&self, replica: &Replica, shard: ShardId, before: Option<&NodeId>) -> Duration {
        let told =
            |from: &Replica, to: &NodeId| from.capabilities.round_trips_us.get(to).copied().unwrap_or(0);
        let above = shard.0.checked_sub(1).and_then(|above| self.status.shards.get(above as usize));
        let above = above.into_iter().flat_map(|above| &above.replicas);
        let above = above.filter(|above| Some(&above.worker) == before);
        let there = above.map(|above| told(above, &replica.worker)).next().unwrap_or(0);
        let is_last = shard.0 + 1 == self.status.total_shards;
        let back = if is_last { told(replica, &self.status.node) } else { 0 };
        Duration::from_micros(u64::from(there) + u64::from(back))
    }

    fn usable(&self, shard: ShardId) -> impl Iterator<Item = &Replica> + Clone {
        let replicas = self.status.shards.get(shard.0 as usize).map_or(&[][..], |shard| &shard.replicas);
        replicas.iter().filter(move |replica| {
            replica.state == ReplicaState::Loaded
                && self.fits(replica)
                && self.cuts_as_wished(replica, shard)
                && !self.wish.exclude.contains(&replica.worker)
        })
    }

    fn fits(&self, replica: &Replica) -> bool {
        replica.model.digest == self.wish.digest && replica.model.precision == self.precision
    }

    fn cuts_as_wished(&self, replica: &Replica, shard: ShardId) -> bool {
        layers(&self.wish.cut, shard) == Some(replica.capabilities.layers)
    }

    fn sessions(&self, replica: &Replica) -> u32 {
        let ours = self.wish.sessions.get(&replica.worker).copied().unwrap_or(0);
        ours.max(replica.capabilities.active_sessions)
    }

    /// How many shards in a row, from this one on, the replica's worker could run.
    fn run_length(&self, replica: &Replica, from: ShardId) -> usize {
        let has = |shard: &u32| self.usable(ShardId(*shard)).any(|other| other.worker == replica.worker);
        (from.0..self.status.total_shards).take_while(has).count()
    }

    fn why_missing(&self, shard: &ShardStatus) -> Missing {
        let reason = |replica: &Replica| match replica.state {
            ReplicaState::Offline => Missing::Absent,
            _ if !self.fits(replica) => Missing::OtherModel,
            _ if !self.cuts_as_wished(replica, shard.shard_id) => Missing::OtherCut,
            ReplicaState::Loading if is_leaving(replica) => Missing::Draining,
            ReplicaState::Loading => Missing::Loading { percent: replica.capabilities.loaded_percent },
            ReplicaState::Suspect => Missing::Suspect,
            ReplicaState::Loaded => Missing::Excluded,
        };
        shard.replicas.iter().map(reason).max().unwrap_or(Missing::Absent)
    }
}

/// Whether its worker ends what runs and takes nothing more. Whoever loads never says that all of it is there.
pub(crate) fn is_leaving(replica: &Replica) -> bool {
    replica.state == ReplicaState::Loading && replica.capabilities.loaded_percent >= 100
}

/// The layers that a shard has in a cut.
pub(crate) fn layers(cut: &Cut, shard: ShardId) -> Option<LayerRange> {
    cut.layers(ShardRange::one(shard)).ok()
}

fn append(hops: &mut Vec<Hop>, replica: &Replica, shard: ShardId) {
    let shards = ShardRange::one(shard);
    if let Some(last) = hops.last_mut().filter(|last| last.worker == replica.worker)
        && let Ok(both) = ShardRange::new(last.shards.start(), shards.end())
    {
        last.shards = both;
        return;
    }
    hops.push(Hop { worker: replica.worker.clone(), shards });
}

#[cfg(test)]
mod tests {
    use swarm_types::{Capabilities, ModelId, fixture, fixture::status};

    use super::*;

    const DIGEST: ModelDigest = ModelDigest([1; 32]);

    fn worker(name: &str) -> NodeId {
        format!("12D3{name}").parse().expect("valid")
    }

    fn loaded(name: &str) -> Replica {
        of_model(name, DIGEST, Precision::Exact)
    }

    fn busy(name: &str, active_sessions: u32) -> Replica {
        Replica { capabilities: Capabilities { active_sessions, ..fixture::capabilities() }, ..loaded(name) }
    }

    fn in_state(name: &str, state: ReplicaState, loaded_percent: u8) -> Replica {
        let capabilities = Capabilities { loaded_percent, ..fixture::capabilities() };
        Replica { state, capabilities, ..loaded(name) }
    }

    fn of_model(name: &str, digest: ModelDigest, precision: Precision) -> Replica {
        let model = ModelId { digest, precision, ..fixture::model() };
        Replica { model, ..fixture::replica(worker(name).as_str(), ReplicaState::Loaded) }
    }

    fn any() -> RouteWish {
        RouteWish::any(DIGEST, Arc::new(fixture::cut(8)))
    }

    /// The route as text: `a:0-1 b:2`.
    fn planned(shards: Vec<Vec<Replica>>, wish: &RouteWish) -> String {
        let route = plan_route(&status(shards), wish).expect("a route").route;
        let hop = |hop: &Hop| format!("{}:{}", &hop.worker.as_str()[4..], hop.shards);
        route.hops().iter().map(hop).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_route_takes_the_least_busy_and_merges_neighbours() {
        let any = any();
        let cases = [
            ("one each", vec![vec![loaded("a")], vec![loaded("b")]], "a:0 b:1"),
            ("least busy", vec![vec![busy("a", 2), busy("b", 1)], vec![loaded("c")]], "b:0 c:1"),
            ("equals by id", vec![vec![loaded("b"), loaded("a")]], "a:0"),
            (
                "one worker, one hop",
                vec![vec![loaded("a")], vec![loaded("a")], vec![loaded("b")]],
                "a:0-1 b:2",
            ),
            ("stays though busier", vec![vec![busy("a", 3)], vec![busy("a", 3), loaded("b")]], "a:0-1"),
            (
                "of equals the one with more to follow",
                vec![vec![loaded("a"), loaded("b")], vec![loaded("b"), loaded("c")], vec![loaded("c")]],
                "b:0-1 c:2",
            ),
            (
                "never back to a worker it left",
                vec![vec![loaded("a")], vec![loaded("b")], vec![loaded("a"), busy("c", 9)]],
                "a:0 b:1 c:2",
            ),
            (
                "only loaded ones",
                vec![vec![
                    in_state("a", ReplicaState::Offline, 100),
                    in_state("b", ReplicaState::Loading, 50),
                    busy("c", 5),
                ]],
                "c:0",
            ),
            (
                "only its model",
                vec![vec![of_model("a", ModelDigest([2; 32]), Precision::Exact), busy("b", 5)]],
                "b:0",
            ),
        ];
        for (name, shards, expected) in cases {
            assert_eq!(planned(shards, &any), expected, "{name}");
        }
    }

    #[test]
    fn excluded_workers_are_not_used_and_avoided_ones_only_where_there_is_no_other() {
        let avoid = RouteWish { avoid: [worker("a")].into(), ..any() };
        assert_eq!(planned(vec![vec![loaded("a"), busy("b", 9)]], &avoid), "b:0");
        assert_eq!(planned(vec![vec![loaded("a")], vec![loaded("b")]], &avoid), "a:0 b:1");
        let needed = vec![vec![loaded("a")], vec![loaded("a"), loaded("b")], vec![loaded("a")]];
        assert_eq!(planned(needed, &avoid), "a:0-2", "going around it would leave shard 2 without a worker");

        let exclude = RouteWish { exclude: [worker("a")].into(), ..any() };
        let shards = vec![vec![loaded("a"), busy("b", 9)], vec![loaded("a")]];
        let problem = plan_route(&status(shards), &exclude).expect_err("shard 1 is only on a");
        assert_eq!(problem.missing, [(ShardId(1), Missing::Excluded)]);
    }

    #[test]
    fn sessions_that_a_worker_has_not_told_of_yet_count_too() {
        let ours = RouteWish { sessions: [(worker("a"), 2)].into(), ..any() };
        assert_eq!(planned(vec![vec![loaded("a"), busy("b", 1)]], &ours), "b:0");
        assert_eq!(planned(vec![vec![loaded("a"), busy("b", 3)]], &ours), "a:0");
    }

    #[test]
    fn of_two_the_faster_has_more_sessions_and_the_nearer_goes_first() {
        let took = |step| Measured { step, rest: 0.0, age: 0.0 };
        let paces = [(worker("a"), took(0.004)), (worker("b"), took(0.001))].into();
        let measured = RouteWish { paces, ..any() };
        assert_eq!(planned(vec![vec![loaded("a"), busy("b", 2)]], &measured), "b:0");
        assert_eq!(planned(vec![vec![loaded("a"), busy("b", 9)]], &measured), "a:0");
        let mut shards = vec![vec![loaded("a")], vec![loaded("b"), busy("c", 1)]];
        assert_eq!(planned(shards.clone(), &any()), "a:0 b:1");
        shards[0][0].capabilities.round_trips_us = [(worker("b"), 900_000), (worker("c"), 500)].into();
        assert_eq!(planned(shards, &any()), "a:0 c:1");
    }

    #[test]
    fn all_hops_compute_in_one_precision() {
        let fast = |name| of_model(name, DIGEST, Precision::Standard);
        let shards = || vec![vec![loaded("a"), fast("b")], vec![fast("c")]];
        let any = any();
        assert_eq!(plan_route(&status(shards()), &any).expect("a route").precision, Precision::Standard);
        let exact = RouteWish { precision: Some(Precision::Exact), ..any };
        let problem = plan_route(&status(shards()), &exact).expect_err("shard 1 is only fast");
        assert_eq!(problem.missing, [(ShardId(1), Missing::OtherModel)]);
    }

    #[test]
    fn no_route_goes_through_a_worker_that_cuts_the_model_in_another_way() {
        let mut swarm = status(vec![vec![loaded("a"), busy("b", 9)], vec![loaded("a")]]);
        let theirs = LayerRange::new(0, 5).expect("valid");
        swarm.shards[0].replicas[0].capabilities.layers = theirs;
        let route = plan_route(&swarm, &any()).expect("b has the right layers").route;
        assert_eq!(route.first().worker, worker("b"));

        swarm.shards[0].replicas.pop();
        let problem = plan_route(&swarm, &any()).expect_err("nobody is left for shard 0");
        assert_eq!(problem.missing, [(ShardId(0), Missing::OtherCut)]);
        assert!(problem.to_string().contains("--shard-weights"), "{problem}");
    }

    #[test]
    fn a_problem_names_every_missing_shard_and_why() {
        let shards = vec![
            vec![],
            vec![in_state("a", ReplicaState::Offline, 100)],
            vec![loaded("b")],
            vec![in_state("c", ReplicaState::Offline, 0), in_state("d", ReplicaState::Loading, 40)],
            vec![of_model("e", ModelDigest([2; 32]), Precision::Exact)],
        ];
        let problem = plan_route(&status(shards), &any()).expect_err("no route");
        assert_eq!(
            problem.to_string(),
            "shards 0 and 1 have no worker; shard 4 has only workers of another model or precision; \
             shard 3 is loading (40 %)"
        );
        let empty = plan_route(&status(vec![]), &any()).expect_err("no route");
        assert_eq!(empty.to_string(), "the swarm has no shards");
    }
}
