//! What a folder keeps, seen from outside: without its lock, and without hashing anything.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    LOCK, Store,
    lock::{Lock, is_used},
    record::Record,
};
use crate::{disk::bytes_on_disk, error::TorrentError, metainfo::Metainfo};

/// Folders of a store have files, and a folder of parts: nothing is below that.
const DEPTH: u32 = 2;

/// What a folder has of a torrent.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Which torrent.
    pub metainfo: Metainfo,
    /// How many of its pieces were here when the record was written last. There may be more by now: it is written every
    /// 64 MiB, and when all that is wanted is here.
    pub pieces: u32,
    /// Bytes that all its files take on the disk, without holes.
    pub bytes_on_disk: u64,
    /// When a process began to use it last.
    pub used: Option<SystemTime>,
    /// A process uses it.
    pub in_use: bool,
}

impl Store {
    /// What a folder has, whoever uses it. Nothing if it is no folder of a store, or its torrent is damaged.
    #[must_use]
    pub fn look(folder: &Path) -> Option<Kept> {
        let (metainfo, lock) = (Self::torrent_in(folder)?, folder.join(LOCK));
        let record = Record::new(folder, metainfo.info_hash());
        let told = record.told(metainfo.layout().files(), metainfo.layout().pieces());
        Some(Kept {
            pieces: told.map_or(0, |pieces| pieces.count()),
            bytes_on_disk: all_bytes(folder, DEPTH),
            used: fs::metadata(&lock).and_then(|lock| lock.modified()).ok(),
            in_use: Lock::is_taken(&lock) || used_file(folder, &metainfo).is_some(),
            metainfo,
        })
    }

    /// Removes what a folder has, and the folder, if nothing of others is in it. Says how many bytes of the disk that
    /// frees.
    ///
    /// # Errors
    /// When a process uses it: [`TorrentError::Busy`]; when the operating system refuses.
    pub fn remove(folder: &Path) -> Result<u64, TorrentError> {
        let (path, before) = (folder.join(LOCK), all_bytes(folder, DEPTH));
        let lock = Lock::take(&path)?;
        if let Some(path) = Self::torrent_in(folder).and_then(|torrent| used_file(folder, &torrent)) {
            return Err(TorrentError::Busy { path });
        }
        let entries = fs::read_dir(folder).map_err(TorrentError::io(folder))?;
        for entry in entries.flatten() {
            // Ours are called `model.…`, and the folder of parts `model`.
            if !entry.file_name().as_encoded_bytes().starts_with(b"model") {
                continue;
            }
            let (path, is_folder) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.or_else(gone_is_fine).map_err(TorrentError::io(path))?;
        }
        let freed = before.saturating_sub(all_bytes(folder, DEPTH));
        // Nobody waits on this lock: who finds it taken takes another folder.
        fs::remove_file(&path).or_else(gone_is_fine).map_err(TorrentError::io(path))?;
        drop(lock);
        // What is left in it is not ours.
        _ = fs::remove_dir(folder);
        Ok(freed)
    }
}

/// A file in the folder that a process was told to use as a whole one.
fn used_file(folder: &Path, metainfo: &Metainfo) -> Option<PathBuf> {
    let layout = metainfo.layout();
    (0..layout.files()).map(|file| folder.join(layout.path(file))).find(|path| is_used(path))
}

fn gone_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Of all files in a folder. What cannot be read takes nothing.
fn all_bytes(folder: &Path, depth: u32) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(state) if state.is_dir() => {
            depth.checked_sub(1).map_or(0, |depth| all_bytes(&entry.path(), depth))
        }
        Ok(state) => bytes_on_disk(&state),
        Err(_) => 0,
    });
    bytes.sum()
}
