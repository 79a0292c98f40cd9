//! What all sources do with files: checking, and work that blocks.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use gguf::{GgufError, Header};

use crate::{HubError, progress};

/// A whole GGUF model by one of its files, or why it is none.
pub(crate) fn check(path: &Path) -> Result<Header, HubError> {
    read(path, Header::read_without_arrays)
}

/// The first file of a whole GGUF model, by one of its files.
pub(crate) fn first_of(path: PathBuf) -> Result<PathBuf, HubError> {
    let first = check(&path)?.files.into_iter().next();
    Ok(first.map_or(path, |file| file.path))
}

/// A whole GGUF file. The others of a model in several files may be missing.
pub(crate) fn check_file(path: &Path) -> Result<Header, HubError> {
    read(path, Header::read_one_file)
}

fn read(path: &Path, header: impl FnOnce(&Path) -> Result<Header, GgufError>) -> Result<Header, HubError> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => HubError::NotFound { path: path.into() },
        _ => HubError::Io { path: path.into(), source: error },
    })?;
    // A pipe or a device would be read without end.
    if !metadata.is_file() {
        return Err(HubError::NotAFile { path: path.into() });
    }
    header(path).map_err(|source| HubError::Invalid { path: path.into(), source })
}

/// What there is, for a caller that can fetch it again: a damaged file counts as none.
pub(crate) fn usable(found: Result<Option<PathBuf>, HubError>) -> Result<Option<PathBuf>, HubError> {
    match found {
        Err(error) if error.is_damage() => {
            progress::tell(&format!("fetching again what is damaged: {error}"));
            Ok(None)
        }
        found => found,
    }
}

/// Runs file work on a thread for it. Work that was begun ends even when nobody waits any more.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HubError> + Send + 'static,
) -> Result<T, HubError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(HubError::Internal(error.to_string())),
    }
}

/// Makes a rename last through a power failure. Only Unix can open a directory for that.
pub(crate) fn sync_directory(dir: &Path) -> Result<(), HubError> {
    if cfg!(unix) {
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(HubError::io(dir))?;
    }
    Ok(())
}
