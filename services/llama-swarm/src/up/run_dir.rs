//! The folder of a swarm on this machine: given, or one that goes with it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// How the folders of runs begin that were given none.
const PREFIX: &str = "llama-swarm-up-";
/// Logs of a failed run that nobody has missed by then are removed by a later run.
const LOGS_KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where the swarm's files are.
pub(super) enum RunDir {
    Given(PathBuf),
    Temporary(TempDir),
}

impl RunDir {
    /// The given one, or one that goes with the run.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn new(given: Option<&Path>) -> Result<Self> {
        match given {
            Some(dir) => {
                fs::create_dir_all(dir)
                    .with_context(|| format!("cannot create the directory {}", dir.display()))?;
                Ok(Self::Given(std::path::absolute(dir)?))
            }
            None => {
                remove_old(&env::temp_dir(), SystemTime::now());
                Ok(Self::Temporary(TempDir::with_prefix(PREFIX)?))
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Given(dir) => dir,
            Self::Temporary(dir) => dir.path(),
        }
    }

    /// Leaves the logs for whoever looks for the fault; the secret and the nodes' keys are of no use any more.
    pub(super) fn keep(self) {
        if let Self::Temporary(dir) = self {
            let dir = dir.keep();
            remove_all_but_logs(&dir);
            eprintln!("logs are kept in {}", dir.display());
        }
    }
}

fn remove_all_but_logs(dir: &Path) {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    for file in files.filter(|file| file.extension().is_none_or(|ending| ending != "log")) {
        // Nobody but the user can read what stays.
        let _ = fs::remove_file(file);
    }
}

/// Takes away what failed runs of this user have left. What cannot be removed harms nobody.
fn remove_old(parent: &Path, now: SystemTime) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX) && is_mine(&metadata);
        let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
        let is_old = age.is_some_and(|age| age > LOGS_KEPT_FOR);
        if metadata.is_dir() && is_ours && is_old && has_only_logs(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A run that goes on has keys there as well.
fn has_only_logs(dir: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(dir) else { return false };
    entries
        .all(|entry| entry.is_ok_and(|entry| entry.path().extension().is_some_and(|ending| ending == "log")))
}

#[cfg(unix)]
fn is_mine(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::uid(metadata) == rustix::process::getuid().as_raw()
}

/// Elsewhere each user has temporary folders of his own.
#[cfg(not(unix))]
fn is_mine(_: &fs::Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_old_failures_go_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        for (dir, file) in [("up-failed", "a.log"), ("up-running", "a.key"), ("other", "a.log")] {
            let dir = parent.path().join(format!("llama-swarm-{dir}"));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(file), "x").unwrap();
        }
        let left = || fs::read_dir(parent.path()).unwrap().count();
        remove_old(parent.path(), SystemTime::now());
        assert_eq!(left(), 3, "they are new");
        remove_old(parent.path(), SystemTime::now() + 2 * LOGS_KEPT_FOR);
        assert_eq!(left(), 2);
        assert!(!parent.path().join("llama-swarm-up-failed").exists());
    }

    #[test]
    fn of_a_swarm_that_failed_its_logs_stay_and_no_keys() {
        let run = RunDir::new(None).unwrap();
        let dir = run.path().to_owned();
        for name in ["worker-0.log", "worker-0.key", "worker-0.json", "swarm.secret"] {
            fs::write(dir.join(name), "x").unwrap();
        }
        run.keep();
        let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(left, ["worker-0.log"]);
    }
}
