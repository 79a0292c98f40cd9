//! Another route: the wait for one when a route has broken, and when to take one before it does.

use swarm_types::{Hop, Precision, Route, ShardStatus, SwarmStatus};
use tokio::time::{Instant, timeout_at};

use super::{
    GenerationError,
    recovery::{Recovery, Trouble},
};
use crate::{
    route::is_leaving,
    swarm::{Reserved, Swarm},
};

/// A route as the session wishes it after this trouble, as soon as there is one.
///
/// # Errors
/// With what was last in the way, when the time for that is over or it would be in vain.
pub(super) async fn reserve(
    swarm: &Swarm,
    recovery: &mut Recovery,
    precision: Precision,
    trouble: &Trouble,
) -> Result<Reserved, GenerationError> {
    let deadline = recovery.deadline();
    let mut status = swarm.status();
    loop {
        recovery.sees(&status.borrow_and_update());
        let problem = match swarm.reserve(recovery.wish(swarm.any_route(), precision)) {
            Ok(reserved) => return Ok(reserved),
            Err(problem) => problem,
        };
        if recovery.is_refused(trouble) || Instant::now() >= deadline {
            let missing = format!("no other route within {} s: {problem}", recovery.patience().as_secs_f32());
            return Err(recovery.give_up(trouble, Some(missing)));
        }
        let until = recovery.next_release().map_or(deadline, |release| release.min(deadline));
        if let Ok(Err(_)) = timeout_at(until, status.changed()).await {
            return Err(recovery.give_up(trouble, Some("this gateway is shutting down".into())));
        }
    }
}

/// Whether a hop of the route is leaving: it ends what runs, and takes nothing more.
pub(super) fn is_left(status: &SwarmStatus, route: &Route) -> bool {
    let leaves = |hop: &Hop, shard: &ShardStatus| {
        shard.replicas.iter().any(|replica| replica.worker == hop.worker && is_leaving(replica))
    };
    let hops = route.hops().iter();
    hops.flat_map(|hop| hop.shards.iter().map(move |shard| (hop, shard)))
        .any(|(hop, shard)| status.shards.get(shard.0 as usize).is_some_and(|shard| leaves(hop, shard)))
}
