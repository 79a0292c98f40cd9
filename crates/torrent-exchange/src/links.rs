//! The peers that a fetch talks to: whom to take on, and whom to let go.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use model_torrent::{Metainfo, PieceIndex, PieceSet};
use swarm_types::NodeId;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tracing::debug;

use crate::{
    book::Book,
    fetchers::Fetchers,
    link::{Link, News, Order},
    metrics::Left,
    peers::Peers,
    speed::{Speed, UnderWay},
};

/// Orders that may wait for one stream: a few pieces asked and cancelled. A stream with more is stuck.
const ORDERS: usize = 64;
/// A peer without anything that is needed makes room for another one after so long. Soon, since who holds what is only
/// known of those that are talked to.
const USELESS_AFTER: Duration = Duration::from_secs(1);

/// The streams of one fetch.
pub(crate) struct Links<P> {
    fetchers: Fetchers<P>,
    metainfo: Arc<Metainfo>,
    pub(crate) book: Book,
    open: BTreeMap<NodeId, Open>,
    /// Ends them all when this is dropped.
    tasks: JoinSet<()>,
    news: mpsc::Sender<News>,
    pub(crate) writes: Arc<Semaphore>,
    next: u64,
}

/// A peer that is talked to.
pub(crate) struct Open {
    number: u64,
    orders: mpsc::Sender<Order>,
    task: AbortHandle,
    received: Arc<AtomicU64>,
    speed: Speed,
    /// Nothing before it told what it has.
    pub(crate) has: Option<PieceSet>,
    /// What is under way with it.
    pub(crate) asked: UnderWay,
    /// Its pieces that are being checked and written.
    pub(crate) writing: usize,
    /// It ended, and is forgotten when its pieces are written.
    pub(crate) ended: Option<Left>,
    idle_since: Instant,
}

impl<P: Peers> Links<P> {
    pub(crate) fn new(fetchers: Fetchers<P>, metainfo: Arc<Metainfo>, news: mpsc::Sender<News>) -> Self {
        let book = Book::new(fetchers.banned.clone());
        let writes = Arc::new(Semaphore::new(fetchers.limits.writes.max(1)));
        let (open, tasks) = (BTreeMap::new(), JoinSet::new());
        Self { fetchers, metainfo, book, open, tasks, news, writes, next: 0 }
    }

    /// Opens streams to as many peers as there is room for.
    pub(crate) fn connect(&mut self, now: Instant) {
        // Those that ended are here no more.
        while self.tasks.try_join_next().is_some() {}
        let room = self.fetchers.limits.peers.saturating_sub(self.open.len());
        let new = self.book.candidates(now).into_iter().filter(|peer| !self.open.contains_key(*peer));
        for peer in new.take(room).cloned().collect::<Vec<_>>() {
            let (orders, receiver) = mpsc::channel(ORDERS);
            let received = Arc::new(AtomicU64::new(0));
            let link = Link {
                peers: self.fetchers.peers.clone(),
                peer: peer.clone(),
                number: self.next,
                metainfo: self.metainfo.clone(),
                orders: receiver,
                news: self.news.clone(),
                received: received.clone(),
                writes: self.writes.clone(),
                metrics: self.fetchers.metrics.clone(),
            };
            let task = self.tasks.spawn(link.run());
            let open = Open {
                number: self.next,
                orders,
                task,
                received,
                speed: Speed::default(),
                has: None,
                asked: UnderWay::default(),
                writing: 0,
                ended: None,
                idle_since: now,
            };
            self.open.insert(peer, open);
            self.next += 1;
        }
    }

    /// Whom an event is about, if it is not of a stream that was left.
    pub(crate) fn of(&mut self, news: &News) -> Option<&mut Open> {
        self.open.get_mut(&news.peer).filter(|open| open.number == news.number)
    }

    /// A peer that is talked to.
    pub(crate) fn get(&mut self, peer: &NodeId) -> Option<&mut Open> {
        self.open.get_mut(peer)
    }

    /// Who can be asked.
    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.open.iter().filter(|(_, open)| open.ended.is_none()).map(|(peer, _)| peer.clone()).collect()
    }

    /// What each peer has, as far as it told.
    pub(crate) fn told(&self) -> impl Iterator<Item = (&NodeId, &PieceSet)> {
        let living = self.open.iter().filter(|(_, open)| open.ended.is_none());
        living.filter_map(|(peer, open)| Some((peer, open.has.as_ref()?)))
    }

    /// Whether nobody is still on the way to telling what it has.
    pub(crate) fn all_told(&self) -> bool {
        self.open.values().all(|open| open.has.is_some() || open.ended.is_some())
    }

    /// Asks a peer. Says no when it does not even take orders.
    pub(crate) fn ask(&mut self, peer: &NodeId, piece: PieceIndex) -> bool {
        let Some(open) = self.open.get_mut(peer) else { return false };
        let length = self.metainfo.layout().piece(piece).map_or(0, |piece| piece.length);
        open.asked.ask(piece, length, &open.speed, Instant::now());
        open.orders.try_send(Order::Ask(piece)).is_ok()
    }

    /// A peer need not send a piece any more.
    pub(crate) fn cancel(&mut self, peer: &NodeId, piece: PieceIndex) {
        let Some(open) = self.open.get_mut(peer) else { return };
        if open.asked.ends(piece) {
            // If it does not take it, it sends the piece in vain.
            _ = open.orders.try_send(Order::Cancel(piece));
        }
    }

    /// Ends the talk with a peer.
    pub(crate) fn leave(&mut self, peer: &NodeId, cause: Left) {
        let Some(open) = self.open.remove(peer) else { return };
        open.task.abort();
        debug!(%peer, ?cause, "a peer is left");
        self.fetchers.metrics.count_left(cause);
        self.book.left(peer, cause, Instant::now());
    }

    /// Ends the talk with all, who did nothing wrong.
    pub(crate) fn leave_all(&mut self) {
        self.tasks.abort_all();
        self.open.clear();
    }

    /// Whether nothing is under way, with anybody.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.values().all(|open| open.asked.is_empty() && open.writing == 0)
    }

    /// How many are talked to, and how many bytes a second come from them all.
    pub(crate) fn speed(&self) -> (usize, u64) {
        let working = self.open.values().filter(|open| !open.asked.is_empty());
        let bytes: f64 = working.filter_map(|open| open.speed.mean()).sum();
        (self.open.len(), bytes as u64)
    }

    /// A second passed. Says who is to be left.
    pub(crate) fn second(&mut self, now: Instant) -> Vec<(NodeId, Left)> {
        for open in self.open.values_mut() {
            let works = !open.asked.is_empty() || open.writing > 0;
            open.speed.second(open.received.load(Relaxed), works);
            if works {
                open.idle_since = now;
            }
        }
        let mut left = self.slow();
        left.extend(self.useless(now).into_iter().map(|peer| (peer, Left::Useless)));
        left
    }

    /// What should have come by now, and from whom. To be asked once a tick, which is so long.
    pub(crate) fn late(&mut self, now: Instant, tick: Duration) -> Vec<(NodeId, PieceIndex)> {
        if self.writes.available_permits() == 0 {
            // Nothing is read from peers while the disk is behind.
            self.open.values_mut().for_each(|open| open.asked.held_up(tick));
        }
        let living = self.open.iter().filter(|(_, open)| open.ended.is_none());
        let late = living.flat_map(|(peer, open)| open.asked.late(now).map(|piece| (peer.clone(), piece)));
        late.collect()
    }

    /// Those that are much slower than others, which have what they were asked for too. Of who has nothing to do counts
    /// how fast it was: at the end of a fetch the slow ones are alone at work.
    fn slow(&mut self) -> Vec<(NodeId, Left)> {
        let living = self.open.iter().filter(|(_, open)| open.ended.is_none());
        let speeds = living.filter_map(|(peer, open)| Some((peer.clone(), open.speed.mean()?)));
        let speeds: Vec<_> = speeds.collect();
        let mut slow = vec![];
        for (peer, _) in &speeds {
            let replaced = self.can_be_replaced(peer, |_| true);
            let some_rest = self.can_be_replaced(peer, |other| other.asked.is_empty());
            let Some(open) = self.open.get_mut(peer).filter(|open| !open.asked.is_empty()) else { continue };
            let others = speeds.iter().filter(|(other, _)| other != peer);
            let mut others: Vec<f64> = others.map(|(_, speed)| *speed).collect();
            if !replaced {
                open.speed.rests();
            } else if open.speed.is_slow(&mut others, some_rest) {
                slow.push((peer.clone(), Left::Slow));
            }
        }
        self.open.values_mut().filter(|open| open.asked.is_empty()).for_each(|open| open.speed.rests());
        slow
    }

    /// Whether others, of those that are meant, have all that was asked of a peer.
    fn can_be_replaced(&self, peer: &NodeId, by: impl Fn(&Open) -> bool) -> bool {
        let Some(open) = self.open.get(peer) else { return false };
        let others =
            self.open.iter().filter(|(other, open)| *other != peer && open.ended.is_none() && by(open));
        let others: Vec<_> = others.filter_map(|(_, open)| open.has.as_ref()).collect();
        open.asked.pieces().all(|piece| others.iter().any(|has| has.contains(piece)))
    }

    /// When there is no room: those that have had nothing to give for longest, as many as others could be tried.
    fn useless(&self, now: Instant) -> Vec<NodeId> {
        if self.open.len() < self.fetchers.limits.peers {
            return vec![];
        }
        let candidates = self.book.candidates(now);
        let waiting = candidates.iter().filter(|peer| !self.open.contains_key(**peer)).count();
        let long = |open: &Open| open.has.is_some() && now.duration_since(open.idle_since) >= USELESS_AFTER;
        let mut useless: Vec<_> = self.open.iter().filter(|(_, open)| long(open)).collect();
        useless.sort_by_key(|(_, open)| open.idle_since);
        useless.into_iter().map(|(peer, _)| peer.clone()).take(waiting).collect()
    }
}
