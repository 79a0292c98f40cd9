//! Which model a file is.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use model_torrent::{Hashing, Known, Metainfo, TorrentError};

use crate::{HubConfig, HubError, files::blocking, lock::FetchLock, progress::Progress};

/// Smaller files are read again sooner than a note about them is found.
const WORTH_KEEPING: u64 = 16 << 20;
/// More threads than this wait for the disk.
const MOST_THREADS: usize = 4;

/// The torrent of a model's file, whose info-hash is the model's digest. All of a large file is read for it once; after
/// that it is known for as long as the file is as it was. Processes that ask together read it once.
///
/// # Errors
/// When the file cannot be read.
pub async fn identify(path: &Path, config: &HubConfig) -> Result<Arc<Metainfo>, HubError> {
    let paths = [path.to_owned()];
    let is_small = path.metadata().is_ok_and(|file| file.len() < WORTH_KEEPING);
    let folder = config.cache_dir().ok().filter(|_| !is_small).map(|dir| folder_in(&dir));
    let Some(folder) = folder else {
        return blocking(move || Ok(made(&paths, |hashing| Metainfo::of_files(&paths, hashing))?)).await;
    };
    let known = Known::new(&folder);
    let (find, asked) = (known.clone(), paths.clone());
    if let Some(found) = blocking(move || Ok(find.find(&asked))).await? {
        return Ok(Arc::new(found));
    }
    // Where nothing can be kept, each process reads for itself.
    let _lock = FetchLock::take(&folder.join("lock"), "the torrent of a model").await.ok();
    blocking(move || Ok(made(&paths, |hashing| known.torrent_of(&paths, hashing))?)).await
}

/// What is known of files that were hashed before.
pub(crate) fn known_torrents(config: &HubConfig) -> Result<Known, HubError> {
    Ok(Known::new(folder_in(&config.cache_dir()?)))
}

fn folder_in(cache: &Path) -> PathBuf {
    cache.join("torrents")
}

fn made(
    paths: &[PathBuf],
    make: impl FnOnce(&Hashing<'_>) -> Result<Metainfo, TorrentError>,
) -> Result<Arc<Metainfo>, TorrentError> {
    let total = paths.iter().map(|path| path.metadata().map_or(0, |file| file.len())).sum();
    let shown = Mutex::new(Progress::new("hashing the model", Some(total)));
    let tell = |done| shown.lock().unwrap_or_else(PoisonError::into_inner).set(done);
    let threads = thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_THREADS));
    let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
    make(&Hashing { threads, progress: &tell }).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use gguf::tiny::TinyModel;

    use super::*;

    #[tokio::test]
    async fn a_model_is_what_is_in_it_under_any_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = HubConfig { cache_dir: Some(folder.path().join("cache")), ..HubConfig::default() };
        let write = |name: &str, seed| {
            let path = folder.path().join(name);
            TinyModel { seed, ..TinyModel::default() }.write(&path).expect("written");
            path
        };
        let hash = async |path: &Path| identify(path, &config).await.expect("read").info_hash();
        let (one, same, other) = (write("a.gguf", 1), write("b.gguf", 1), write("c.gguf", 2));
        assert_eq!(hash(&one).await, hash(&same).await);
        assert_ne!(hash(&one).await, hash(&other).await);
        let before = hash(&one).await;
        write("a.gguf", 3);
        assert_ne!(hash(&one).await, before, "it is another file now");
    }
}
