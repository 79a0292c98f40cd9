//! A swarm in one process: nodes that reach each other by pipes in memory.

use std::{
    collections::BTreeMap,
    fs, io,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use model_torrent::{Hashing, Metainfo, PieceIndex, PieceSet, Store};
use swarm_types::{ModelDigest, NodeId};
use tempfile::TempDir;
use tokio::io::{DuplexStream, duplex};
use torrent_exchange::{
    ExchangeError, Fetcher, Fetchers, Metrics, Peers, SeedLimits, Seeder, Shelf, Shelved, Wanted,
};

/// Bytes that a pipe holds.
const PIPE: usize = 128 * 1024;
/// Of small models.
pub(crate) const PIECE: usize = 256 * 1024;

type Serve = Arc<dyn Fn(NodeId, DuplexStream) + Send + Sync>;

/// Who is in the swarm, and how often a stream to each was opened.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<BTreeMap<NodeId, (Serve, usize)>>>);

/// A node's way into the swarm.
#[derive(Clone)]
pub(crate) struct Port {
    net: Net,
    me: NodeId,
}

impl Peers for Port {
    type Stream = DuplexStream;

    async fn open(&self, peer: &NodeId) -> io::Result<DuplexStream> {
        let serve = {
            let mut nodes = self.net.0.lock().expect("not poisoned");
            let (serve, opened) = nodes.get_mut(peer).ok_or(io::ErrorKind::NotFound)?;
            *opened += 1;
            serve.clone()
        };
        let (here, there) = duplex(PIPE);
        serve(self.me.clone(), there);
        Ok(here)
    }

    async fn holders(&self, _: ModelDigest) -> Vec<NodeId> {
        let nodes = self.net.0.lock().expect("not poisoned");
        nodes.keys().filter(|node| **node != self.me).cloned().collect()
    }
}

impl Net {
    /// A peer that does with each stream what `serve` does.
    pub(crate) fn join(&self, id: &NodeId, serve: impl Fn(NodeId, DuplexStream) + Send + Sync + 'static) {
        self.0.lock().expect("not poisoned").insert(id.clone(), (Arc::new(serve), 0));
    }

    /// How often a stream to this peer was opened.
    pub(crate) fn opened(&self, id: &NodeId) -> usize {
        self.0.lock().expect("not poisoned")[id].1
    }
}

/// An honest node: it serves what is on its shelf, and can fetch.
pub(crate) struct Node {
    pub(crate) shelf: Shelf,
    pub(crate) metrics: Metrics,
    pub(crate) fetchers: Fetchers<Port>,
    folder: TempDir,
}

impl Node {
    /// Within the usual limits.
    pub(crate) fn new(net: &Net, number: usize) -> Self {
        Self::within(net, number, &SeedLimits::default())
    }

    /// Seeds within these limits.
    pub(crate) fn within(net: &Net, number: usize, limits: &SeedLimits) -> Self {
        let (shelf, metrics, me) = (Shelf::default(), Metrics::default(), id(number));
        let seeder = Seeder::new(shelf.clone(), limits, metrics.clone());
        net.join(&me, move |peer, stream| {
            let seeder = seeder.clone();
            tokio::spawn(async move { seeder.serve(stream, &peer).await });
        });
        let port = Port { net: net.clone(), me };
        let fetchers = Fetchers::new(port, shelf.clone(), metrics.clone());
        Self { shelf, metrics, fetchers, folder: tempfile::tempdir().expect("a folder") }
    }

    /// Where it keeps what it fetches.
    pub(crate) fn wanted(&self, info_hash: ModelDigest, metainfo: Option<Arc<Metainfo>>) -> Wanted {
        Wanted { info_hash, folder: self.folder.path().join("store"), metainfo }
    }

    /// Begins to fetch, when whoever had the folder before is gone.
    pub(crate) async fn open(&self, model: &Model) -> Fetcher {
        loop {
            match self.fetchers.open(self.wanted(model.metainfo.info_hash(), None)).await {
                Ok(fetcher) => return fetcher,
                Err(ExchangeError::Torrent(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A model's file, and its torrent.
pub(crate) struct Model {
    pub(crate) metainfo: Arc<Metainfo>,
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

impl Model {
    /// Of so many pieces; the last one has only 5 bytes.
    pub(crate) fn of(pieces: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("made.gguf");
        fs::write(&path, noise((pieces - 1) * PIECE + 5)).expect("written");
        let hashing = Hashing { threads: NonZeroUsize::MIN, progress: &|_| {} };
        let metainfo = Metainfo::of_files(std::slice::from_ref(&path), &hashing).expect("a torrent");
        Self { metainfo: Arc::new(metainfo), path, _folder: folder }
    }

    /// The whole file, to be served.
    pub(crate) fn shelve(&self, node: &Node) -> Shelved {
        let store = Store::whole(self.metainfo.clone(), std::slice::from_ref(&self.path)).expect("a store");
        node.shelf.put(Arc::new(store))
    }

    /// All pieces.
    pub(crate) fn all(&self) -> PieceSet {
        PieceSet::full(self.metainfo.layout().pieces())
    }

    /// Some pieces.
    pub(crate) fn some(&self, pieces: impl IntoIterator<Item = u32>) -> PieceSet {
        let mut set = PieceSet::empty(self.metainfo.layout().pieces());
        pieces.into_iter().for_each(|piece| set.insert(PieceIndex(piece)));
        set
    }

    /// Bytes of some pieces.
    pub(crate) fn bytes_of(&self, pieces: &PieceSet) -> u64 {
        let layout = self.metainfo.layout();
        pieces.iter().filter_map(|piece| layout.piece(piece)).map(|piece| u64::from(piece.length)).sum()
    }

    /// Whether a store has these pieces, as they are in the file.
    pub(crate) fn is_in(&self, store: &Store, pieces: &PieceSet) -> bool {
        let file = fs::read(&self.path).expect("read");
        pieces.iter().all(|index| {
            let Some(piece) = self.metainfo.layout().piece(index) else { return false };
            let start = piece.offset as usize;
            let expected = &file[start..start + piece.length as usize];
            store.read(index, 0..piece.length).is_ok_and(|got| got == expected)
        })
    }
}

/// A node's name by its number.
pub(crate) fn id(number: usize) -> NodeId {
    let letter = |digit: usize| char::from(b'a' + digit as u8);
    let name = format!("n{}{}{}", letter(number / 100), letter(number / 10 % 10), letter(number % 10));
    name.parse().expect("base58")
}

/// Bytes that look random and are the same every time: xorshift64 (Marsaglia, "Xorshift RNGs").
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}
