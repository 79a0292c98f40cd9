//! Who uses what: one process keeps a folder, several may read a whole file.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use crate::error::TorrentError;

/// Who only looks whether a lock is taken has it for some microseconds.
const LOOKED_AT_FOR: Duration = Duration::from_millis(50);

/// The right to write in a folder. The operating system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes it or says that another has it. The file is made if need be.
    pub(super) fn take(path: &Path) -> Result<Self, TorrentError> {
        // Windows locks no file that is opened for appending only.
        let file = OpenOptions::new().create(true).read(true).append(true).open(path);
        let file = file.map_err(TorrentError::io(path))?;
        match twice(|| file.try_lock()) {
            Ok(()) => {
                // When the folder was used last.
                _ = file.set_modified(SystemTime::now());
                Ok(Self(file))
            }
            Err(TryLockError::WouldBlock) => Err(TorrentError::Busy { path: path.into() }),
            Err(TryLockError::Error(source)) => Err(TorrentError::io(path)(source)),
        }
    }

    /// Whether a process has it.
    pub(super) fn is_taken(path: &Path) -> bool {
        is_refused(path, File::try_lock_shared)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone leaves the lock with a child that another thread is just starting.
        _ = self.0.unlock();
    }
}

/// Tells others, for as long as the file is open, that it is used. Where there are no locks, nobody is told.
pub(super) fn use_whole(file: &File) {
    _ = twice(|| file.try_lock_shared());
}

/// Whether a process uses this whole file by a [`Store`](crate::Store).
#[must_use]
pub fn is_used(path: &Path) -> bool {
    is_refused(path, File::try_lock)
}

fn is_refused(path: &Path, lock: impl FnOnce(&File) -> Result<(), TryLockError>) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let taken = lock(&file);
    _ = file.unlock();
    matches!(taken, Err(TryLockError::WouldBlock))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a store is opened by threads that may block, and a lock tells no event"
)]
fn twice(lock: impl Fn() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    lock().or_else(|error| match error {
        TryLockError::WouldBlock => {
            thread::sleep(LOOKED_AT_FOR);
            lock()
        }
        error => Err(error),
    })
}
