//! Who has one of a port's places, and who gives it up for a newcomer.
//!
//! A connection without a request in hand costs its client nothing to open again, as every client of HTTP knows: when
//! places run short, the one that has been idle for longest is dismissed, as web servers do. So whoever holds many
//! connections and asks nothing shuts nobody out, health probes least of all. Only one that is new is spared for a
//! moment, for its first request may be on its way. While no connection can go, newcomers wait in the kernel's
//! backlog: to a client a busy port is better slow than closed.

use std::{
    collections::BTreeMap,
    future::pending,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::Request,
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// One in so many places is kept free, so that a newcomer need not wait for the dismissed one to be gone.
const SPARE_SHARE: usize = 32;
/// Whoever is dismissed is gone within milliseconds, unless its client is not there or still reads an answer: then
/// another has to go as well.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// The places of one port. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    free: Arc<Semaphore>,
    spare: usize,
    /// For so long a connection without a first request is not dismissed.
    spared: Duration,
    taken: Mutex<Taken>,
    /// A connection has ended its last request.
    idle: Notify,
}

#[derive(Default)]
struct Taken {
    next_id: u64,
    /// By age.
    connections: BTreeMap<u64, Connection>,
}

/// What is known of one connection.
struct Connection {
    /// Requests in hand.
    requests: usize,
    /// It has had one at all.
    asked: bool,
    /// When it came, or its last request ended; an end of the answer may still be on its way to the client.
    idle_since: Instant,
    dismissed: CancellationToken,
}

impl Connection {
    /// From when on it may be dismissed, if it may at all.
    fn may_go(&self, spared: Duration) -> Option<Instant> {
        let idle = self.requests == 0 && !self.dismissed.is_cancelled();
        idle.then(|| if self.asked { self.idle_since } else { self.idle_since + spared })
    }
}

/// What came of the wish that a connection goes.
#[derive(Clone, Copy)]
enum Dismissal {
    /// One was told to end.
    Told,
    /// All that are idle are new; the first may be dismissed then.
    NotBefore(Instant),
    /// None is idle.
    Nobody,
}

impl Places {
    /// At least one place. A connection that has asked nothing yet is `spared` for so long.
    pub(super) fn new(count: usize, spared: Duration) -> Self {
        let count = count.max(1);
        Self(Arc::new(Shared {
            free: Arc::new(Semaphore::new(count)),
            spare: count / SPARE_SHARE,
            spared,
            taken: Mutex::default(),
            idle: Notify::new(),
        }))
    }

    /// A place for a newcomer, when there is one.
    pub(super) async fn take(&self) -> Place {
        let permit = loop {
            let mut idle = pin!(self.0.idle.notified());
            idle.as_mut().enable();
            let scarce = self.0.free.available_permits() <= self.0.spare;
            let dismissal = if scarce { self.dismiss_longest_idle() } else { Dismissal::Nobody };
            let another_may_go = async {
                match dismissal {
                    Dismissal::Told => sleep(GONE_WITHIN).await,
                    // Early or late, it is looked again.
                    Dismissal::NotBefore(then) => drop(timeout_at(then, idle).await),
                    Dismissal::Nobody => idle.await,
                }
            };
            tokio::select! {
                biased;
                permit = self.0.free.clone().acquire_owned() => break permit.expect("never closed"),
                () = another_may_go => {}
            }
        };
        let dismissed = CancellationToken::new();
        let connection = Connection {
            requests: 0,
            asked: false,
            idle_since: Instant::now(),
            dismissed: dismissed.clone(),
        };
        let mut taken = self.0.taken();
        let id = taken.next_id;
        taken.next_id += 1;
        taken.connections.insert(id, connection);
        drop(taken);
        Place(Arc::new(Held { id, dismissed, shared: self.0.clone(), _permit: permit }))
    }

    /// When descriptors are missing: tells one connection to end, if one can go.
    pub(super) fn make_room(&self) {
        self.dismiss_longest_idle();
    }

    /// Tells the connection to end that has had no request in hand for longest, if there is one that is not new.
    fn dismiss_longest_idle(&self) -> Dismissal {
        let (taken, now) = (self.0.taken(), Instant::now());
        let idle = taken.connections.values().filter_map(|connection| {
            let then = connection.may_go(self.0.spared)?;
            Some((then > now, if then > now { then } else { connection.idle_since }, connection))
        });
        match idle.min_by_key(|(is_new, then, _)| (*is_new, *then)) {
            Some((false, _, connection)) => {
                connection.dismissed.cancel();
                Dismissal::Told
            }
            Some((true, then, _)) => Dismissal::NotBefore(then),
            None => Dismissal::Nobody,
        }
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, free again when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Place(Arc<Held>);

struct Held {
    id: u64,
    dismissed: CancellationToken,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.taken().connections.remove(&self.id);
    }
}

impl Place {
    /// Resolves when the place is wanted for another.
    pub(super) async fn dismissed(&self) {
        self.0.dismissed.cancelled().await;
    }

    /// Resolves when so much time has passed since it came, without a first request.
    pub(super) async fn silent_for(&self, patience: Duration) {
        let came = self.connection(|connection| connection.idle_since);
        sleep_until(came + patience).await;
        if self.has_asked() {
            pending().await
        }
    }

    /// Whether it has had a request at all.
    pub(super) fn has_asked(&self) -> bool {
        self.connection(|connection| connection.asked)
    }

    /// Until when it had requests in hand; now, while it has some.
    pub(super) fn busy_until(&self) -> Instant {
        self.connection(
            |connection| {
                if connection.requests > 0 { Instant::now() } else { connection.idle_since }
            },
        )
    }

    fn begin(&self) {
        self.connection(|connection| {
            connection.requests += 1;
            connection.asked = true;
        });
    }

    fn end(&self) {
        let idle = self.connection(|connection| {
            connection.requests -= 1;
            connection.idle_since = Instant::now();
            connection.requests == 0
        });
        if idle {
            self.0.shared.idle.notify_waiters();
        }
    }

    fn connection<T>(&self, with: impl FnOnce(&mut Connection) -> T) -> T {
        let mut taken = self.0.shared.taken();
        with(taken.connections.get_mut(&self.0.id).expect("there until the place is dropped"))
    }
}

/// Counts a request of the connection from its head until the end of its answer is handed to the connection, which
/// then writes what it has not written yet.
pub(super) async fn hold(Extension(place): Extension<Place>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().remove::<Place>();
    place.begin();
    let held = InHand(place);
    next.run(request).await.map(|body| Body::new(Answer { body, _held: held }))
}

struct InHand(Place);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// An answer on its way.
struct Answer {
    body: Body,
    _held: InHand,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
