//! Who is served now: a bounded number of peers, and of streams each. When all places are taken, a newcomer gets that
//! of a peer that asks nothing, or of the one that has been served for longest, if it had its turn: so everybody gets a
//! part of what few have, and can give it on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use swarm_types::NodeId;
use tokio::{sync::Notify, time::Instant};

use crate::limits::SeedLimits;

/// Who asks nothing for so long has what it needs for now. Before that it may just have come.
const SPARED: Duration = Duration::from_secs(5);
/// Who goes on asking keeps its place for so long: much longer than a stream and the first pieces take.
const TURN: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(crate) struct Seats {
    peers: usize,
    streams_a_peer: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    taken: BTreeMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    peer: NodeId,
    since: Instant,
    /// Since when nothing was asked, if nothing is under way.
    idle: Option<Instant>,
    dismissed: Arc<Notify>,
}

/// A stream's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    number: u64,
    seats: Arc<Seats>,
    dismissed: Arc<Notify>,
}

impl Seats {
    pub(crate) fn new(limits: &SeedLimits) -> Arc<Self> {
        let (peers, streams_a_peer) = (limits.peers, limits.streams_a_peer);
        Arc::new(Self { peers, streams_a_peer, state: Mutex::default() })
    }

    /// A place for one more stream of this peer, if there is one.
    pub(crate) fn take(self: &Arc<Self>, peer: &NodeId) -> Option<Seat> {
        let mut state = self.state();
        let own = state.taken.values().filter(|taken| taken.peer == *peer).count();
        if own >= self.streams_a_peer {
            return None;
        }
        let peers: BTreeSet<&NodeId> = state.taken.values().map(|taken| &taken.peer).collect();
        if own == 0 && peers.len() >= self.peers && !state.dismiss(Instant::now()) {
            return None;
        }
        let (number, dismissed) = (state.next, Arc::new(Notify::new()));
        state.next += 1;
        let (peer, since) = (peer.clone(), Instant::now());
        let taken = Taken { peer, since, idle: Some(since), dismissed: dismissed.clone() };
        state.taken.insert(number, taken);
        Some(Seat { number, seats: self.clone(), dismissed })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sends a peer away, if one may go.
    fn dismiss(&mut self, now: Instant) -> bool {
        let idle = self.first(|taken| taken.idle.filter(|since| now.duration_since(*since) >= SPARED));
        let had_its_turn = |taken: &Taken| (now.duration_since(taken.since) >= TURN).then_some(taken.since);
        let Some(peer) = idle.or_else(|| self.first(had_its_turn)) else { return false };
        self.taken.retain(|_, taken| {
            let stays = taken.peer != peer;
            if !stays {
                taken.dismissed.notify_one();
            }
            stays
        });
        true
    }

    /// Of the peers for all of whose streams there is a time, the one whose time is first.
    fn first(&self, time: impl Fn(&Taken) -> Option<Instant>) -> Option<NodeId> {
        let mut times: BTreeMap<&NodeId, Option<Instant>> = BTreeMap::new();
        for taken in self.taken.values() {
            let last = times.entry(&taken.peer).or_insert_with(|| time(taken));
            *last = last.zip(time(taken)).map(|(one, other)| one.max(other));
        }
        let times = times.into_iter().filter_map(|(peer, time)| Some((time?, peer)));
        times.min().map(|(_, peer)| peer.clone())
    }
}

impl Seat {
    /// Nothing is under way, or something is.
    pub(crate) fn is_idle(&self, idle: bool) {
        if let Some(taken) = self.seats.state().taken.get_mut(&self.number) {
            taken.idle = idle.then(|| taken.idle.unwrap_or_else(Instant::now));
        }
    }

    /// Resolves when another gets the place.
    pub(crate) async fn dismissed(&self) {
        self.dismissed.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.state().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_nothing_gives_way_and_who_does_stays() {
        let limits = SeedLimits { peers: 2, streams_a_peer: 2, ..SeedLimits::default() };
        let seats = Seats::new(&limits);
        let peers = ["aa", "bb", "cc"].map(|name| name.parse::<NodeId>().unwrap());
        let busy = seats.take(&peers[0]).unwrap();
        let idle = seats.take(&peers[0]).unwrap();
        assert!(seats.take(&peers[0]).is_none(), "two streams a peer");
        busy.is_idle(false);
        let gives_way = seats.take(&peers[1]).unwrap();
        assert!(seats.take(&peers[2]).is_none(), "everybody just came");
        tokio::time::advance(SPARED).await;
        let newcomer = seats.take(&peers[2]).unwrap();
        gives_way.dismissed().await;
        drop((gives_way, idle));
        assert!(seats.take(&peers[1]).is_none(), "and a place is free only once");
        drop(newcomer);
        let newcomer = seats.take(&peers[1]).unwrap();
        newcomer.is_idle(false);
        tokio::time::advance(TURN - SPARED).await;
        assert!(seats.take(&peers[2]).is_some(), "the first one had its turn");
        busy.dismissed().await;
    }
}
