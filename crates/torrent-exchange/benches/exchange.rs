//! How fast a model comes from one peer and from four, over pipes in memory and over TCP on this machine. Everything is
//! read from disk, checked and written, in one process.
//!
//! `cargo bench -p torrent-exchange`; `TMPDIR=/dev/shm` leaves the disk out of it.

use std::{collections::BTreeMap, fs, io, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Instant};

use model_torrent::{Hashing, Metainfo, PieceSet, Store};
use swarm_types::{ModelDigest, NodeId};
use tokio::{
    io::{AsyncRead, AsyncWrite, duplex},
    net::{TcpListener, TcpStream},
};
use torrent_exchange::{Fetchers, Metrics, Peers, SeedLimits, Seeder, Shelf, Shelved, Wanted};

/// So many bytes take long enough to be measured.
const MODEL: usize = 256 << 20;
/// Bytes that a pipe holds: about what a network between two machines does.
const PIPE: usize = 256 << 10;

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

#[derive(Clone, Copy)]
enum Way {
    Pipe,
    Tcp,
}

/// The seeders, and how to reach them.
#[derive(Clone)]
struct Swarm {
    way: Way,
    seeders: BTreeMap<NodeId, Seeder>,
}

impl Peers for Swarm {
    type Stream = Box<dyn Io>;

    async fn open(&self, peer: &NodeId) -> io::Result<Box<dyn Io>> {
        let seeder = self.seeders.get(peer).cloned().ok_or(io::ErrorKind::NotFound)?;
        let peer = peer.clone();
        match self.way {
            Way::Pipe => {
                let (here, there) = duplex(PIPE);
                tokio::spawn(async move { seeder.serve(there, &peer).await });
                Ok(Box::new(here))
            }
            Way::Tcp => {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
                let here = TcpStream::connect(listener.local_addr()?).await?;
                let (there, _) = listener.accept().await?;
                here.set_nodelay(true)?;
                there.set_nodelay(true)?;
                tokio::spawn(async move { seeder.serve(there, &peer).await });
                Ok(Box::new(here))
            }
        }
    }

    async fn holders(&self, _: ModelDigest) -> Vec<NodeId> {
        self.seeders.keys().cloned().collect()
    }
}

/// MB/s of one fetch.
async fn measure(way: Way, peers: usize, metainfo: &Arc<Metainfo>, path: &PathBuf) -> f64 {
    let (mut seeders, mut shelved): (_, Vec<Shelved>) = (BTreeMap::new(), vec![]);
    for name in ["aa", "bb", "cc", "dd"].iter().take(peers) {
        let store = Store::whole(metainfo.clone(), std::slice::from_ref(path)).expect("a store");
        let shelf = Shelf::default();
        shelved.push(shelf.put(Arc::new(store)));
        let seeder = Seeder::new(shelf, &SeedLimits::default(), Metrics::default());
        seeders.insert(name.parse().expect("base58"), seeder);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let fetchers = Fetchers::new(Swarm { way, seeders }, Shelf::default(), Metrics::default());
    let (info_hash, folder) = (metainfo.info_hash(), folder.path().join("store"));
    let wanted = Wanted { info_hash, folder, metainfo: Some(metainfo.clone()) };
    let fetcher = fetchers.open(wanted).await.expect("a fetcher");
    let start = Instant::now();
    fetcher.fetch(PieceSet::full(metainfo.layout().pieces())).await.expect("all pieces");
    let rate = MODEL as f64 / 1e6 / start.elapsed().as_secs_f64();
    fetcher.close().await;
    rate
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("made.gguf");
    let block: Vec<u8> =
        (0..MODEL / 8).flat_map(|n| (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    fs::write(&path, block).expect("written");
    let hashing = Hashing { threads: NonZeroUsize::MIN, progress: &|_| {} };
    let start = Instant::now();
    let metainfo = Arc::new(Metainfo::of_files(std::slice::from_ref(&path), &hashing).expect("a torrent"));
    println!("hashing alone, one thread: {:.0} MB/s", MODEL as f64 / 1e6 / start.elapsed().as_secs_f64());
    for (way, name) in [(Way::Pipe, "pipes"), (Way::Tcp, "TCP")] {
        for peers in [1, 4] {
            let mut rates = vec![];
            for _ in 0..3 {
                rates.push(measure(way, peers, &metainfo, &path).await);
            }
            rates.sort_by(f64::total_cmp);
            println!("{name}, from {peers}: {:.0} MB/s ({:.0} to {:.0})", rates[1], rates[0], rates[2]);
        }
    }
}
