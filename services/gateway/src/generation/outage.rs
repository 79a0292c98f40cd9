//! Since when the swarm cannot serve, as far as this gateway has seen it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::swarm::Swarm;

/// Whether the swarm serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Service {
    /// It never has.
    NotYet,
    Whole,
    /// It did until then.
    LostAt(Instant),
}

/// Watches whether the swarm serves. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    service: watch::Receiver<Service>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Outage {
    /// From now on.
    pub(super) fn watch(swarm: Swarm) -> Self {
        let (told, service) = watch::channel(now(&swarm, Service::NotYet));
        let task = AbortOnDropHandle::new(tokio::spawn(follow(swarm, told)));
        Self { service, _task: Arc::new(task) }
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

async fn follow(swarm: Swarm, told: watch::Sender<Service>) {
    let mut status = swarm.status();
    loop {
        status.mark_unchanged();
        told.send_if_modified(|service| {
            let before = std::mem::replace(service, now(&swarm, *service));
            before != *service
        });
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            () = told.closed() => return,
        }
    }
}

fn now(swarm: &Swarm, before: Service) -> Service {
    match (swarm.readiness(), before) {
        (Ok(()), _) => Service::Whole,
        (Err(_), Service::Whole) => Service::LostAt(Instant::now()),
        (Err(_), before) => before,
    }
}
