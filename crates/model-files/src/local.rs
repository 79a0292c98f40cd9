//! A model whose files are whole on this machine.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use model_hub::{HubConfig, ModelRef, files_of, identify};
use model_torrent::Metainfo;
use swarm_types::ModelDigest;

use crate::FilesError;

/// A model whose files are whole on this machine.
#[derive(Clone, Debug)]
pub struct LocalModel {
    /// Where it is: one file, or all that it is split into, in order.
    pub paths: Vec<PathBuf>,
    /// What it is.
    pub metainfo: Arc<Metainfo>,
}

impl LocalModel {
    /// Finds a model, fetching it from a hub if need be, and tells what it is. Nothing for a model that comes from
    /// other nodes.
    ///
    /// # Errors
    /// When it cannot be had; the message says what to do.
    pub async fn find(model: &ModelRef, hub: &HubConfig) -> Result<Option<Self>, FilesError> {
        if let ModelRef::Swarm(_) = model {
            return Ok(None);
        }
        let path = model_hub::resolve(model, hub).await?;
        let (paths, metainfo) = (files_of(&path).await?, identify(&path, hub).await?);
        Ok(Some(Self { paths, metainfo }))
    }

    /// The first file, which leads to the others.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.paths.first().map(PathBuf::as_path).unwrap_or(Path::new(""))
    }

    /// Which model.
    #[must_use]
    pub fn digest(&self) -> ModelDigest {
        self.metainfo.info_hash()
    }
}
