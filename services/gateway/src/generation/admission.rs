//! Who may run how many generations, and how many wait for their turn.
//!
//! No principal has all of anything while another wants some: a few places to run in are kept for those who run
//! nothing; a place that becomes free goes to whoever runs least, and among equals around in turn; and where all places
//! to wait in are taken, whoever waits with most gives one up for whoever waits with fewer.

use std::{
    collections::HashMap,
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout},
};

use super::{GenerationConfig, GenerationError, metrics::GenerationMetrics, patience::Patience};
use crate::{clients::Principal, waits};

/// One in so many places is kept for principals that run nothing yet.
const KEPT_SHARE: u32 = 16;
/// Who waits is told its place as often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The bounds of one gateway's generations, and what of them is taken.
#[derive(Debug)]
pub(super) struct Admission {
    places: Arc<Places>,
    /// How long a generation waits for its turn.
    patience: Duration,
    closed: watch::Sender<bool>,
    metrics: GenerationMetrics,
}

#[derive(Debug)]
struct Places {
    most_running: u32,
    most_waiting: usize,
    taken: Mutex<Taken>,
    running: watch::Sender<u32>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Those who run none are not there.
    running: HashMap<Principal, u32>,
    all_running: u32,
    next_id: u64,
    /// The round of the last whose turn came.
    round: u64,
    /// In the order in which they came. None of them may run yet.
    waiting: Vec<Waiting>,
    /// When to come again, for those who are sent away.
    patience: Patience,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    principal: Principal,
    /// A principal has one turn a round; whoever comes takes part in the round that goes on.
    round: u64,
    turn: oneshot::Sender<Place>,
}

/// A generation's place among those that run, until it is dropped.
pub(super) struct Place(Option<Held>);

struct Held {
    places: Arc<Places>,
    principal: Principal,
    /// By which [`Patience`] knows it.
    number: u64,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl Admission {
    /// Nothing runs or waits yet.
    pub(super) fn new(config: &GenerationConfig, metrics: GenerationMetrics) -> Self {
        let places = Places {
            most_running: config.max_generations,
            most_waiting: config.max_queued as usize,
            taken: Mutex::default(),
            running: watch::Sender::new(0),
        };
        Self {
            places: Arc::new(places),
            patience: config.queue_timeout,
            closed: watch::Sender::new(false),
            metrics,
        }
    }

    /// Whether nothing more is taken in.
    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Resolves when nothing more is taken in.
    pub(super) async fn closed(&self) {
        // The sender lives as long as this.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Generations that run now, of all principals.
    pub(super) fn running(&self) -> u32 {
        *self.places.running.borrow()
    }

    /// A place for a generation of `principal`, when its turn comes.
    ///
    /// # Errors
    /// `Full` when too many wait already, its turn does not come in time, or it has to give way to a principal of whom
    /// fewer wait.
    pub(super) async fn enter(&self, principal: Principal) -> Result<Place, GenerationError> {
        let full = || GenerationError::Full { retry_after: self.places.come_again() };
        let (in_line, turn) = match self.places.take(principal) {
            Entry::Runs(place) => return Ok(place),
            Entry::Waits(in_line, turn) => (in_line, turn),
            Entry::Full => return Err(full()),
        };
        let _counted = self.metrics.waits();
        let mut turn = pin!(timeout(self.patience, turn));
        loop {
            waits::for_this(format!("place {} in the queue", in_line.place()));
            tokio::select! {
                entered = &mut turn => {
                    waits::over();
                    return match entered {
                        Ok(Ok(place)) => Ok(place),
                        Ok(Err(_)) | Err(_) => Err(full()),
                    };
                }
                () = sleep(TELL_EVERY) => {}
            }
        }
    }

    /// Takes nothing more in and waits, up to `patience`, until all that runs has ended.
    pub(super) async fn drain(&self, patience: Duration) {
        self.closed.send_replace(true);
        let mut running = self.places.running.subscribe();
        if timeout(patience, running.wait_for(|running| *running == 0)).await.is_err() {
            let left = self.running();
            tracing::warn!(left, "not all generations ended in time, they are broken off");
        }
    }
}

/// What comes of the wish to run.
enum Entry {
    Runs(Place),
    Waits(InLine, oneshot::Receiver<Place>),
    Full,
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, principal: Principal) -> Entry {
        let mut taken = self.taken();
        if self.may_run(&taken, &principal) {
            return Entry::Runs(self.begin(&mut taken, principal));
        }
        if taken.waiting.len() >= self.most_waiting && !taken.make_room_for(&principal) {
            return Entry::Full;
        }
        let (turn, receiver) = oneshot::channel();
        let (id, round) = (taken.next_id, taken.round_of(&principal));
        taken.next_id += 1;
        taken.waiting.push(Waiting { id, principal, round, turn });
        Entry::Waits(InLine { places: self.clone(), id }, receiver)
    }

    /// The last places are for those who run nothing.
    fn may_run(&self, taken: &Taken, principal: &Principal) -> bool {
        let kept = if taken.running.contains_key(principal) { self.most_running / KEPT_SHARE } else { 0 };
        taken.all_running < self.most_running - kept
    }

    /// When somebody who is sent away now would find a place.
    fn come_again(&self) -> Duration {
        let mut taken = self.taken();
        let ahead = taken.waiting.len();
        taken.patience.come_again(ahead, self.most_running, Instant::now())
    }

    fn begin(self: &Arc<Self>, taken: &mut Taken, principal: Principal) -> Place {
        *taken.running.entry(principal.clone()).or_default() += 1;
        taken.all_running += 1;
        self.running.send_replace(taken.all_running);
        let number = taken.patience.began(Instant::now());
        Place(Some(Held { places: self.clone(), principal, number }))
    }

    fn end(&self, taken: &mut Taken, principal: &Principal) {
        if let Some(running) = taken.running.get_mut(principal) {
            *running -= 1;
            if *running == 0 {
                taken.running.remove(principal);
            }
        }
        taken.all_running -= 1;
        self.running.send_replace(taken.all_running);
    }

    /// Lets those begin whose turn it is.
    fn go_on(self: &Arc<Self>, taken: &mut Taken) {
        while let Some(next) = self.next(taken) {
            let Waiting { principal, round, turn, .. } = taken.waiting.remove(next);
            taken.round = taken.round.max(round);
            let place = self.begin(taken, principal.clone());
            // Whoever has just given up is not there to take it.
            if let Err(mut place) = turn.send(place) {
                if let Some(held) = place.0.take() {
                    taken.patience.never_began(held.number);
                }
                self.end(taken, &principal);
            }
        }
    }

    /// Of those who may run, whoever runs least; of these, whose round it is; of these, the first to come.
    fn next(&self, taken: &Taken) -> Option<usize> {
        let running = |waiting: &Waiting| taken.running.get(&waiting.principal).copied().unwrap_or(0);
        let able = taken.waiting.iter().enumerate().filter(|(_, one)| self.may_run(taken, &one.principal));
        able.min_by_key(|(_, waiting)| (running(waiting), waiting.round)).map(|(place, _)| place)
    }
}

impl Taken {
    /// The round in which one more of this principal has its turn.
    fn round_of(&self, principal: &Principal) -> u64 {
        let own = self.waiting.iter().filter(|waiting| waiting.principal == *principal);
        own.map(|waiting| waiting.round + 1).max().unwrap_or(0).max(self.round)
    }

    /// Takes the newest place in line from the principal who has most, if this one has at least two fewer: then nobody
    /// ends up with fewer than the one who came.
    #[allow(clippy::mutable_key_type, reason = "a client is hashed by its name, which never changes")]
    fn make_room_for(&mut self, principal: &Principal) -> bool {
        let mut counts: HashMap<&Principal, usize> = HashMap::new();
        for waiting in &self.waiting {
            *counts.entry(&waiting.principal).or_default() += 1;
        }
        let own = counts.get(principal).copied().unwrap_or(0);
        let most = counts.values().max().copied().unwrap_or(0);
        if most < own + 2 {
            return false;
        }
        let gives_way = |waiting: &Waiting| counts.get(&waiting.principal) == Some(&most);
        match self.waiting.iter().rposition(gives_way) {
            // It is told by losing the sender of its turn.
            Some(place) => drop(self.waiting.remove(place)),
            None => return false,
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(Held { places, principal, number }) = self.0.take() else { return };
        let mut taken = places.taken();
        taken.patience.ended(number, Instant::now());
        places.end(&mut taken, &principal);
        places.go_on(&mut taken);
    }
}

/// A place in line, given up when it is dropped.
struct InLine {
    places: Arc<Places>,
    id: u64,
}

impl InLine {
    /// How many wait up to here, this one included, in the order in which they came.
    fn place(&self) -> usize {
        let taken = self.places.taken();
        taken.waiting.iter().take_while(|waiting| waiting.id != self.id).count() + 1
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.places.taken().waiting.retain(|waiting| waiting.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use clap::Parser;
    use futures::{FutureExt, future::BoxFuture};
    use swarm_process::metrics::Registry;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        config: GenerationConfig,
    }

    type Entering<'a> = BoxFuture<'a, Result<Place, GenerationError>>;

    fn admission(running: u32, waiting: u32) -> Admission {
        let mut config = Flags::parse_from(["gateway"]).config;
        (config.max_generations, config.max_queued) = (running, waiting);
        Admission::new(&config, GenerationMetrics::new(&Registry::default(), "model"))
    }

    fn who(last: u8) -> Principal {
        Principal::at(IpAddr::from([10, 0, 0, last]))
    }

    /// Enters as far as it comes without waiting.
    fn enter(admission: &Admission, last: u8) -> (Entering<'_>, Option<Result<Place, GenerationError>>) {
        let mut entering = admission.enter(who(last)).boxed();
        let entered = entering.as_mut().now_or_never();
        (entering, entered)
    }

    fn runs(admission: &Admission, last: u8) -> Place {
        enter(admission, last).1.expect("at once").expect("a place")
    }

    fn waits(admission: &Admission, last: u8) -> Entering<'_> {
        let (entering, entered) = enter(admission, last);
        assert!(entered.is_none(), "{last} does not wait: {entered:?}");
        entering
    }

    fn is_full(admission: &Admission, last: u8) {
        assert!(matches!(enter(admission, last).1, Some(Err(GenerationError::Full { .. }))));
    }

    #[tokio::test]
    async fn a_lone_principal_has_all_places_but_those_that_are_kept() {
        let admission = admission(32, 2);
        let held: Vec<_> = (0..30).map(|_| runs(&admission, 1)).collect();
        let (_first, _second) = (waits(&admission, 1), waits(&admission, 1));
        is_full(&admission, 1);
        let others = (runs(&admission, 2), runs(&admission, 3));
        assert_eq!(admission.running(), 32);
        let _third = waits(&admission, 4);
        drop((held, others));
    }

    #[tokio::test]
    async fn a_free_place_goes_to_whoever_runs_least_and_came_first() {
        let admission = admission(2, 8);
        let (one, two) = (runs(&admission, 1), runs(&admission, 1));
        let mut greedy = waits(&admission, 1);
        let (mut modest, mut later) = (waits(&admission, 2), waits(&admission, 2));
        drop(one);
        assert!(greedy.as_mut().now_or_never().is_none(), "it runs one already");
        let place = modest.as_mut().now_or_never().expect("its turn").expect("a place");
        drop(two);
        let next =
            greedy.as_mut().now_or_never().expect("both would run one, and it came first").expect("a place");
        drop(next);
        let last = later.as_mut().now_or_never().expect("its turn").expect("a place");
        assert_eq!(admission.running(), 2);
        drop((place, last));
        assert_eq!(admission.running(), 0);
    }

    #[tokio::test]
    async fn among_equals_turns_go_around() {
        let admission = admission(1, 8);
        let running = runs(&admission, 1);
        let mut line: Vec<_> = [1, 1, 1, 2, 3].iter().map(|last| waits(&admission, *last)).collect();
        let mut order = vec![];
        drop(running);
        while order.len() < line.len() {
            for (place, entering) in line.iter_mut().enumerate() {
                if order.contains(&place) {
                    continue;
                }
                // Its place is given back at once.
                if let Some(turn) = entering.as_mut().now_or_never() {
                    drop(turn.expect("a place"));
                    order.push(place);
                }
            }
        }
        assert_eq!(order, [0, 3, 4, 1, 2]);
    }

    #[tokio::test]
    async fn where_all_wait_whoever_waits_with_most_gives_way() {
        let admission = admission(1, 4);
        let _running = runs(&admission, 1);
        let mut line: Vec<_> = (0..4).map(|_| waits(&admission, 1)).collect();
        is_full(&admission, 1);
        let (_two, _three) = (waits(&admission, 2), waits(&admission, 2));
        is_full(&admission, 2);
        let gave_way: Vec<_> = line
            .iter_mut()
            .map(|one| one.as_mut().now_or_never().is_some_and(|turn| turn.is_err()))
            .collect();
        assert_eq!(gave_way, [false, false, true, true], "the newest");
        let _four = waits(&admission, 3);
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_nothing_behind() {
        let admission = admission(1, 1);
        let place = runs(&admission, 1);
        drop(waits(&admission, 2));
        let given_up = waits(&admission, 2);
        // Its turn comes, and it goes without having looked.
        drop(place);
        drop(given_up);
        assert_eq!(admission.running(), 0);
        drop(runs(&admission, 3));
        {
            let taken = admission.places.taken();
            assert!(taken.running.is_empty() && taken.waiting.is_empty() && taken.patience.holds_none());
        }
        admission.drain(Duration::ZERO).await;
    }
}
