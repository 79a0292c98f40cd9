//! Which stores are served.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use swarm_types::ModelDigest;

use bytes::Bytes;
use model_torrent::{PieceIndex, PieceSet, Store, TorrentError};
use tokio::sync::watch;
use tracing::{debug, warn};

/// The stores that peers can fetch from, by info-hash. A store that is still being filled is served too: what is in it.
/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<Mutex<HashMap<ModelDigest, Arc<Served>>>>);

/// A store on the shelf; taken off it when this is dropped.
#[derive(Debug)]
pub struct Shelved {
    shelf: Shelf,
    /// Nothing once it is taken off.
    served: Option<Arc<Served>>,
    /// Nobody else keeps it.
    state: Arc<watch::Sender<bool>>,
}

/// What a stream sees of a store on the shelf.
#[derive(Debug)]
pub(crate) struct Served {
    store: Arc<Store>,
    torrent: OnceLock<Bytes>,
    /// Whether it is still on the shelf; changes with each piece too.
    state: watch::Receiver<bool>,
    changed: Weak<watch::Sender<bool>>,
    /// Pieces that were read from disk and were right, since they are on the shelf.
    checked: Mutex<PieceSet>,
    /// A piece was wrong, and somebody was told.
    is_damaged: OnceLock<()>,
}

impl Shelf {
    /// Serves a store from now on, instead of another one of the same torrent.
    #[must_use]
    pub fn put(&self, store: Arc<Store>) -> Shelved {
        let (state, changes) = watch::channel(true);
        let (state, metainfo) = (Arc::new(state), store.metainfo());
        let info_hash = metainfo.info_hash();
        let served = Arc::new(Served {
            checked: Mutex::new(PieceSet::empty(metainfo.layout().pieces())),
            store,
            torrent: OnceLock::new(),
            state: changes,
            changed: Arc::downgrade(&state),
            is_damaged: OnceLock::new(),
        });
        self.stores().insert(info_hash, served.clone());
        Shelved { shelf: self.clone(), served: Some(served), state }
    }

    /// Which torrents are served.
    #[must_use]
    pub fn info_hashes(&self) -> Vec<ModelDigest> {
        self.stores().keys().copied().collect()
    }

    pub(crate) fn get(&self, info_hash: ModelDigest) -> Option<Arc<Served>> {
        self.stores().get(&info_hash).cloned()
    }

    fn stores(&self) -> MutexGuard<'_, HashMap<ModelDigest, Arc<Served>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelved {
    /// Says that other pieces are in the store than before. Connected peers are told.
    pub fn changed(&self) {
        self.state.send_replace(true);
    }

    /// Takes it off the shelf, and waits until no stream reads from it any more.
    pub async fn take_off(mut self) {
        self.remove();
        self.state.send_replace(false);
        self.state.closed().await;
    }

    fn remove(&mut self) {
        let Some(served) = self.served.take() else { return };
        let info_hash = served.store.metainfo().info_hash();
        let mut stores = self.shelf.stores();
        if stores.get(&info_hash).is_some_and(|there| Arc::ptr_eq(there, &served)) {
            stores.remove(&info_hash);
        }
    }
}

impl Drop for Shelved {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Served {
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The torrent's bytes, made for the first who asks.
    pub(crate) fn torrent(&self) -> Bytes {
        self.torrent.get_or_init(|| self.store.metainfo().to_bytes().into()).clone()
    }

    /// Whether a piece was read from disk before, and was right.
    pub(crate) fn is_checked(&self, piece: PieceIndex) -> bool {
        self.checked().contains(piece)
    }

    /// Reads and hashes a piece before it is given for the first time: a bad disk must not make this node a liar. One
    /// that is wrong is forgotten, of which connected peers are told. Blocks for as long as the disk takes.
    pub(crate) fn check(&self, piece: PieceIndex) -> Result<(), TorrentError> {
        let checked = self.store.check(piece);
        match &checked {
            Ok(()) => self.checked().insert(piece),
            Err(error @ TorrentError::WrongBytes { .. }) => self.tell_damaged(piece, error),
            Err(_) => {}
        }
        checked
    }

    fn tell_damaged(&self, piece: PieceIndex, error: &TorrentError) {
        let path = self.store.path_of(piece).unwrap_or(std::path::Path::new("")).display();
        let (first, what) = (self.is_damaged.set(()).is_ok(), "a file has other bytes than its torrent says");
        if first {
            warn!(%path, %error, "{what}: the piece is not given to others; look after the disk, or fetch it again");
        } else {
            debug!(%path, %error, "{what}");
        }
        if let Some(changed) = self.changed.upgrade() {
            changed.send_replace(true);
        }
    }

    fn checked(&self) -> MutexGuard<'_, PieceSet> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is told of changes; says no when it is not on the shelf any more.
    pub(crate) fn changes(&self) -> Changes {
        let mut state = self.state.clone();
        state.mark_changed();
        Changes(state)
    }
}

/// Waits for changes of a store on the shelf.
pub(crate) struct Changes(watch::Receiver<bool>);

impl Changes {
    /// Whether something changed since this was asked last.
    pub(crate) fn seen(&mut self) -> bool {
        let changed = self.0.has_changed().unwrap_or(false);
        self.0.mark_unchanged();
        changed
    }

    /// The next change. Cancel safe.
    pub(crate) async fn next(&mut self) {
        match self.0.changed().await {
            // Still to be seen.
            Ok(()) => self.0.mark_changed(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Resolves when it is not on the shelf any more. Cancel safe.
    pub(crate) async fn end(&mut self) {
        // Or whoever put it there is gone.
        _ = self.0.wait_for(|on_shelf| !on_shelf).await;
    }
}
