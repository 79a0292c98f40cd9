//! A model whose files are whole on this machine.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use model_hub::{HubConfig, ModelRef, files_of, identify};
use model_torrent::Metainfo;
use swarm_types::{ModelDigest, Source};

use crate::FilesError;

/// A model whose files are whole on this machine.
#[derive(Clone, Debug)]
pub struct LocalModel {
    /// Where it is: one file, or all that it is split into, in order.
    pub paths: Vec<PathBuf>,
    /// What it is.
    pub metainfo: Arc<Metainfo>,
    /// Where it comes from, if that is a commit of a hub's file.
    pub source: Option<Source>,
}

impl LocalModel {
    /// Finds a model, fetching all of it if need be, and tells what it is. Nothing for a model that comes from other
    /// nodes.
    ///
    /// # Errors
    /// When it cannot be had; the message says what to do.
    pub async fn find(model: &ModelRef, hub: &HubConfig) -> Result<Option<Self>, FilesError> {
        if let ModelRef::Swarm(_) = model {
            return Ok(None);
        }
        let path = model_hub::resolve(model, hub).await?;
        Self::at(path, model, hub).await.map(Some)
    }

    /// The same for a node of a swarm, which can do without all of a model that others have too: nothing also for a
    /// file of a hub that is not on this machine yet. What can be had in no other way is fetched.
    ///
    /// # Errors
    /// When it cannot be had; the message says what to do.
    pub async fn here(model: &ModelRef, hub: &HubConfig) -> Result<Option<Self>, FilesError> {
        let ModelRef::Hub(_) = model else { return Self::find(model, hub).await };
        match model_hub::cached(model, hub).await {
            Ok(Some(path)) => Self::at(path, model, hub).await.map(Some),
            Ok(None) => Ok(None),
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "a damaged file is not used");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn at(path: PathBuf, model: &ModelRef, hub: &HubConfig) -> Result<Self, FilesError> {
        let pinned = model_hub::pinned(model, &path);
        if let Some(pinned) = &pinned {
            tracing::info!(%model, commit = %pinned, "the model's commit");
        }
        let (paths, metainfo) = (files_of(&path).await?, identify(&path, hub).await?);
        let source = pinned.and_then(|pinned| pinned.to_string().parse().ok());
        Ok(Self { paths, metainfo, source })
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
