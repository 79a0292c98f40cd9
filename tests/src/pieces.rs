//! Which pieces of a model's files a node needs, and which it has.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::ensure;
use gguf::Header;
use model_hub::HubConfig;
use model_torrent::{Hashing, Metainfo, Piece, PieceIndex, PieceSet, Store};
use shard_engine::{cut_of, places};
use swarm_types::ShardRange;

use crate::{Swarm, SwarmSpec, chat};

/// A model's whole files, and their pieces.
#[derive(Debug)]
pub struct SharedModel {
    path: PathBuf,
    header: Header,
    /// What it is.
    pub metainfo: Arc<Metainfo>,
}

impl SharedModel {
    /// Of this file, and of the others that lie beside it if it is one of several.
    ///
    /// # Errors
    /// When it cannot be read, or is no model.
    pub async fn of(path: PathBuf) -> anyhow::Result<Self> {
        let metainfo = model_hub::identify(&path, &HubConfig::default()).await?;
        Ok(Self { header: Header::read_without_arrays(&path)?, path, metainfo })
    }

    /// Where its first file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All its pieces.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let layout = self.metainfo.layout();
        (0..layout.pieces()).filter_map(|piece| layout.piece(PieceIndex(piece)))
    }

    /// The pieces that any node fetches first. How long a header is shows only when it is here: twice as many are
    /// fetched until it is.
    #[must_use]
    pub fn header_pieces(&self) -> PieceSet {
        let layout = self.metainfo.layout();
        let mut pieces = PieceSet::empty(layout.pieces());
        for (number, file) in self.header.files.iter().enumerate() {
            let least = file.data_offset.div_ceil(u64::from(layout.piece_length())).next_power_of_two();
            let first = layout.pieces_of(number).unwrap_or_default().zip(0..least);
            first.for_each(|(piece, _)| pieces.insert(PieceIndex(piece)));
        }
        pieces
    }

    /// The pieces that a worker of these shards fetches.
    ///
    /// # Errors
    /// When the model has no such shards.
    pub fn wanted(&self, total_shards: u32, shards: ShardRange) -> anyhow::Result<PieceSet> {
        let cut = cut_of(&self.header, total_shards, None)?;
        let mut wanted = self.metainfo.layout().covering(places(&self.header, &cut, shards)?)?;
        self.header_pieces().iter().for_each(|piece| wanted.insert(piece));
        Ok(wanted)
    }

    /// How many bytes are in some pieces.
    #[must_use]
    pub fn bytes(&self, of: &PieceSet) -> u64 {
        let pieces = self.pieces().filter(|piece| of.contains(piece.index));
        pieces.map(|piece| u64::from(piece.length)).sum()
    }

    /// The pieces that a node has in its cache; the node must have ended. Each piece there must be the model's or a
    /// hole, and what the node would believe to have must be what it has.
    ///
    /// # Errors
    /// When that is not so.
    pub fn kept(&self, cache: &Path) -> anyhow::Result<PieceSet> {
        let folder = cache.join("swarm").join(self.metainfo.info_hash().to_string());
        let (layout, mut files) = (self.metainfo.layout(), vec![]);
        for (number, file) in self.header.files.iter().enumerate() {
            let (kept, right) =
                (std::fs::read(folder.join(layout.path(number)))?, std::fs::read(&file.path)?);
            ensure!(kept.len() == right.len(), "file {number} has {} bytes, not {}", kept.len(), right.len());
            files.push((kept, right));
        }
        let mut here = PieceSet::empty(layout.pieces());
        for piece in self.pieces() {
            let (kept, right) = &files[piece.file];
            let place = piece.offset as usize..piece.offset as usize + piece.length as usize;
            if kept[place.clone()] == right[place.clone()] {
                here.insert(piece.index);
            } else {
                let is_hole = kept[place].iter().all(|byte| *byte == 0);
                ensure!(is_hole, "piece {} is neither the model's nor a hole", piece.index);
            }
        }
        let hashing = Hashing { threads: NonZeroUsize::MIN, progress: &|_| {} };
        let believed = Store::open(&folder, self.metainfo.clone(), &hashing)?.here();
        ensure!(believed == here, "{} pieces count as here, {} are", believed.count(), here.count());
        Ok(here)
    }

    /// The pieces that a node which has ended believes to have in its cache, all of them the model's. There may be torn
    /// ones beside them, which a disk that was full leaves.
    ///
    /// # Errors
    /// When a piece that it believes to have is not the model's.
    pub fn believed(&self, cache: &Path) -> anyhow::Result<PieceSet> {
        let folder = cache.join("swarm").join(self.metainfo.info_hash().to_string());
        let hashing = Hashing { threads: NonZeroUsize::MIN, progress: &|_| {} };
        let store = Store::open(&folder, self.metainfo.clone(), &hashing)?;
        let here = store.here();
        for piece in self.pieces().filter(|piece| here.contains(piece.index)) {
            self.metainfo.verify_piece(piece.index, &store.read(piece.index, 0..piece.length)?)?;
        }
        Ok(here)
    }

    /// What the model answers where all nodes have its file.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn says(&self, to: &str, max_tokens: u32) -> anyhow::Result<String> {
        let spec = SwarmSpec { total_shards: 1, ..SwarmSpec::new(self.path.clone()) };
        let swarm = Swarm::ready(spec).await?;
        chat(&swarm.gateway, to, max_tokens).await
    }
}
