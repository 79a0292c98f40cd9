//! Fetches pieces of one torrent into a folder.

use std::{
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::Arc,
};

use model_torrent::{Hashing, Metainfo, PieceSet, Store};
use swarm_types::ModelDigest;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, spawn_blocking},
};

use crate::{
    error::ExchangeError,
    fetchers::Fetchers,
    first,
    load::{Beginning, Command, Load},
    origin::Origin,
    peers::Peers,
    progress::Progress,
};

/// Callers of one fetcher that are heard one after the other.
const COMMANDS: usize = 8;

/// What to fetch, and where to keep it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which model.
    pub info_hash: ModelDigest,
    /// Where its pieces are, or will be. It belongs to this torrent alone.
    pub folder: PathBuf,
    /// The torrent, if it is known already. If not, it is read from the folder, or fetched.
    pub metainfo: Option<Arc<Metainfo>>,
}

/// Fetches what it is asked for. While it lives, what is in its store is served to others. When it is dropped, the load
/// ends; what came stays in the folder.
#[derive(Debug)]
pub struct Fetcher {
    store: Arc<Store>,
    commands: mpsc::Sender<Command>,
    progress: watch::Receiver<Progress>,
    load: JoinHandle<()>,
}

impl<P: Peers> Fetchers<P> {
    /// Begins with a torrent. Waits for a holder that gives it, as long as that takes, if nobody else does. Cancel
    /// safe.
    ///
    /// # Errors
    /// When the known torrent is another one, or the folder cannot be used.
    pub async fn open(&self, wanted: Wanted) -> Result<Fetcher, ExchangeError> {
        let metainfo = self.metainfo(&wanted).await?;
        let threads = self.limits.hashing_threads;
        let store =
            blocking(move || Store::open(&wanted.folder, metainfo, &Hashing { threads, progress: &|_| {} }));
        let store = Arc::new(store.await??);
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (sender, progress) = watch::channel(Progress::default());
        let beginning = Beginning {
            store: store.clone(),
            shelved: self.shelf.put(store.clone()),
            commands: receiver,
            progress: sender,
            seed: RandomState::new().hash_one(()),
        };
        let load = tokio::spawn(Load::new(self.clone(), beginning).run());
        Ok(Fetcher { store, commands, progress, load })
    }

    async fn metainfo(&self, wanted: &Wanted) -> Result<Arc<Metainfo>, ExchangeError> {
        if let Some(known) = &wanted.metainfo {
            let same = known.info_hash() == wanted.info_hash;
            return if same { Ok(known.clone()) } else { Err(ExchangeError::OtherTorrent) };
        }
        let folder = wanted.folder.clone();
        let kept = blocking(move || Store::torrent_in(&folder)).await?;
        match kept.filter(|kept| kept.info_hash() == wanted.info_hash) {
            Some(kept) => Ok(Arc::new(kept)),
            None => Ok(first::metainfo(self, wanted.info_hash).await),
        }
    }
}

impl Fetcher {
    /// Which pieces there are.
    #[must_use]
    pub fn metainfo(&self) -> &Arc<Metainfo> {
        self.store.metainfo()
    }

    /// Where what came is kept.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Reads from here too what peers do not have, or give too slowly. There is one origin at a time.
    ///
    /// # Errors
    /// When the fetcher has ended.
    pub async fn read_from(&self, origin: Arc<dyn Origin>) -> Result<(), ExchangeError> {
        self.commands.send(Command::Origin(origin)).await.map_err(|_| ExchangeError::Ended)
    }

    /// Resolves when all these pieces are here, however long that takes. May be called several times, also at once. If
    /// it is dropped the pieces are fetched all the same, as long as the fetcher lives.
    ///
    /// # Errors
    /// When there are no such pieces; when they cannot be written, because the disk is full for example. Then nothing
    /// more is fetched until this is called again.
    pub async fn fetch(&self, pieces: PieceSet) -> Result<(), ExchangeError> {
        let (done, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Fetch { pieces, done }).await;
        sent.map_err(|_| ExchangeError::Ended)?;
        answer.await.unwrap_or(Err(ExchangeError::Ended))
    }

    /// Ends it, and waits until all that came is on the disk. Then the folder may be opened again, if nobody kept the
    /// store.
    pub async fn close(self) {
        let Self { store, commands, load, .. } = self;
        drop((store, commands));
        // It ends by itself, or has panicked already.
        _ = load.await;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ExchangeError> {
    spawn_blocking(work).await.map_err(|error| ExchangeError::Stream(error.into()))
}
