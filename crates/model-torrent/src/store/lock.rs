//! One process keeps a folder.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use crate::error::TorrentError;

/// The right to write in a folder. The operating system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes it or says that another has it. The file is made if need be, and never removed: who waits on a removed
    /// file would not see who locks its successor.
    pub(super) fn take(path: &Path) -> Result<Self, TorrentError> {
        // Windows locks no file that is opened for appending only.
        let file = OpenOptions::new().create(true).read(true).append(true).open(path);
        let file = file.map_err(TorrentError::io(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(TorrentError::Busy { path: path.into() }),
            Err(TryLockError::Error(source)) => Err(TorrentError::io(path)(source)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone leaves the lock with a child that another thread is just starting.
        _ = self.0.unlock();
    }
}
