//! One process fetches a model; the others on this machine wait for it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use crate::{HubError, progress};

/// The largest models take hours over a slow line; who holds the lock for longer is stuck.
const LONGEST_WAIT: Duration = Duration::from_secs(12 * 3600);
/// The operating system does not tell when a lock becomes free without a thread that blocks, which could not be
/// stopped; so it is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Often enough to know that it still waits, and what for.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// The right to fetch one model. The operating system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct FetchLock {
    _file: File,
}

impl FetchLock {
    /// The same without waiting: nobody fetches while what is there is removed.
    pub(crate) fn at_once(path: &Path) -> Result<Self, HubError> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(HubError::Fetching { path: path.into() }),
            Err(TryLockError::Error(source)) => Err(HubError::io(path)(source)),
        }
    }

    /// Waits until no other process fetches. The lock's file is made if need be, and never removed: who waits on a
    /// removed file would not see who locks its successor.
    pub(crate) async fn take(path: &Path, what: &str) -> Result<Self, HubError> {
        let file = open(path)?;
        let started = Instant::now();
        let mut told = None;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(source)) => return Err(HubError::io(path)(source)),
                Err(TryLockError::WouldBlock) => {}
            }
            if started.elapsed() > LONGEST_WAIT {
                let hours = LONGEST_WAIT.as_secs() / 3600;
                return Err(HubError::Busy { path: path.into(), hours });
            }
            if told.is_none_or(|at: Instant| at.elapsed() > TELL_EVERY) {
                progress::tell(&format!("another process is fetching {what}, waiting for it"));
                told = Some(Instant::now());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

fn open(path: &Path) -> Result<File, HubError> {
    let dir: PathBuf = path.parent().map(Into::into).unwrap_or_default();
    fs::create_dir_all(&dir).map_err(HubError::io(dir))?;
    // Windows locks no file that is opened for appending only.
    OpenOptions::new().create(true).read(true).append(true).open(path).map_err(HubError::io(path))
}
