//! One attempt of a session: its streams to the hops of one route, and the steps that are under way on them.
//!
//! Whatever breaks the attempt comes out as one [`Trouble`], with the worker to blame as far as it is known. What to
//! do about it is not decided here.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use shard_client::{Collected, HopSession, HopTrouble, collect};
use swarm_proto::{CollectSession, OpenSession, Opened, Refusal, RefusalCause};
use swarm_types::{NodeId, ReplicaState, Route, ShardRange, Step, StepOutput, SwarmStatus};
use tokio::{sync::watch, time::timeout};

use super::{admission::Place, recovery::Trouble};
use crate::swarm::Swarm;

/// When a stream ends without a name, the hop that failed is usually named on the other stream a moment later.
const BLAME_GRACE: Duration = Duration::from_millis(200);

/// Rows that are computed again in the time of a step, at least.
const ROWS_A_STEP: u32 = 1024;
/// Steps' times that an answer may take longer for it: a hop says how many rows there are, and may say anything.
const MOST_STEPS: u32 = 16;

/// A session's streams on one route. Dropping it ends the session on every hop, unless it was left; with pieces of a
/// prompt under way it breaks it, which stops them.
pub(super) struct Pipeline {
    route: Route,
    /// There until the pipeline ends.
    streams: Option<Streams>,
    status: watch::Receiver<Arc<SwarmStatus>>,
    step_timeout: Duration,
    /// Rows that are computed again before the next answer can come.
    rebuilt: u32,
    /// Steps that were sent and not answered, oldest first.
    under_way: VecDeque<Expected>,
}

/// How a session is opened at the two ends of its route.
pub(super) struct Opening {
    /// Goes down the route, hop by hop.
    pub(super) open: OpenSession,
    /// Goes straight to the last hop.
    pub(super) collect: CollectSession,
}

/// What a session speaks through.
struct Streams {
    hops: HopSession,
    trouble: HopTrouble,
    collected: Collected,
}

/// What the answer to a step must look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Expected {
    position: u32,
    sampled: usize,
    scores: usize,
    pools: bool,
}

impl Pipeline {
    /// Opens the session on its route: `Collect` at the last hop, and when that has accepted, `Forward` at the first.
    pub(super) async fn open(
        swarm: &Swarm,
        route: &Route,
        opening: Opening,
        step_timeout: Duration,
    ) -> Result<Self, Trouble> {
        let mut status = swarm.status();
        tokio::select! {
            opened = Self::open_streams(swarm, route, opening, step_timeout) => opened,
            trouble = lost_hop(&mut status, route) => Err(trouble),
        }
    }

    async fn open_streams(
        swarm: &Swarm,
        route: &Route,
        opening: Opening,
        step_timeout: Duration,
    ) -> Result<Self, Trouble> {
        let (first, last) = (&route.first().worker, &route.last().worker);
        let collected = async { collect(swarm.channel(last).await?, opening.collect).await };
        let collected = collected.await.map_err(|refusal| Trouble::at(last, refusal))?;
        let forward = async { HopSession::open(swarm.channel(first).await?, opening.open).await };
        let (hops, trouble) = forward.await.map_err(|refusal| Trouble::at(first, refusal))?;
        Ok(Self {
            route: route.clone(),
            streams: Some(Streams { hops, trouble, collected }),
            status: swarm.status(),
            step_timeout,
            rebuilt: 0,
            under_way: VecDeque::new(),
        })
    }

    /// Where the session stands, once all hops have it.
    pub(super) async fn opened(&mut self) -> Result<Opened, Trouble> {
        let Streams { trouble, .. } = streams(&mut self.streams);
        let opened = tokio::select! {
            opened = trouble.opened() => opened,
            trouble = lost_hop(&mut self.status, &self.route) => return Err(trouble),
            () = tokio::time::sleep(self.step_timeout) => return Err(self.no_answer()),
        };
        let opened = opened.map_err(|failure| Trouble::at(&failure.worker, failure.refusal))?;
        self.rebuilt = opened.replays;
        Ok(opened)
    }

    /// What the last hop answered last in an older attempt, in case it was lost on the way.
    pub(super) fn last_answer(&mut self) -> Option<StepOutput> {
        streams(&mut self.streams).collected.last.take()
    }

    /// The session is over. The place is held until its hops have freed their caches: a moment, at most a few
    /// seconds.
    pub(super) fn end(mut self, place: Place) {
        if let Some(streams) = self.streams.take() {
            tokio::spawn(async move {
                streams.end().await;
                drop(place);
            });
        }
    }

    /// Breaks the attempt: the hops keep their caches for the next one.
    pub(super) fn leave(mut self) {
        self.streams = None;
    }

    /// How many steps were sent and not answered.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    /// Sends a step down the route. One that rebuilds is not answered.
    pub(super) async fn send(&mut self, step: Step) -> Result<(), Trouble> {
        let (rebuilds, rows) = (step.rebuilds, step.rows());
        let expected = Expected {
            position: step.end(),
            sampled: step.samples as usize,
            scores: step.scores as usize,
            pools: step.pools,
        };
        let Streams { hops, trouble, .. } = streams(&mut self.streams);
        let sent = tokio::select! {
            sent = hops.send(step) => sent,
            failure = trouble.failure() => return Err(Trouble::at(&failure.worker, failure.refusal)),
            trouble = lost_hop(&mut self.status, &self.route) => return Err(trouble),
            () = tokio::time::sleep(self.step_timeout) => return Err(self.no_answer()),
        };
        if let Err(refusal) = sent {
            let first = self.route.first().worker.clone();
            return Err(self.blame(Trouble::at(&first, refusal)).await);
        }
        if rebuilds {
            self.rebuilt = self.rebuilt.saturating_add(u32::try_from(rows).unwrap_or(u32::MAX));
        } else {
            self.under_way.push_back(expected);
        }
        Ok(())
    }

    /// The answer to the oldest step under way.
    pub(super) async fn next(&mut self) -> Result<StepOutput, Trouble> {
        let last = self.route.last().worker.clone();
        let patience = self.patience();
        let Streams { collected, trouble, .. } = streams(&mut self.streams);
        let output = tokio::select! {
            biased; // What was answered before a hop failed is good.
            output = collected.next() => output,
            failure = trouble.failure() => return Err(Trouble::at(&failure.worker, failure.refusal)),
            trouble = lost_hop(&mut self.status, &self.route) => return Err(trouble),
            () = tokio::time::sleep(patience) => return Err(self.no_answer()),
        };
        self.rebuilt = 0;
        match output {
            Ok(Some(output)) => self.checked(output).map_err(|message| Trouble::protocol(&last, message)),
            Ok(None) => Err(self.blame(Trouble::protocol(&last, "the last hop ended the session")).await),
            Err(refusal) => Err(self.blame(Trouble::at(&last, refusal)).await),
        }
    }

    /// How long an answer may take: a step's time, and one more for each lot of rows that is computed again before.
    fn patience(&self) -> Duration {
        self.step_timeout.saturating_mul(1 + self.rebuilt.div_ceil(ROWS_A_STEP).min(MOST_STEPS))
    }

    fn checked(&mut self, output: StepOutput) -> Result<StepOutput, String> {
        let expected = self.under_way.pop_front().ok_or("an answer to no step")?;
        let got = Expected {
            position: output.position,
            sampled: output.tokens.len(),
            scores: output.scores.len(),
            pools: !output.pooled.is_empty(),
        };
        if got == expected { Ok(output) } else { Err(format!("expected {expected:?}, got {got:?}")) }
    }

    /// The trouble that a hop is told of on the way up, if that arrives in time; else the given one.
    async fn blame(&mut self, otherwise: Trouble) -> Trouble {
        let Streams { trouble, .. } = streams(&mut self.streams);
        let named = async {
            tokio::select! {
                failure = trouble.failure() => Trouble::at(&failure.worker, failure.refusal),
                trouble = lost_hop(&mut self.status, &self.route) => trouble,
            }
        };
        timeout(BLAME_GRACE, named).await.unwrap_or(otherwise)
    }

    fn no_answer(&self) -> Trouble {
        let message = format!("no answer to a step within {} s", self.step_timeout.as_secs_f32());
        Trouble { worker: None, refusal: Refusal::new(RefusalCause::Timeout, message) }
    }
}

fn streams(streams: &mut Option<Streams>) -> &mut Streams {
    streams.as_mut().expect("they are taken only from a pipeline that ends")
}

impl Streams {
    /// `Collect` stays until `Forward` has ended, so that the last hop sees an end and no break.
    async fn end(self) {
        self.hops.end(self.trouble).await;
        drop(self.collected);
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if self.under_way.len() > 1 {
            // The end would wait behind the pieces of a prompt, and they would be computed for nobody.
            return;
        }
        let runtime = tokio::runtime::Handle::try_current();
        if let (Some(streams), Ok(runtime)) = (self.streams.take(), runtime) {
            runtime.spawn(streams.end());
        }
    }
}

/// Resolves when a hop of the route goes offline, or is suspect while another could take its place. Streams notice it
/// too, but some of them later.
async fn lost_hop(status: &mut watch::Receiver<Arc<SwarmStatus>>, route: &Route) -> Trouble {
    let lost = |status: &Arc<SwarmStatus>| unusable_hop(status, route).is_some();
    let found = match status.wait_for(lost).await {
        Ok(status) => unusable_hop(&status, route),
        Err(_) => None,
    };
    match found {
        Some((worker, why)) => Trouble::at(&worker, Refusal::new(RefusalCause::HopFailed, why)),
        // Without status there is no news of any hop; the streams still tell.
        None => std::future::pending().await,
    }
}

/// The first hop that is not to be waited for, and why.
fn unusable_hop(status: &SwarmStatus, route: &Route) -> Option<(NodeId, &'static str)> {
    let why = |worker: &NodeId, shard: usize| {
        let replicas = status.shards.get(shard).map_or(&[][..], |shard| &shard.replicas);
        let Some(own) = replicas.iter().find(|replica| replica.worker == *worker) else {
            return Some("the worker went offline");
        };
        let mut others =
            replicas.iter().filter(|other| other.worker != *worker && other.model.serves(&own.model));
        match own.state {
            ReplicaState::Offline => Some("the worker went offline"),
            ReplicaState::Suspect if others.any(|other| other.state == ReplicaState::Loaded) => {
                Some("the worker does not answer, and there is another")
            }
            _ => None,
        }
    };
    let of_hop =
        |worker: &NodeId, shards: ShardRange| shards.iter().find_map(|shard| why(worker, shard.0 as usize));
    route.hops().iter().find_map(|hop| Some((hop.worker.clone(), of_hop(&hop.worker, hop.shards)?)))
}
