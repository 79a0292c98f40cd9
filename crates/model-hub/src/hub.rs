//! `hf:owner/repo/file.gguf`: a file of a Hugging Face hub.
//!
//! It is kept where Hugging Face's own tools keep it, so that what these fetched is found and the other way round.

mod download;

use std::{
    fmt, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use hf_hub::{Cache, Repo, RepoType};

use crate::{Hash, HubConfig, HubError, blocking, check, lock::FetchLock, sync_directory, usable};

/// The revision that a name without one means.
const DEFAULT_REVISION: &str = "main";

/// One file of a repository of models, as it is at a branch, tag or commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HubFile {
    repo: String,
    path: String,
    revision: String,
}

impl HubFile {
    /// `owner/repo`.
    #[must_use]
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// Where the file lies in the repository.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Branch, tag or commit.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    fn hub_repo(&self) -> Repo {
        Repo::with_revision(self.repo.clone(), RepoType::Model, self.revision.clone())
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}/{}", self.repo, self.path)?;
        match self.revision.as_str() {
            DEFAULT_REVISION => Ok(()),
            revision => write!(f, "@{revision}"),
        }
    }
}

impl FromStr for HubFile {
    type Err = HubError;

    /// Reads what comes after `hf:`.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let wrong = |why: String| HubError::Name(format!("hf:{text}: {why}"));
        let (name, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        let parts: Vec<&str> = name.splitn(3, '/').collect();
        let [owner, repo, path] = parts[..] else {
            return Err(wrong("write hf:owner/repo/file.gguf".into()));
        };
        let is_file = path.split('/').all(|part| is_component(part, b" ()[]{}=,~'&$!;"));
        if !is_component(owner, b"") || !is_component(repo, b"") || !is_file {
            return Err(wrong("write plain names, as in hf:owner/repo/file.gguf".into()));
        }
        if !path.ends_with(".gguf") {
            return Err(wrong(format!("{path} is no .gguf file, the only kind of model that is read")));
        }
        if !revision.split('/').all(|part| is_component(part, b"")) {
            return Err(wrong(format!("{revision:?} is no revision: write @ and a branch, tag or commit")));
        }
        Ok(Self { repo: format!("{owner}/{repo}"), path: path.into(), revision: revision.into() })
    }
}

/// A part of a path that stays where it is put, and that means nothing else in an address.
fn is_component(text: &str, also: &[u8]) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte) || also.contains(&byte);
    let plain = |byte: u8| allowed(byte) || !byte.is_ascii();
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(plain)
}

/// The file, fetched when it is not in the hub's cache.
pub(crate) async fn resolve(file: &HubFile, config: &HubConfig) -> Result<PathBuf, HubError> {
    let cache = cache_of(config)?;
    let folder = file.hub_repo().folder_name();
    if config.offline {
        let missing = HubError::Offline { model: file.to_string(), place: cache.path().join(folder) };
        return cached(file, config).await?.ok_or(missing);
    }
    // What is wrong is told below, once.
    if let Ok(Some(path)) = cached(file, config).await {
        return Ok(path);
    }
    let lock = format!("{}.llama-swarm.lock", file.path.replace('/', "--"));
    let lock = cache.path().join(".locks").join(folder).join(lock);
    let _lock = FetchLock::take(&lock, &file.to_string()).await?;
    // Another process may have been faster.
    if let Some(path) = usable(cached(file, config).await)? {
        return Ok(path);
    }
    // What is there is damaged, and the crate would let it stay.
    if let Some(pointer) = cache.repo(file.hub_repo()).get(&file.path) {
        remove(&pointer)?;
    }
    let pointer = download::download(file, config).await?;
    let name = file.to_string();
    blocking(move || match verify(&pointer, &name) {
        Err(error) if error.is_damage() => {
            remove(&pointer)?;
            Err(error)
        }
        verified => verified.map(|()| pointer),
    })
    .await
}

/// The file, if it is in the hub's cache.
pub(crate) async fn cached(file: &HubFile, config: &HubConfig) -> Result<Option<PathBuf>, HubError> {
    let Some(pointer) = cache_of(config)?.repo(file.hub_repo()).get(&file.path) else { return Ok(None) };
    blocking(move || check(&pointer).map(|_| Some(pointer))).await
}

fn cache_of(config: &HubConfig) -> Result<Cache, HubError> {
    Ok(Cache::new(config.hub.home()?.join("hub")))
}

/// Checks what was downloaded and makes it last. A hub calls a large file by its SHA-256, which then is the name of
/// the file that the pointer leads to.
fn verify(pointer: &Path, what: &str) -> Result<(), HubError> {
    let blob = fs::canonicalize(pointer).map_err(HubError::io(pointer))?;
    let named = blob.file_name().and_then(|name| name.to_str()?.parse::<Hash>().ok());
    if let Some(expected) = named {
        let got = Hash::of_file(&blob).map_err(HubError::io(&blob))?;
        if got != expected {
            return Err(HubError::WrongHash { what: what.into(), expected, got });
        }
    }
    check(pointer)?;
    File::open(&blob).and_then(|blob| blob.sync_all()).map_err(HubError::io(&blob))?;
    [blob.parent(), pointer.parent()].into_iter().flatten().try_for_each(sync_directory)
}

/// Takes a damaged file out of the cache, first what others find it by.
fn remove(pointer: &Path) -> Result<(), HubError> {
    let blob = fs::canonicalize(pointer).map_err(HubError::io(pointer))?;
    for path in [pointer, &blob] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(HubError::io(path)(error)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_that_is_read_stays_in_its_place(text in "[-_.a-z0-9 /\\\\?#%]{0,24}(\\.gguf)?(@[-_.a-z0-9/]{0,8})?") {
            if let Ok(file) = text.parse::<HubFile>() {
                prop_assert_eq!(file.to_string(), format!("hf:{}", text.trim_end_matches("@main")));
                for part in file.repo.split('/').chain(file.path.split('/')).chain(file.revision.split('/')) {
                    prop_assert!(!["", ".", ".."].contains(&part));
                    prop_assert!(!part.contains(['\\', '?', '#', '%']));
                }
            }
        }
    }
}
