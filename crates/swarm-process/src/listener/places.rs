//! Who has one of a port's places, and who gives it up for a newcomer.
//!
//! A connection begins in the entrance, and gets a place with its first request. Health probes are answered in the
//! entrance, so whatever holds the places, they get through. In the entrance a newcomer takes the room of whoever has
//! been silent for longest. Among the places, the one goes that has waited for its client for longest: without a
//! request, for the rest of one, or with an answer that the client does not read. To open a connection again costs a
//! client nothing, as every client of HTTP knows. While none can go, requests wait, up to a bound: to a client a busy
//! port is better slow than closed.

use std::{
    collections::BTreeMap,
    future::pending,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Version;
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::bounds::Bounds;
use crate::shares::{Crowded, Share, Shares, Terms};

/// The places of one port. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    entrance: Shares,
    places: Shares,
    requests: Shares,
    bounds: Bounds,
}

impl Places {
    /// All are free.
    pub(super) fn new(bounds: Bounds) -> Self {
        // Who waits for a place stays in the entrance, of which the other half is for newcomers.
        let entrance = bounds.entrance.max(2);
        let waiting = entrance / 2;
        let shares = |amount| Shares::new(Terms { amount, waiting, spared: bounds.spared, at_once: false });
        Self(Arc::new(Shared {
            entrance: shares(entrance),
            places: shares(bounds.connections),
            // One for each connection, and all that a full one has.
            requests: shares(bounds.connections + bounds.streams as usize),
            bounds,
        }))
    }

    /// Lets a newcomer into the entrance, when there is room.
    pub(super) async fn enter(&self, address: IpAddr) -> Place {
        let dismissed = CancellationToken::new();
        let share = loop {
            match self.0.entrance.take_until(address, 1, dismissed.clone()).await {
                Ok(share) => break share,
                // Nobody else waits to be let in.
                Err(Crowded) => sleep(self.0.bounds.spared).await,
            }
        };
        let state = State {
            next_id: 0,
            requests: BTreeMap::new(),
            speaks_http_1_1: false,
            asked: false,
            since: Instant::now(),
            settled: false,
            share,
        };
        Place(Arc::new(Held {
            address,
            dismissed,
            shared: self.0.clone(),
            settled: OnceCell::new(),
            state: Mutex::new(state),
        }))
    }

    /// When descriptors are missing: tells one connection to end, if one can go.
    pub(super) fn make_room(&self) {
        let _ = self.0.entrance.dismiss_one() || self.0.places.dismiss_one();
    }
}

/// A connection's room, free again when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Place(Arc<Held>);

struct Held {
    address: IpAddr,
    dismissed: CancellationToken,
    shared: Arc<Shared>,
    settled: OnceCell<()>,
    state: Mutex<State>,
}

/// Whose turn it is to go on with a request, and since when it is the client's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    Ours,
    /// The client is to send the rest of it.
    Rest(Instant),
    /// The client is to read the answer.
    Answer(Instant),
}

impl Turn {
    fn waits_since(self) -> Option<Instant> {
        match self {
            Self::Ours => None,
            Self::Rest(since) | Self::Answer(since) => Some(since),
        }
    }
}

/// What is known of one connection.
struct State {
    next_id: u64,
    /// Those in hand.
    requests: BTreeMap<u64, Turn>,
    /// Its requests come one after another, over HTTP/1.1.
    speaks_http_1_1: bool,
    /// It has had one at all.
    asked: bool,
    /// When it came, or ended its last request.
    since: Instant,
    settled: bool,
    /// Of the entrance, or of the places once it is settled.
    share: Share,
}

impl State {
    /// Since when all of it waits for the client, if it does.
    fn waits_since(&self) -> Option<Instant> {
        self.requests.values().try_fold(self.since, |since, turn| Some(since.max(turn.waits_since()?)))
    }

    fn may_go(&self, bounds: &Bounds) -> Option<Instant> {
        let spared = match (self.requests.is_empty(), self.settled) {
            (false, _) => bounds.stalled,
            // It may have been let in this moment.
            (true, false) => bounds.spared,
            (true, true) => Duration::ZERO,
        };
        self.waits_since().map(|since| since + spared)
    }
}

impl Place {
    /// Resolves when the place is wanted for another.
    pub(super) async fn dismissed(&self) {
        self.0.dismissed.cancelled().await;
    }

    /// Resolves when so much time has passed since it came, without a first request.
    pub(super) async fn silent_for(&self, patience: Duration) {
        let came = self.0.state().since;
        sleep_until(came + patience).await;
        if self.has_asked() {
            pending().await
        }
    }

    /// Whether it has had a request at all.
    pub(super) fn has_asked(&self) -> bool {
        self.0.state().asked
    }

    /// Since when all of it waits for its client; now, while something waits for us.
    pub(super) fn waits_since(&self) -> Instant {
        self.0.state().waits_since().unwrap_or_else(Instant::now)
    }

    /// Since when one of its requests waits for the client.
    pub(super) fn longest_stall(&self) -> Option<Instant> {
        self.0.state().requests.values().filter_map(|turn| turn.waits_since()).min()
    }

    /// Whether it has asked all that it began to ask, over HTTP/1.1, and has not got all answers.
    pub(super) fn awaits_answers(&self) -> bool {
        let state = self.0.state();
        let is_whole = |turn: &Turn| !matches!(turn, Turn::Rest(_));
        state.speaks_http_1_1 && !state.requests.is_empty() && state.requests.values().all(is_whole)
    }

    /// A request begins; gives its number.
    pub(super) fn begin(&self, version: Version) -> u64 {
        self.change(|state| {
            let id = state.next_id;
            state.next_id += 1;
            state.requests.insert(id, Turn::Ours);
            state.speaks_http_1_1 = version == Version::HTTP_11;
            state.asked = true;
            id
        })
    }

    /// A request is over.
    pub(super) fn end(&self, id: u64) {
        self.change(|state| {
            state.requests.remove(&id);
            state.since = Instant::now();
        });
    }

    /// Who is to go on with a request now.
    pub(super) fn turn(&self, id: u64, turn: Turn) {
        self.change(|state| state.requests.insert(id, turn));
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.state();
        let changed = change(&mut state);
        state.share.may_go(state.may_go(&self.0.shared.bounds));
        changed
    }

    /// From when on the place of a request may be given to another, whose client has gone on with it just now.
    pub(super) fn stalls_at(&self) -> Instant {
        Instant::now() + self.0.shared.bounds.stalled
    }

    /// Gets a place for this connection, and room for one request.
    pub(super) async fn settle(&self) -> Result<Share, Crowded> {
        let Shared { requests, bounds, .. } = &*self.0.shared;
        let settled = async {
            self.0.settled.get_or_try_init(|| self.move_in()).await?;
            requests.take_until(self.0.address, 1, self.0.dismissed.clone()).await
        };
        tokio::select! {
            biased;
            () = self.dismissed() => Err(Crowded),
            settled = timeout(bounds.head, settled) => {
                let share = settled.unwrap_or(Err(Crowded))?;
                share.may_go(None);
                Ok(share)
            }
        }
    }

    async fn move_in(&self) -> Result<(), Crowded> {
        let Held { address, dismissed, shared, .. } = &*self.0;
        let share = shared.places.take_until(*address, 1, dismissed.clone()).await?;
        let mut state = self.0.state();
        state.settled = true;
        share.may_go(state.may_go(&shared.bounds));
        let of_the_entrance = std::mem::replace(&mut state.share, share);
        drop(state);
        drop(of_the_entrance);
        Ok(())
    }
}

impl Held {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
