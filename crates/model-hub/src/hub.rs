//! `hf:owner/repo/file.gguf`: a file of a Hugging Face hub, with the others where a model is split into several.
//!
//! It is kept where Hugging Face's own tools keep it, so that what these fetched is found and the other way round.

mod answers;
mod download;
mod file;
mod kept;
mod ranges;
pub(crate) mod several;

use std::{
    fs,
    fs::File,
    io,
    path::{Path, PathBuf},
};

pub use file::HubFile;
pub(crate) use kept::{kept, remove_kept};
pub use ranges::{HubRanges, HubState, look_up};

use crate::{
    Hash, HubConfig, HubError,
    files::{blocking, check_file, sync_directory, usable},
    hash,
    lock::FetchLock,
};
use file::cache_of;

/// The file, fetched when it is not in the hub's cache.
async fn resolve_file(file: &HubFile, config: &HubConfig) -> Result<PathBuf, HubError> {
    let cache = cache_of(config)?;
    let folder = file.hub_repo().folder_name();
    if config.offline {
        let missing = HubError::Offline { model: file.to_string(), place: cache.path().join(folder) };
        return cached_file(file, config).await?.ok_or(missing);
    }
    // What is wrong is told below, once.
    if let Ok(Some(path)) = cached_file(file, config).await {
        return Ok(path);
    }
    let _lock = FetchLock::take(&file.lock_in(&cache), &file.to_string()).await?;
    // Another process may have been faster.
    if let Some(path) = usable(cached_file(file, config).await)? {
        return Ok(path);
    }
    let unchecked = file.unchecked_in(&cache);
    if let Some(pointer) = pointer(file, config)? {
        // The process that fetched it was ended before it could check it.
        if unchecked.exists()
            && let Some(pointer) = usable(checked(pointer.clone(), &unchecked, file).await.map(Some))?
        {
            return Ok(pointer);
        }
        // What is there is damaged, and the crate would let it stay.
        if pointer.exists() {
            remove(&pointer)?;
        }
    }
    fs::write(&unchecked, "").map_err(HubError::io(&unchecked))?;
    let pointer = download::download(file, config).await?;
    checked(pointer, &unchecked, file).await
}

/// The file that was downloaded, if it is as it should be. Else it is removed.
async fn checked(pointer: PathBuf, unchecked: &Path, file: &HubFile) -> Result<PathBuf, HubError> {
    let (unchecked, name) = (unchecked.to_owned(), file.to_string());
    blocking(move || {
        let verified = verify(&pointer, &name);
        match &verified {
            Err(error) if error.is_damage() => remove(&pointer)?,
            // Nothing is known of it.
            Err(_) => return verified.map(|()| pointer),
            Ok(()) => {}
        }
        fs::remove_file(&unchecked).map_err(HubError::io(unchecked))?;
        verified.map(|()| pointer)
    })
    .await
}

/// The file, if it is in the hub's cache and was checked.
async fn cached_file(file: &HubFile, config: &HubConfig) -> Result<Option<PathBuf>, HubError> {
    if file.unchecked_in(&cache_of(config)?).exists() {
        return Ok(None);
    }
    let Some(pointer) = pointer(file, config)? else { return Ok(None) };
    blocking(move || check_file(&pointer).map(|_| Some(pointer))).await
}

/// The file at the commit that a path in the hub's cache belongs to: `snapshots/commit/` and where it lies.
pub(crate) fn pinned(file: &HubFile, path: &Path) -> Option<HubFile> {
    let snapshot = path.ancestors().nth(Path::new(file.path()).components().count())?;
    file.at(snapshot.file_name()?.to_str()?)
}

/// What leads to the file in the hub's cache, if there is something.
fn pointer(file: &HubFile, config: &HubConfig) -> Result<Option<PathBuf>, HubError> {
    let repo = cache_of(config)?.repo(file.hub_repo());
    Ok(match file.commit() {
        // The crate finds only commits that it was asked for by name, not those of branches.
        Some(commit) => Some(repo.pointer_path(commit).join(file.path())).filter(|path| path.exists()),
        None => repo.get(file.path()),
    })
}

/// Checks what was downloaded and makes it last. A hub calls a large file by its SHA-256, which then is the name of
/// the file that the pointer leads to.
fn verify(pointer: &Path, what: &str) -> Result<(), HubError> {
    let blob = fs::canonicalize(pointer).map_err(HubError::io(pointer))?;
    let named = blob.file_name().and_then(|name| name.to_str()?.parse::<Hash>().ok());
    if let Some(expected) = named {
        let got = hash::of_file(&blob).map_err(HubError::io(&blob))?;
        if got != expected {
            return Err(HubError::WrongHash { what: what.into(), expected, got });
        }
    }
    check_file(pointer)?;
    File::open(&blob).and_then(|blob| blob.sync_all()).map_err(HubError::io(&blob))?;
    [blob.parent(), pointer.parent()].into_iter().flatten().try_for_each(sync_directory)
}

/// Takes a damaged file out of the cache, first what others find it by.
fn remove(pointer: &Path) -> Result<(), HubError> {
    let blob = fs::canonicalize(pointer).map_err(HubError::io(pointer))?;
    for path in [pointer, &blob] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(HubError::io(path)(error)),
            _ => {}
        }
    }
    Ok(())
}
