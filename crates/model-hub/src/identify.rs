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

/// All files of the model of which this is one, in order.
///
/// # Errors
/// When the file cannot be read, or is no model.
pub async fn files_of(path: &Path) -> Result<Vec<PathBuf>, HubError> {
    let path = path.to_owned();
    blocking(move || gguf::files_of(&path).map_err(|source| HubError::Invalid { path, source })).await
}

/// The torrent of all files of the model of which this is one. Its info-hash is the model's digest. All of a large
/// model is read for it once; after that it is known for as long as each file is as it was. Processes that ask together
/// read it once.
///
/// # Errors
/// When the files are not all there, or cannot be read.
pub async fn identify(path: &Path, config: &HubConfig) -> Result<Arc<Metainfo>, HubError> {
    let paths = files_of(path).await?;
    let is_small = bytes_of(&paths) < WORTH_KEEPING;
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
    let shown = Mutex::new(Progress::new("hashing the model", Some(bytes_of(paths))));
    let tell = |done| shown.lock().unwrap_or_else(PoisonError::into_inner).set(done);
    let threads = thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_THREADS));
    let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
    make(&Hashing { threads, progress: &tell }).map(Arc::new)
}

fn bytes_of(paths: &[PathBuf]) -> u64 {
    paths.iter().map(|path| path.metadata().map_or(0, |file| file.len())).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use gguf::{tiny::TinyModel, write::split};

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

    #[tokio::test]
    async fn a_model_in_several_files_is_one_and_known_by_all_of_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = HubConfig { cache_dir: Some(folder.path().join("cache")), ..HubConfig::default() };
        let (whole, first) = (folder.path().join("whole.gguf"), folder.path().join("m-00001-of-00003.gguf"));
        // Large enough that it is kept which model it is.
        let model = TinyModel { layers: 2, hidden: 512, feed_forward: 1536, ..TinyModel::default() };
        model.write(&whole).expect("written");
        let paths = split(&whole, &first, &[0, 9, 0]).expect("split");
        assert_eq!(files_of(&paths[1]).await.expect("a model"), paths);
        let hash = async || identify(&first, &config).await.map(|metainfo| metainfo.info_hash());
        let (one, kept) = (hash().await.expect("read"), || {
            Known::new(config.cache_dir().expect("a folder").join("torrents"))
        });
        assert_eq!(kept().find(&paths).expect("kept").info_hash(), one);
        assert_eq!(kept().find(&paths).expect("kept").layout().files(), 3);
        let mut last = fs::read(&paths[2]).expect("read");
        *last.last_mut().expect("bytes") ^= 1;
        fs::write(&paths[2], last).expect("written");
        assert!(kept().find(&paths).is_none(), "one of them is another now");
        assert_ne!(hash().await.expect("read"), one);
        fs::remove_file(&paths[1]).expect("removed");
        assert!(hash().await.is_err());
    }
}
