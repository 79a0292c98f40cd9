//! Fills a store: decides what to ask of whom, checks what comes, and goes on until nothing is missing.

mod gaps;

use std::{collections::HashSet, sync::Arc, time::Duration};

use model_torrent::{Metainfo, Picker, PieceIndex, PieceSet, Store, TorrentError};
use swarm_types::NodeId;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    task::{JoinError, JoinSet, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use crate::{
    causes::Refusal,
    error::ExchangeError,
    fetchers::Fetchers,
    link::{Event, News},
    links::Links,
    metrics::{Left, Metrics},
    origin::Origin,
    origin_reads::OriginReads,
    peers::Peers,
    progress::Progress,
    shelf::Shelved,
};

/// Speeds are of a second.
const TICK: Duration = Duration::from_secs(1);
/// Between two questions for holders; longer and longer while there are no others.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOK_AT_LAST: Duration = Duration::from_secs(10);
/// If nothing is under way for so long, those who failed a piece may be asked for it again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(30);
/// What is wanted next is often asked for soon, and then of the same peers.
const LINGER: Duration = Duration::from_secs(10);

/// What the handle says.
pub(crate) enum Command {
    /// These pieces are wanted.
    Fetch { pieces: PieceSet, done: oneshot::Sender<Result<(), ExchangeError>> },
    /// These are to be read from here too.
    Origin(Arc<dyn Origin>),
}

/// Somebody waits for pieces.
struct Waiting {
    missing: PieceSet,
    done: oneshot::Sender<Result<(), ExchangeError>>,
}

/// What a blocking thread did.
enum Done {
    Written { peer: NodeId, piece: PieceIndex, result: Result<(), TorrentError> },
    Synced(Result<(), TorrentError>),
}

/// The loop of one fetcher.
pub(crate) struct Load<P> {
    fetchers: Fetchers<P>,
    metainfo: Arc<Metainfo>,
    store: Arc<Store>,
    shelved: Shelved,
    commands: mpsc::Receiver<Command>,
    news: mpsc::Receiver<News>,
    links: Links<P>,
    origin: OriginReads,
    picker: Picker<NodeId>,
    seed: u64,
    /// All that was ever asked for.
    wanted: PieceSet,
    /// What is known to be here.
    here: PieceSet,
    waiting: Vec<Waiting>,
    disk: JoinSet<Done>,
    lookup: JoinSet<Vec<NodeId>>,
    next_lookup: Instant,
    lookup_wait: Duration,
    /// When something was under way last.
    busy: Instant,
    progress: watch::Sender<Progress>,
    givers: HashSet<NodeId>,
    metrics: Metrics,
}

/// What a load begins with.
pub(crate) struct Beginning {
    pub(crate) store: Arc<Store>,
    pub(crate) shelved: Shelved,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) progress: watch::Sender<Progress>,
    /// Fetchers with different seeds ask for different pieces first.
    pub(crate) seed: u64,
}

impl<P: Peers> Load<P> {
    pub(crate) fn new(fetchers: Fetchers<P>, beginning: Beginning) -> Self {
        let Beginning { store, shelved, commands, progress, seed } = beginning;
        let (metainfo, here) = (store.metainfo().clone(), store.here());
        let (events, news) = mpsc::channel(64);
        let nothing = PieceSet::empty(metainfo.layout().pieces());
        let (links, metrics) =
            (Links::new(fetchers.clone(), metainfo.clone(), events), fetchers.metrics.clone());
        Self {
            origin: OriginReads::new(metainfo.clone(), links.writes.clone(), metrics.clone()),
            links,
            picker: Picker::new(&nothing, seed, fetchers.limits.requests_a_peer.max(1)),
            metrics,
            fetchers,
            metainfo,
            store,
            shelved,
            commands,
            news,
            seed,
            wanted: nothing,
            here,
            waiting: vec![],
            disk: JoinSet::new(),
            lookup: JoinSet::new(),
            next_lookup: Instant::now(),
            lookup_wait: LOOK_AGAIN,
            busy: Instant::now(),
            progress,
            givers: HashSet::new(),
        }
    }

    /// Until the handle is dropped.
    pub(crate) async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Fetch { pieces, done }) => self.on_fetch(pieces, done),
                    Some(Command::Origin(origin)) => self.on_origin(origin),
                    None => break,
                },
                Some(news) = self.news.recv() => self.on_news(news),
                Some(done) = self.disk.join_next() => self.on_disk(done),
                Some(read) = self.origin.next() => self.on_origin_read(read),
                Some(holders) = self.lookup.join_next() => self.on_holders(holders),
                _ = ticks.tick() => self.on_tick(),
            }
        }
        self.end().await;
    }

    /// When this is over, nobody has the store but who got it from the handle.
    async fn end(mut self) {
        self.links.leave_all();
        self.origin.stop();
        while self.disk.join_next().await.is_some() {}
        self.shelved.take_off().await;
        let store = self.store;
        let synced = spawn_blocking(move || store.sync());
        if let Ok(Err(error)) = synced.await {
            warn!(%error, "what was fetched last may have to be fetched again");
        }
    }

    fn on_fetch(&mut self, pieces: PieceSet, done: oneshot::Sender<Result<(), ExchangeError>>) {
        let count = self.metainfo.layout().pieces();
        if pieces.pieces() != count {
            let what = format!("set of {} pieces", pieces.pieces());
            _ = done.send(Err(TorrentError::OutOfBounds(what).into()));
            return;
        }
        pieces.iter().for_each(|piece| self.wanted.insert(piece));
        self.recount();
        let missing = pieces.without(&self.here);
        if missing.count() == 0 {
            _ = done.send(Ok(()));
            return;
        }
        if self.picker.is_done() {
            self.origin.missing = Instant::now();
        }
        if self.links.peers().is_empty() && self.busy.elapsed() >= LINGER {
            self.origin.reaching = Instant::now();
        }
        self.picker.want(&missing);
        self.waiting.push(Waiting { missing, done });
        (self.next_lookup, self.lookup_wait, self.busy) = (Instant::now(), LOOK_AGAIN, Instant::now());
        self.look();
        self.fill_all();
    }

    fn on_news(&mut self, news: News) {
        let Some(open) = self.links.of(&news) else { return };
        let News { peer, event, .. } = news;
        match event {
            Event::Has(pieces) => {
                open.has = Some(pieces.clone());
                self.picker.peer_has(&peer, pieces);
                self.fill(&peer);
            }
            Event::Got(piece) => {
                open.has.iter_mut().for_each(|has| has.insert(piece));
                self.picker.peer_got(&peer, piece);
                // Most news are of pieces that are not needed here.
                if self.wanted.contains(piece) && !self.here.contains(piece) {
                    self.fill(&peer);
                }
            }
            Event::Whole(piece, bytes, permit) => {
                open.asked.ends(piece);
                open.writing += 1;
                self.write(peer, piece, bytes, permit);
            }
            Event::Refused(piece, Refusal::NotHere | Refusal::Unreadable) => {
                open.asked.ends(piece);
                open.has.iter_mut().for_each(|has| has.remove(piece));
                self.picker.failed(&peer, piece);
                self.fill_all();
            }
            Event::Refused(_, Refusal::Full | Refusal::Cancelled) => self.leave(&peer, Left::Away),
            Event::Ended(cause) if open.writing > 0 => open.ended = Some(cause),
            Event::Ended(cause) => self.leave(&peer, cause),
        }
    }

    /// Checks and writes a piece that came.
    fn write(&mut self, peer: NodeId, piece: PieceIndex, bytes: Vec<u8>, permit: OwnedSemaphorePermit) {
        let store = self.store.clone();
        self.disk.spawn_blocking(move || {
            let result = store.write(piece, &bytes);
            drop(permit);
            Done::Written { peer, piece, result }
        });
    }

    fn on_disk(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Synced(result)) => result.unwrap_or_else(|error| self.give_up(error)),
            Ok(Done::Written { peer, piece, result }) => self.on_written(&peer, piece, result),
            // A thread that panicked: whoever waits hears that the fetcher ended.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn on_written(&mut self, peer: &NodeId, piece: PieceIndex, result: Result<(), TorrentError>) {
        if *peer == self.origin.id {
            return self.on_origin_written(piece, result);
        }
        let open = self.links.get(peer);
        let ended = open.and_then(|open| {
            open.writing = open.writing.saturating_sub(1);
            open.ended.filter(|_| open.writing == 0)
        });
        match result {
            Ok(()) => {
                self.metrics.verified.inc();
                self.links.book.gave(peer);
                if self.givers.insert(peer.clone()) {
                    self.progress.send_modify(|progress| progress.givers += 1);
                }
                self.arrived(piece);
            }
            Err(TorrentError::WrongBytes { .. }) => {
                warn!(%peer, %piece, "a peer sent wrong bytes, it is not asked again");
                self.metrics.wrong.inc();
                self.picker.failed(peer, piece);
                // It may have been left meanwhile.
                self.links.book.left(peer, Left::Wrong, Instant::now());
                return self.leave(peer, Left::Wrong);
            }
            Err(error) => return self.give_up(error),
        }
        match ended {
            Some(cause) => self.leave(peer, cause),
            None => self.fill(peer),
        }
    }

    /// A piece is here, from whomever.
    fn arrived(&mut self, piece: PieceIndex) {
        if self.here.contains(piece) {
            return;
        }
        self.here.insert(piece);
        self.shelved.changed();
        let asked = self.picker.arrived(piece);
        asked.iter().for_each(|peer| self.links.cancel(peer, piece));
        asked.iter().for_each(|peer| self.fill(peer));
        let length = self.metainfo.layout().piece(piece).map_or(0, |piece| u64::from(piece.length));
        if self.wanted.contains(piece) {
            self.progress.send_modify(|progress| {
                progress.pieces_here += 1;
                progress.bytes_here += length;
            });
            if self.picker.is_done() {
                let store = self.store.clone();
                self.disk.spawn_blocking(move || Done::Synced(store.sync()));
            }
        }
        // Whoever is told sees it in the progress too.
        self.waiting.iter_mut().for_each(|waiting| waiting.missing.remove(piece));
        for waiting in self.waiting.extract_if(.., |waiting| waiting.missing.count() == 0) {
            _ = waiting.done.send(Ok(()));
        }
    }

    /// The disk does not take it: nothing more is fetched until somebody asks again.
    fn give_up(&mut self, error: TorrentError) {
        warn!(%error, "pieces cannot be kept");
        let error = Arc::new(error);
        for waiting in self.waiting.drain(..) {
            _ = waiting.done.send(Err(ExchangeError::Torrent(error.clone())));
        }
        self.links.leave_all();
        self.origin.stop();
        self.here = self.store.here();
        self.wanted = self.wanted.without(&self.wanted.without(&self.here));
        self.picker = self.new_picker();
        self.recount();
    }

    /// A peer is talked to no more; what was under way with it is asked of others.
    fn leave(&mut self, peer: &NodeId, cause: Left) {
        self.links.leave(peer, cause);
        self.picker.peer_left(peer);
        self.fill_all();
        self.look();
    }

    fn fill_all(&mut self) {
        self.links.peers().iter().for_each(|peer| self.fill(peer));
        self.fill_from_origin();
    }

    /// Asks a peer for as much as it may be asked for.
    fn fill(&mut self, peer: &NodeId) {
        if self.links.get(peer).is_none_or(|open| open.ended.is_some()) {
            return;
        }
        while let Some(piece) = self.picker.next(peer) {
            if !self.links.ask(peer, piece) {
                return self.leave(peer, Left::Stalled);
            }
        }
    }

    fn on_holders(&mut self, holders: Result<Vec<NodeId>, JoinError>) {
        let Ok(holders) = holders else { return };
        self.lookup_wait = match self.links.book.held_by(holders) {
            true => LOOK_AGAIN,
            false => (self.lookup_wait * 3 / 2).min(LOOK_AT_LAST),
        };
        self.next_lookup = Instant::now() + self.lookup_wait;
        self.look();
    }

    /// Looks for peers, if any are needed.
    fn look(&mut self) {
        let now = Instant::now();
        if self.picker.is_done() {
            return;
        }
        self.links.connect(now);
        if self.lookup.is_empty() && self.next_lookup <= now {
            let (peers, info_hash) = (self.fetchers.peers.clone(), self.metainfo.info_hash());
            self.lookup.spawn(async move { peers.holders(info_hash).await });
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        self.compare_with_store();
        for (peer, cause) in self.links.second(now) {
            self.leave(&peer, cause);
        }
        for (peer, piece) in self.links.late(now, TICK) {
            self.picker.late(&peer, piece);
        }
        self.waiting.retain(|waiting| !waiting.done.is_closed());
        self.origin.second();
        if !self.links.is_idle() || !self.origin.is_idle() {
            self.busy = now;
        }
        let idle = now.duration_since(self.busy);
        if self.picker.is_done() && idle >= LINGER {
            self.links.leave_all();
            self.picker = self.new_picker();
        } else if idle >= FORGIVEN_AFTER {
            debug!("nothing is under way, everybody is asked again");
            self.busy = now;
            self.picker = self.new_picker();
        }
        self.look();
        self.fill_all();
        self.recount();
    }

    /// Others may write into the store too, and a disk that fails may lose what was there.
    fn compare_with_store(&mut self) {
        let here = self.store.here();
        here.without(&self.here).iter().for_each(|piece| self.arrived(piece));
        let lost = self.here.without(&here);
        lost.iter().for_each(|piece| self.here.remove(piece));
        let missing = self.wanted.without(&self.here);
        if lost.count() > 0 {
            self.shelved.changed();
            self.picker.want(&missing);
        }
    }

    /// For what is missing, with what peers told. Nothing may be under way.
    fn new_picker(&self) -> Picker<NodeId> {
        let missing = self.wanted.without(&self.here);
        let mut picker = Picker::new(&missing, self.seed, self.fetchers.limits.requests_a_peer.max(1));
        self.links.told().for_each(|(peer, has)| picker.peer_has(peer, has.clone()));
        picker
    }

    fn bytes_of(&self, set: &PieceSet) -> u64 {
        let pieces = set.iter().filter_map(|piece| self.metainfo.layout().piece(piece));
        pieces.map(|piece| u64::from(piece.length)).sum()
    }

    fn recount(&self) {
        let count = |set: &PieceSet| (set.count(), self.bytes_of(set));
        let (pieces_wanted, bytes_wanted) = count(&self.wanted);
        let (pieces_missing, bytes_missing) = count(&self.wanted.without(&self.here));
        let (peers, bytes_per_second) = self.links.speed();
        let now = Progress {
            pieces_wanted,
            pieces_here: pieces_wanted - pieces_missing,
            bytes_wanted,
            bytes_here: bytes_wanted - bytes_missing,
            bytes_per_second: bytes_per_second + self.origin.bytes_per_second(),
            peers,
            givers: self.givers.len(),
        };
        self.progress.send_if_modified(|before| std::mem::replace(before, now) != now);
    }
}
