//! A model that comes from other nodes: a part of it is here, and more comes when it is wanted.

use std::{
    collections::BTreeSet,
    ops::Range,
    path::{Path, PathBuf},
};

use gguf::{GgufError, Header};
use model_torrent::{Layout, PieceIndex, PieceSet};
use swarm_net::{NetError, PeerTorrents, SwarmNet};
use swarm_types::{ModelDigest, SwarmStatus};
use tokio::{sync::watch, task::spawn_blocking};
use torrent_exchange::{Fetcher, Metrics, Progress};
use tracing::Instrument;

use crate::{FilesError, traced::Traced};

/// A model of which a part is here: its header at least. What is here is given to others until this is dropped.
#[derive(Debug)]
pub struct SwarmModel {
    fetcher: Fetcher,
    path: PathBuf,
    /// For people.
    name: String,
    metrics: Metrics,
}

/// What a fetch begins with.
pub(crate) struct Begun {
    pub(crate) fetcher: Fetcher,
    pub(crate) name: String,
    pub(crate) metrics: Metrics,
}

impl SwarmModel {
    /// Fetches the header: the front of each file.
    pub(crate) async fn begin(begun: Begun, traced: &Traced) -> Result<Self, FilesError> {
        let Begun { fetcher, name, metrics } = begun;
        let layout = fetcher.metainfo().layout();
        let (files, piece_length) = (layout.files(), u64::from(layout.piece_length()));
        let paths: Vec<PathBuf> = fetcher.store().paths().map(Path::to_path_buf).collect();
        let path = paths.first().cloned().unwrap_or_default();
        let all = (0..files).filter_map(|file| layout.pieces_of(file)).zip(paths);
        let mut fronts: Vec<Front> = all.map(|(pieces, path)| Front { path, pieces, count: 1 }).collect();
        while !fronts.is_empty() {
            let mut first = PieceSet::empty(layout.pieces());
            fronts.iter().flat_map(Front::here).for_each(|piece| first.insert(PieceIndex(piece)));
            traced.wants(bytes_of(&first, layout));
            fetcher.fetch(first).await?;
            let next =
                move || fronts.into_iter().filter_map(|front| front.next(piece_length).transpose()).collect();
            fronts = spawn_blocking::<_, Result<_, GgufError>>(next).await??;
        }
        let file = path.clone();
        let header = spawn_blocking(move || Header::read_without_arrays(&file)).await??;
        match header.files.len() {
            told if told == files => Ok(Self { fetcher, path, name, metrics }),
            told => Err(FilesError::Files { torrent: files, header: told }),
        }
    }

    /// The first file; the others lie beside it. They have their whole length; what is not here reads as zeros.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which model.
    #[must_use]
    pub fn digest(&self) -> ModelDigest {
        self.fetcher.metainfo().info_hash()
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long it is, whole, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.fetcher.metainfo().layout().total()
    }

    /// How far it is, counted over all that was wanted so far.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.fetcher.progress()
    }

    /// Resolves when these bytes are here, however long that takes. They are counted over all files, one behind the
    /// other.
    ///
    /// # Errors
    /// When they cannot be kept, because the disk is full for example, or the files are shorter.
    pub async fn need(&self, ranges: Vec<Range<u64>>) -> Result<(), FilesError> {
        let pieces = self.fetcher.metainfo().layout().covering(ranges)?;
        self.get(pieces).await
    }

    /// Resolves when all of it is here, however long that takes.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub async fn need_all(&self) -> Result<(), FilesError> {
        self.get(PieceSet::full(self.fetcher.metainfo().layout().pieces())).await
    }

    async fn get(&self, pieces: PieceSet) -> Result<(), FilesError> {
        let traced = Traced::begin(&self.name, self.digest(), &self.metrics);
        traced.wants(bytes_of(&pieces, self.fetcher.metainfo().layout()));
        let fetched = self.fetcher.fetch(pieces).instrument(traced.span().clone()).await;
        let fetched = fetched.map_err(FilesError::from);
        traced.ended(&fetched, *self.fetcher.progress().borrow());
        fetched
    }

    /// Ends it, and waits until all that came is on the disk and the record says so.
    pub async fn close(self) {
        self.fetcher.close().await;
    }
}

fn bytes_of(pieces: &PieceSet, layout: &Layout) -> u64 {
    let pieces = pieces.iter().filter_map(|piece| layout.piece(piece));
    pieces.map(|piece| u64::from(piece.length)).sum()
}

/// How much of a file's front is here. How long its header is nobody knows before: twice as much is fetched until it is
/// whole.
struct Front {
    path: PathBuf,
    /// All pieces of the file.
    pieces: Range<u32>,
    /// How many of them are fetched.
    count: u32,
}

impl Front {
    fn here(&self) -> Range<u32> {
        self.pieces.start..self.pieces.start + self.count
    }

    /// What to fetch next; nothing if the header is whole.
    fn next(self, piece_length: u64) -> Result<Option<Self>, GgufError> {
        let (all, here) = (self.pieces.len() as u32, u64::from(self.count) * piece_length);
        match Header::read_one_file(&self.path) {
            // Nothing of what was read is a hole.
            Ok(header) if header.files.iter().all(|file| file.data_offset <= here) => Ok(None),
            Ok(_) if self.count == all => Ok(None),
            Err(error) if self.count == all => Err(error),
            _ => Ok(Some(Self { count: all.min(self.count.saturating_mul(2)), ..self })),
        }
    }
}

/// Which model to fetch, and what people call it: the one that is asked for, or the one that the swarm serves, as soon
/// as that is clear.
pub(crate) async fn wanted(
    net: &SwarmNet,
    asked: Option<ModelDigest>,
) -> Result<(ModelDigest, String), FilesError> {
    let (mut torrents, mut status) = (net.torrents(), net.status());
    let mut told = BTreeSet::new();
    loop {
        let held = torrents.borrow_and_update().clone();
        match choose(asked, &held, &status.borrow_and_update()) {
            Choice::This(model) => return Ok((model, name_of(model, &held))),
            Choice::Nothing if told.insert(String::new()) => {
                tracing::info!("no node holds a model yet, waiting for one");
            }
            Choice::Several(models) if told.insert(models.clone()) => {
                tracing::warn!(models, "the swarm has several models: name one, --model swarm:INFO_HASH");
            }
            Choice::Nothing | Choice::Several(_) => {}
        }
        let changed = tokio::select! {
            changed = torrents.changed() => changed,
            changed = status.changed() => changed,
        };
        changed.map_err(|_| NetError::Left)?;
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Choice {
    This(ModelDigest),
    Nothing,
    /// As they are to be named.
    Several(String),
}

fn choose(asked: Option<ModelDigest>, held: &PeerTorrents, status: &SwarmStatus) -> Choice {
    if let Some(asked) = asked {
        return Choice::This(asked);
    }
    let replicas = status.shards.iter().flat_map(|shard| &shard.replicas);
    let served: BTreeSet<[u8; 32]> = replicas.map(|replica| replica.model.digest.0).collect();
    let all: BTreeSet<[u8; 32]> = held.values().flatten().map(|torrent| torrent.info_hash.0).collect();
    // What somebody computes with is what the swarm is for.
    let both: BTreeSet<[u8; 32]> = all.intersection(&served).copied().collect();
    let candidates = if both.is_empty() { all } else { both };
    let mut candidates = candidates.into_iter().map(ModelDigest);
    match (candidates.next(), candidates.next()) {
        (None, _) => Choice::Nothing,
        (Some(one), None) => Choice::This(one),
        (Some(one), Some(two)) => {
            let all = [one, two].into_iter().chain(candidates);
            let named = all.map(|model| format!("swarm:{model} ({})", name_of(model, held)));
            Choice::Several(named.collect::<Vec<_>>().join(", "))
        }
    }
}

fn name_of(model: ModelDigest, held: &PeerTorrents) -> String {
    let found = held.values().flatten().find(|torrent| torrent.info_hash == model);
    found.map_or_else(|| "unknown".into(), |torrent| torrent.name.clone())
}

#[cfg(test)]
mod tests {
    use swarm_types::{
        HeldTorrent, ReplicaState,
        fixture::{held_torrent, replica, status},
    };

    use super::*;

    fn held(by: &[(&str, HeldTorrent)]) -> PeerTorrents {
        by.iter().map(|(node, torrent)| (node.parse().expect("a node"), vec![torrent.clone()])).collect()
    }

    #[test]
    fn the_model_is_the_one_that_is_asked_for_or_served_or_the_only_one() {
        let (one, two) = (held_torrent(1), held_torrent(2));
        let nobody = status(vec![vec![]]);
        let mut serves_two = replica("cc", ReplicaState::Loaded);
        serves_two.model.digest = two.info_hash;
        let (both, first) = (held(&[("aa", one.clone()), ("bb", two.clone())]), held(&[("aa", one.clone())]));
        assert_eq!(choose(Some(two.info_hash), &first, &nobody), Choice::This(two.info_hash));
        assert_eq!(choose(None, &held(&[]), &nobody), Choice::Nothing);
        assert_eq!(choose(None, &first, &nobody), Choice::This(one.info_hash));
        assert_eq!(choose(None, &both, &status(vec![vec![serves_two]])), Choice::This(two.info_hash));
        let Choice::Several(named) = choose(None, &both, &nobody) else { panic!("it is not clear") };
        assert!(named.contains(&format!("swarm:{} ({})", one.info_hash, one.name)), "{named}");
    }
}
