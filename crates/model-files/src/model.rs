//! A node's model, wherever its bytes come from.

use std::path::Path;

use gguf::Header;
use model_hub::{HubConfig, HubError, ModelRef};
use swarm_types::ModelDigest;
use tokio::task::spawn_blocking;

use crate::{FilesError, LocalModel, Shared, Sharing, SwarmModel};

/// A model of which the header is here at least. It is given to others for as long as this lives.
#[derive(Debug)]
pub enum Model {
    /// All of it is here.
    Local(LocalModel, Shared),
    /// The rest comes when it is wanted.
    Swarm(SwarmModel),
}

impl Model {
    /// The file. Where not all of it is here, the rest reads as zeros.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Local(model, _) => model.path(),
            Self::Swarm(model) => model.path(),
        }
    }

    /// Which model.
    #[must_use]
    pub fn digest(&self) -> ModelDigest {
        match self {
            Self::Local(model, _) => model.digest(),
            Self::Swarm(model) => model.digest(),
        }
    }

    /// What can fetch more of it, if not all of it is here.
    #[must_use]
    pub fn parts(&self) -> Option<&SwarmModel> {
        match self {
            Self::Local(..) => None,
            Self::Swarm(model) => Some(model),
        }
    }
}

impl Sharing {
    /// Gets a model, wherever it is to come from, and gives it to others. Of one that other nodes have or can have too
    /// only the header is fetched. Waits for as long as nobody has it.
    ///
    /// # Errors
    /// When it cannot be had, or not be kept; the message says what to do.
    pub async fn open(&self, model: &ModelRef, hub: &HubConfig) -> Result<Model, FilesError> {
        if let Some(local) = LocalModel::here(model, hub).await? {
            return self.shared(local).await;
        }
        match model {
            ModelRef::Swarm(asked) => Ok(Model::Swarm(self.fetch(*asked, hub).await?)),
            ModelRef::Hub(file) => self.open_hub(file, hub).await,
            ModelRef::File(_) | ModelRef::Pypi(_) => {
                Err(HubError::Internal("a model that was found is not here".into()).into())
            }
        }
    }

    pub(crate) async fn shared(&self, local: LocalModel) -> Result<Model, FilesError> {
        let path = local.path().to_owned();
        let name = spawn_blocking(move || {
            let header = Header::read_without_arrays(&path)?;
            Ok::<_, FilesError>(header.name(&gguf::name_of_file(&path)).to_owned())
        });
        let shared = self.share(&name.await??, &local)?;
        Ok(Model::Local(local, shared))
    }
}
