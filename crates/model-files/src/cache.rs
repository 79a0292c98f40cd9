//! The models that are kept on this machine, wherever they came from, and their removal.

use std::{
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use gguf::Header;
use model_hub::{CachedFile, HubConfig, ModelRef, cached_files};
use model_torrent::Store;
use swarm_types::{ModelDigest, visible};
use tokio::task::spawn_blocking;

use crate::FilesError;

/// Where models are kept that come from other nodes.
pub(crate) fn swarm_folder(hub: &HubConfig) -> Result<PathBuf, FilesError> {
    Ok(hub.cache_dir()?.join("swarm"))
}

/// The folder of a torrent. Further processes of this machine have a copy each, with a number from 1.
pub(crate) fn folder_name(info_hash: ModelDigest, copy: u32) -> String {
    if copy == 0 { info_hash.to_string() } else { format!("{info_hash}.{copy}") }
}

/// A model of which all or some is kept.
#[derive(Clone, Debug)]
pub struct CachedModel {
    /// Its own name, for people. Two may share it.
    pub name: String,
    /// Where it came from.
    pub source: CachedFrom,
    /// Which model, if it was hashed.
    pub info_hash: Option<ModelDigest>,
    /// Its file, or the first of them.
    pub path: PathBuf,
    /// What it takes on the disk.
    pub bytes_on_disk: u64,
    /// What it is long, whole.
    pub bytes: u64,
    /// Its pieces that are here, and all of them, if that is known.
    pub pieces: Option<(u32, u32)>,
    /// When it was used last, as far as that is known.
    pub used: Option<SystemTime>,
    /// A process uses it.
    pub in_use: bool,
    pub(crate) kept: Kept,
}

/// Where a model came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CachedFrom {
    /// From PyPI or a hub, by what `--model` calls it.
    Named(ModelRef),
    /// From other nodes: the copy of this number.
    Swarm {
        /// 0 for the first.
        copy: u32,
    },
}

impl fmt::Display for CachedFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(model) => write!(f, "{model}"),
            Self::Swarm { copy: 0 } => write!(f, "swarm:"),
            Self::Swarm { copy } => write!(f, "swarm: (copy {copy})"),
        }
    }
}

/// What is to be removed.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    File(Box<CachedFile>),
    Folder(PathBuf),
}

/// All models that are kept. Of whole files nothing but the header is read; of those from other nodes what their record
/// says.
///
/// # Errors
/// When nobody can tell where the cache is.
pub async fn cached_models(hub: &HubConfig) -> Result<Vec<CachedModel>, FilesError> {
    let hub = hub.clone();
    let listed = spawn_blocking(move || {
        let files = cached_files(&hub)?.into_iter().map(CachedModel::of_file);
        let mut folders: Vec<PathBuf> = fs::read_dir(swarm_folder(&hub)?)
            .map_or_else(|_| vec![], |entries| entries.flatten().map(|entry| entry.path()).collect());
        folders.sort();
        let folders = folders.into_iter().filter_map(CachedModel::of_folder);
        Ok::<_, FilesError>(files.chain(folders).collect())
    });
    listed.await?
}

impl CachedModel {
    fn of_file(file: CachedFile) -> Self {
        let pieces = file.torrent.as_ref().map(|torrent| torrent.layout().pieces());
        Self {
            name: name_in(&file.path).unwrap_or_else(|| stem(&file.path)),
            source: CachedFrom::Named(file.model.clone()),
            info_hash: file.torrent.as_ref().map(|torrent| torrent.info_hash()),
            path: file.path.clone(),
            bytes_on_disk: file.bytes_on_disk,
            bytes: file.bytes,
            pieces: pieces.map(|pieces| (pieces, pieces)),
            used: file.used,
            in_use: file.in_use,
            kept: Kept::File(Box::new(file)),
        }
    }

    /// Nothing for a folder that is no torrent's.
    fn of_folder(folder: PathBuf) -> Option<Self> {
        let name = folder.file_name()?.to_str()?;
        let (hash, copy) = match name.split_once('.') {
            Some((hash, copy)) => (hash, copy.parse().ok()?),
            None => (name, 0),
        };
        let info_hash: ModelDigest = hash.parse().ok()?;
        let kept = Store::look(&folder).filter(|kept| kept.metainfo.info_hash() == info_hash)?;
        let layout = kept.metainfo.layout();
        let path = folder.join(layout.path(0));
        Some(Self {
            name: name_in(&path).unwrap_or_else(|| "unknown".into()),
            source: CachedFrom::Swarm { copy },
            info_hash: Some(info_hash),
            path,
            bytes_on_disk: kept.bytes_on_disk,
            bytes: layout.total(),
            pieces: Some((kept.pieces, layout.pieces())),
            used: kept.used,
            in_use: kept.in_use,
            kept: Kept::Folder(folder),
        })
    }

    /// What `--model` calls it.
    #[must_use]
    pub fn model_ref(&self) -> ModelRef {
        match &self.source {
            CachedFrom::Named(model) => model.clone(),
            CachedFrom::Swarm { .. } => ModelRef::Swarm(self.info_hash),
        }
    }

    /// Hugging Face's own tools find this file too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.source, CachedFrom::Named(ModelRef::Hub(_)))
    }

    /// Removes it. Says how many bytes of the disk that frees.
    ///
    /// # Errors
    /// When a process uses it, or the operating system refuses.
    pub async fn remove(&self, hub: &HubConfig) -> Result<u64, FilesError> {
        let (kept, hub) = (self.kept.clone(), hub.clone());
        let removed = spawn_blocking(move || match kept {
            Kept::File(file) => Ok(file.remove(&hub)?),
            Kept::Folder(folder) => Ok::<_, FilesError>(Store::remove(&folder)?),
        });
        removed.await?
    }
}

/// What a model calls itself, if its header is here and whole.
fn name_in(path: &Path) -> Option<String> {
    let header = Header::read_without_arrays(path).ok()?;
    let name = header.name("");
    (!name.is_empty()).then(|| visible::cleaned(name).into_owned())
}

fn stem(path: &Path) -> String {
    path.file_stem().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use gguf::tiny::TinyModel;
    use model_torrent::{Hashing, Metainfo, PieceIndex};

    use super::*;

    /// A cache with a package's file, and of the same model's two pieces the first one from other nodes.
    fn cache(folder: &Path) -> (HubConfig, Store) {
        let cache = folder.join("cache");
        fs::create_dir_all(&cache).expect("made");
        let package = cache.join("tiny_model-1.0.gguf");
        TinyModel { layers: 12, ..TinyModel::default() }.write(&package).expect("written");
        let hashing = Hashing { threads: NonZeroUsize::MIN, progress: &|_| {} };
        let torrent = Metainfo::of_files(std::slice::from_ref(&package), &hashing).expect("hashed");
        let place = cache.join("swarm").join(folder_name(torrent.info_hash(), 0));
        let store = Store::open(&place, torrent.into(), &hashing).expect("opened");
        let layout = store.metainfo().layout();
        assert!(layout.pieces() > 1, "{} bytes", layout.total());
        let first = layout.piece(PieceIndex(0)).expect("there is one").length as usize;
        let bytes = fs::read(&package).expect("read");
        store.write(PieceIndex(0), &bytes[..first]).expect("written");
        store.sync().expect("synced");
        let hub = model_hub::HubAccess { home: Some(folder.join("hf")), ..model_hub::HubAccess::default() };
        (HubConfig { cache_dir: Some(cache), hub, ..HubConfig::default() }, store)
    }

    #[tokio::test]
    async fn what_is_kept_is_listed_and_removed_when_nobody_uses_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (hub, store) = cache(folder.path());
        // Not ours, or nothing yet.
        fs::create_dir_all(folder.path().join("cache/swarm/other")).expect("made");
        fs::write(folder.path().join("cache/model.gguf"), "mine").expect("written");
        let listed = cached_models(&hub).await.expect("listed");
        let told: Vec<_> = listed.iter().map(|model| (model.source.to_string(), model.in_use)).collect();
        assert_eq!(told, [("pypi:tiny_model==1.0".into(), false), ("swarm:".into(), true)]);
        let [package, swarm] = &listed[..] else { panic!("two are listed") };
        assert_eq!((package.bytes, package.name.as_str()), (swarm.bytes, "tiny-llama"));
        let pieces = store.metainfo().layout().pieces();
        assert_eq!((package.pieces, swarm.pieces), (None, Some((1, pieces))));
        assert_eq!(swarm.info_hash, Some(store.metainfo().info_hash()));
        assert!(swarm.bytes_on_disk < package.bytes_on_disk && swarm.used.is_some());

        let refused = swarm.remove(&hub).await.expect_err("it is used").to_string();
        assert!(refused.contains("another process uses"), "{refused}");
        drop(store);
        assert!(swarm.remove(&hub).await.expect("removed") > 0);
        assert!(package.remove(&hub).await.expect("removed") >= package.bytes);
        assert_eq!(cached_models(&hub).await.expect("listed").len(), 0);
        assert!(folder.path().join("cache/model.gguf").exists(), "it was not fetched");
    }
}
