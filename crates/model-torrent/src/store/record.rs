//! The record of which pieces are here.

use std::path::{Path, PathBuf};

use swarm_types::ModelDigest;

use crate::{error::TorrentError, piece_set::PieceSet, sealed};

/// Another form of the record has another number.
const FORM: &[u8] = b"llama-swarm pieces of a torrent, form 1\n";

/// Where the record of one torrent lies.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    info_hash: ModelDigest,
}

impl Record {
    pub(super) fn new(folder: &Path, info_hash: ModelDigest) -> Self {
        Self { path: folder.join("model.pieces"), info_hash }
    }

    /// What is here, if the record is whole and about these files as they are.
    pub(super) fn load(&self, stamps: &[[u8; 24]], pieces: u32) -> Option<PieceSet> {
        let bytes = sealed::load(&self.path, &self.subject(stamps), pieces.div_ceil(8) as usize)?;
        PieceSet::from_bytes(&bytes, pieces)
    }

    /// What was here when the record was written, whatever became of the files since.
    pub(super) fn told(&self, files: usize, pieces: u32) -> Option<PieceSet> {
        let bytes =
            sealed::load_about(&self.path, &self.subject(&[]), files * 24, pieces.div_ceil(8) as usize)?;
        PieceSet::from_bytes(&bytes, pieces)
    }

    pub(super) fn save(&self, stamps: &[[u8; 24]], here: &PieceSet) -> Result<(), TorrentError> {
        let saved = sealed::save(&self.path, &self.subject(stamps), here.as_bytes());
        saved.map_err(TorrentError::writing(&self.path, here.as_bytes().len() as u64))
    }

    fn subject(&self, stamps: &[[u8; 24]]) -> Vec<u8> {
        [FORM, &self.info_hash.0, stamps.as_flattened()].concat()
    }
}
