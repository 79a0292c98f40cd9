//! Since when the swarm cannot serve, as far as this gateway has seen it, and how long that may last.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    route::{Missing, RouteProblem},
    swarm::Swarm,
};

/// Nobody is sent away for less, or for longer: clients heed no longer time.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Whether the swarm serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Service {
    /// It never has.
    NotYet,
    Whole,
    /// It did until then.
    LostAt(Instant),
}

/// The loading that the swarm waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Loading {
    /// When it was first seen, and how far it was.
    since: Instant,
    from: u8,
    /// How far it is.
    percent: u8,
}

/// Watches whether the swarm serves. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    since: Instant,
    service: watch::Receiver<Service>,
    loading: watch::Receiver<Option<Loading>>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Outage {
    /// From now on.
    pub(super) fn watch(swarm: Swarm) -> Self {
        let problem = swarm.problem();
        let (told, service) = watch::channel(now(problem.as_ref(), Service::NotYet));
        let (tell_loading, loading) = watch::channel(Loading::of(problem.as_ref(), None));
        let task = AbortOnDropHandle::new(tokio::spawn(follow(swarm, told, tell_loading)));
        Self { since: Instant::now(), service, loading, _task: Arc::new(task) }
    }

    /// When the swarm may serve again, as far as one can tell: by how fast it loads, or else after a
    /// quarter of the time for which it has not served: most outages are short, and the longer ones are not asked after
    /// each second.
    pub(super) fn come_again(&self) -> Duration {
        let gone_for = match *self.service.borrow() {
            Service::Whole => Duration::ZERO,
            Service::NotYet => self.since.elapsed(),
            Service::LostAt(time) => time.elapsed(),
        };
        let loading = self.loading.borrow().and_then(|loading| loading.left(Instant::now()));
        loading.unwrap_or(gone_for / 4).clamp(BOUNDS.0, BOUNDS.1)
    }

    /// Whether the swarm served until `lately`, or does: whoever waits then waits for what comes back as a rule.
    pub(super) fn is_young(&self, lately: Duration) -> bool {
        match *self.service.borrow() {
            Service::NotYet => false,
            Service::Whole => true,
            Service::LostAt(time) => time.elapsed() < lately,
        }
    }
}

impl Loading {
    /// What all that is missing waits for, if that is loading: the worker that is least far.
    fn of(problem: Option<&RouteProblem>, before: Option<Self>) -> Option<Self> {
        let percent = |missing: &Missing| match missing {
            Missing::Loading { percent } => Some(*percent),
            _ => None,
        };
        let percents: Option<Vec<u8>> =
            problem?.missing.iter().map(|(_, missing)| percent(missing)).collect();
        let percent = percents?.into_iter().min()?;
        let new = || Self { since: Instant::now(), from: percent, percent };
        // Another one that is less far begins a new count.
        let before = before.filter(|before| before.percent <= percent);
        Some(Self { percent, ..before.unwrap_or_else(new) })
    }

    /// How long it will still take at the pace so far. Nothing before it has shown one.
    fn left(self, now: Instant) -> Option<Duration> {
        let done = u32::from(self.percent.checked_sub(self.from)?);
        let left = 100_u32.saturating_sub(self.percent.into());
        (done > 0).then(|| (now - self.since) * left / done)
    }
}

async fn follow(swarm: Swarm, told: watch::Sender<Service>, loading: watch::Sender<Option<Loading>>) {
    let mut status = swarm.status();
    loop {
        status.mark_unchanged();
        let problem = swarm.problem();
        told.send_if_modified(|service| {
            let before = std::mem::replace(service, now(problem.as_ref(), *service));
            before != *service
        });
        loading.send_modify(|loading| *loading = Loading::of(problem.as_ref(), *loading));
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            () = told.closed() => return,
        }
    }
}

fn now(problem: Option<&RouteProblem>, before: Service) -> Service {
    match (problem, before) {
        (None, _) => Service::Whole,
        (Some(_), Service::Whole) => Service::LostAt(Instant::now()),
        (Some(_), before) => before,
    }
}

#[cfg(test)]
mod tests {
    use swarm_types::ShardId;

    use super::*;

    #[test]
    fn what_loads_is_ready_when_it_goes_on_like_that() {
        let problem = |missing: &[Missing]| {
            let missing = missing.iter().enumerate();
            RouteProblem { missing: missing.map(|(shard, m)| (ShardId(shard as u32), *m)).collect() }
        };
        let loading = |percent| Missing::Loading { percent };
        let begun = Loading::of(Some(&problem(&[loading(90), loading(10)])), None).expect("all load");
        assert_eq!((begun.from, begun.left(Instant::now())), (10, None));
        let later = Loading::of(Some(&problem(&[loading(30)])), Some(begun)).expect("it loads");
        let left = later.left(later.since + Duration::from_secs(4)).expect("it goes on");
        assert_eq!(left, Duration::from_secs(14));
        let another = Loading::of(Some(&problem(&[loading(5)])), Some(later)).expect("it loads");
        assert_eq!(another.from, 5);
        assert_eq!(Loading::of(Some(&problem(&[loading(5), Missing::Absent])), Some(another)), None);
        assert_eq!(Loading::of(None, Some(another)), None);
    }
}
