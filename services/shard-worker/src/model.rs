//! What the header of the model tells a worker.

use std::path::{Path, PathBuf};

use gguf::Header;
use shard_engine::{CutError, Footprint, Usage, cut_of};
use swarm_types::{Cut, ModelDigest, ModelId};

use crate::{Config, WorkerError, host::Served, room};

/// A model whose header is here, and how it is cut.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub path: PathBuf,
    pub cut: Cut,
    pub model: ModelId,
}

impl Known {
    /// Reads the header, and looks whether the worker's shards fit this machine.
    pub(crate) fn of(path: &Path, digest: ModelDigest, config: &Config) -> Result<Self, WorkerError> {
        let failed = |error| WorkerError::of_cut(path, error);
        let header = Header::read_without_arrays(path).map_err(|error| failed(error.into()))?;
        let (cut, footprint) = plan(&header, config).map_err(failed)?;
        room::check(&footprint, config)?;
        let model = ModelId::new(header.name(&gguf::name_of_file(path)), digest, config.precision);
        Ok(Self { path: path.to_owned(), cut, model })
    }

    pub(crate) fn served(&self, config: &Config) -> Served {
        Served {
            model: self.path.clone(),
            shards: config.shard_id,
            cut: self.cut.clone(),
            digest: self.model.digest,
            precision: self.model.precision,
        }
    }
}

/// Which layers all shards have, and what those of this worker will take.
fn plan(header: &Header, config: &Config) -> Result<(Cut, Footprint), CutError> {
    let cut = cut_of(header, config.net.total_shards, config.shard_weights.as_ref())?;
    let Config { precision, kv_type, batch_tokens: batch_rows, .. } = *config;
    let usage = Usage { precision, kv_type, batch_rows, backend: config.device.backend(config.backend) };
    let footprint = Footprint::of(header, &cut, config.shard_id, usage)?;
    Ok((cut, footprint))
}
