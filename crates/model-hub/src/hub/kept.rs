//! What is in the hub's cache, and taking it out.
//!
//! `models--owner--repo/snapshots/COMMIT/path` is a pointer to `models--owner--repo/blobs/HASH`; a file that is the
//! same at two commits has two pointers to one blob. `refs/NAME` has the commit that a branch or tag was at.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use model_torrent::bytes_on_disk;

use super::file::{DEFAULT_REVISION, HubFile, cache_of};
use crate::{HubConfig, HubError, lock::FetchLock};

/// Repositories have few folders in each other. This keeps from going around in a circle.
const DEEPEST: u32 = 8;
/// A commit has 40 digits.
const LONGEST_REF: u64 = 256;

/// The models in the cache, whoever fetched them, each with its pointer.
pub(crate) fn kept(config: &HubConfig) -> Vec<(HubFile, PathBuf)> {
    // Who has no home has no such cache either.
    let Ok(cache) = cache_of(config) else { return vec![] };
    let mut found = vec![];
    for repo in entries(cache.path()) {
        let name = repo.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let parts: Vec<&str> = name.split("--").collect();
        if let ["models", owner, name] = parts[..] {
            found.extend(kept_of(&repo, &format!("{owner}/{name}")));
        }
    }
    found
}

fn kept_of(repo: &Path, name: &str) -> Vec<(HubFile, PathBuf)> {
    let revisions = revisions(repo);
    let mut found = vec![];
    for snapshot in entries(&repo.join("snapshots")) {
        let commit = snapshot.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let revision = revisions.get(&commit).unwrap_or(&commit);
        for pointer in files(&snapshot, DEEPEST) {
            let path = relative(&pointer, &snapshot);
            // Names that no model can be called by are of other tools.
            if path.ends_with(".gguf")
                && let Ok(file) = format!("{name}/{path}@{revision}").parse()
            {
                found.push((file, pointer));
            }
        }
    }
    found
}

/// What each commit is called: by the default branch, if that is there.
fn revisions(repo: &Path) -> BTreeMap<String, String> {
    let folder = repo.join("refs");
    let mut revisions = BTreeMap::new();
    for path in files(&folder, DEEPEST) {
        let short = path.metadata().is_ok_and(|state| state.len() <= LONGEST_REF);
        let Some(commit) = fs::read_to_string(&path).ok().filter(|_| short) else { continue };
        let (commit, name) = (commit.trim().to_owned(), relative(&path, &folder));
        match name == DEFAULT_REVISION {
            true => drop(revisions.insert(commit, name)),
            false => drop(revisions.entry(commit).or_insert(name)),
        }
    }
    revisions
}

/// Takes a file out of the cache, first what others find it by. The blob stays while another pointer leads to it. Says
/// how many bytes of the disk that frees.
pub(crate) fn remove_kept(file: &HubFile, pointer: &Path, config: &HubConfig) -> Result<u64, HubError> {
    let cache = cache_of(config)?;
    let _lock = FetchLock::at_once(&file.lock_in(&cache))?;
    let repo = cache.path().join(file.hub_repo().folder_name());
    let blob = fs::canonicalize(pointer).map_err(HubError::io(pointer))?;
    let bytes = blob.metadata().map_or(0, |state| bytes_on_disk(&state));
    remove(pointer)?;
    let leads_there = |other: &PathBuf| fs::canonicalize(other).is_ok_and(|target| target == blob);
    if files(&repo.join("snapshots"), DEEPEST).iter().any(leads_there) {
        return Ok(0);
    }
    remove(&blob)?;
    Ok(bytes)
}

fn remove(path: &Path) -> Result<(), HubError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(HubError::io(path)(error)),
        _ => Ok(()),
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Files below a folder, and what leads to files.
fn files(folder: &Path, depth: u32) -> Vec<PathBuf> {
    let mut found = vec![];
    for path in entries(folder) {
        match (path.metadata(), depth.checked_sub(1)) {
            (Ok(state), _) if state.is_file() => found.push(path),
            (Ok(state), Some(depth)) if state.is_dir() => found.extend(files(&path, depth)),
            _ => {}
        }
    }
    found
}

/// With slashes, as the hub writes it.
fn relative(path: &Path, folder: &Path) -> String {
    let path = path.strip_prefix(folder).unwrap_or(path);
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}
