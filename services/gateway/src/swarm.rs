//! The swarm as generations use it: its status, channels to its workers, and which model it must serve.
//!
//! How the status comes about and what a channel runs over is the network's business.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use swarm_proto::{Refusal, RefusalCause};
use swarm_types::{Cut, HopTiming, ModelDigest, NodeId, Precision, Route, SwarmStatus};
use tokio::{sync::watch, time::timeout};
use tonic::transport::Channel;

use crate::{
    pace::Paces,
    route::{Missing, PlannedRoute, RouteProblem, RouteWish, plan_route},
};

/// Workers that are online are connected already; a stream to one takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a gRPC channel to a worker.
pub type Connect = Arc<dyn Fn(NodeId) -> BoxFuture<'static, Result<Channel, Refusal>> + Send + Sync>;

/// The model whose tokenizer and template the gateway has. A swarm that serves another cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayModel {
    /// For people.
    pub name: String,
    /// Of the gateway's own file.
    pub digest: ModelDigest,
    /// Tokens that prompt and continuation may have together.
    pub context_length: u32,
    /// Which layers the shards have; a worker that cuts the model in another way cannot be used.
    pub cut: Arc<Cut>,
}

/// The swarm as generations use it. Cheap to clone.
#[derive(Clone)]
pub struct Swarm {
    status: watch::Receiver<Arc<SwarmStatus>>,
    connect: Connect,
    model: Arc<GatewayModel>,
    sessions: SessionCounts,
    paces: Paces,
}

impl fmt::Debug for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swarm").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Swarm {
    /// The swarm that `status` tells of and `connect` reaches.
    #[must_use]
    pub fn new(status: watch::Receiver<Arc<SwarmStatus>>, connect: Connect, model: GatewayModel) -> Self {
        Self {
            status,
            connect,
            model: Arc::new(model),
            sessions: SessionCounts::default(),
            paces: Paces::default(),
        }
    }

    /// The swarm's status, now and on every change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<SwarmStatus>> {
        self.status.clone()
    }

    /// This gateway's peer id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.status.borrow().node.clone()
    }

    /// The model that the gateway can serve.
    #[must_use]
    pub fn model(&self) -> &GatewayModel {
        &self.model
    }

    /// Any route that serves the model.
    #[must_use]
    pub fn any_route(&self) -> RouteWish {
        RouteWish::any(self.model.digest, self.model.cut.clone())
    }

    /// Opens a channel to a worker.
    ///
    /// # Errors
    /// When the worker cannot be reached in time.
    pub async fn channel(&self, worker: &NodeId) -> Result<Channel, Refusal> {
        match timeout(CONNECT_TIMEOUT, (self.connect)(worker.clone())).await {
            Ok(channel) => channel,
            Err(_) => Err(Refusal::new(RefusalCause::Timeout, "the worker could not be connected in time")),
        }
    }

    /// Plans a route and counts a session on each of its hops, so that the next one goes elsewhere.
    ///
    /// # Errors
    /// Names the shards that are missing.
    pub fn reserve(&self, wish: RouteWish) -> Result<Reserved, RouteProblem> {
        let mut counts = self.sessions.counts();
        let wish = RouteWish { sessions: counts.clone(), paces: self.paces.now(Instant::now()), ..wish };
        let planned = plan_route(&self.status.borrow(), &wish)?;
        for hop in planned.route.hops() {
            *counts.entry(hop.worker.clone()).or_default() += 1;
        }
        Ok(Reserved { planned, sessions: self.sessions.clone() })
    }

    /// The hops of a route have answered a step of one row, which took so long in all.
    pub fn answered(&self, route: &Route, timings: &[HopTiming], round_trip: Duration) {
        let now = Instant::now();
        let rest = round_trip.saturating_sub(timings.iter().map(|hop| hop.compute + hop.queue).sum());
        for (hop, timing) in route.hops().iter().zip(timings) {
            let shards = hop.shards.iter().count() as u32;
            self.paces.answered(&hop.worker, shards, timing.compute, rest, now);
        }
    }

    /// Whether the swarm can serve the gateway's model now.
    ///
    /// # Errors
    /// Says what is missing, for people.
    pub fn readiness(&self) -> Result<(), String> {
        self.problem().map_or(Ok(()), |problem| Err(self.explain(&problem)))
    }

    /// What is missing for the swarm to serve the gateway's model now.
    #[must_use]
    pub fn problem(&self) -> Option<RouteProblem> {
        plan_route(&self.status.borrow(), &self.any_route()).err()
    }

    /// What is missing, for people.
    #[must_use]
    pub fn explain(&self, problem: &RouteProblem) -> String {
        let only_others = problem.missing.iter().all(|(_, missing)| *missing == Missing::OtherModel);
        match &self.status.borrow().model {
            Some(served) if only_others && served.digest != self.model.digest => format!(
                "the swarm serves {} ({}), this gateway was started with {} ({}); start it with the same --model",
                served.name, served.digest, self.model.name, self.model.digest
            ),
            _ => problem.to_string(),
        }
    }
}

/// This gateway's own sessions on each worker: what workers say of themselves is a moment old, and a burst of
/// requests comes within that moment.
#[derive(Clone, Default)]
struct SessionCounts(Arc<Mutex<BTreeMap<NodeId, u32>>>);

impl SessionCounts {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<NodeId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, route: &Route) {
        let mut counts = self.counts();
        for hop in route.hops() {
            if let Some(count) = counts.get_mut(&hop.worker) {
                *count = count.saturating_sub(1);
            }
        }
        counts.retain(|_, count| *count > 0);
    }
}

/// A route with a session counted on each of its hops until this is dropped.
pub struct Reserved {
    planned: PlannedRoute,
    sessions: SessionCounts,
}

impl Reserved {
    /// One worker for each shard.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.planned.route
    }

    /// Of all hops.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.planned.precision
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.sessions.remove(&self.planned.route);
    }
}
