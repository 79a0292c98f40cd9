//! Which file of a hub, and where it is kept.

use std::{fmt, path::PathBuf, str::FromStr};

use hf_hub::{Cache, Repo, RepoType};

use crate::{HubConfig, HubError};

/// The revision that a name without one means.
pub(super) const DEFAULT_REVISION: &str = "main";

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

    /// Another file of the repository, as it is at a commit.
    pub(super) fn beside(&self, path: String, commit: String) -> Self {
        Self { repo: self.repo.clone(), path, revision: commit }
    }

    /// Who has this locked fetches it.
    pub(super) fn lock_in(&self, cache: &Cache) -> PathBuf {
        let lock = format!("{}.llama-swarm.lock", self.path.replace('/', "--"));
        cache.path().join(".locks").join(self.hub_repo().folder_name()).join(lock)
    }

    /// There while the file may have its final name, which the hub's crate gives it, and is not checked yet.
    pub(super) fn unchecked_in(&self, cache: &Cache) -> PathBuf {
        let note = format!("{}@{}.llama-swarm.unchecked", self.path, self.revision).replace('/', "--");
        cache.path().join(".locks").join(self.hub_repo().folder_name()).join(note)
    }

    /// All files of the model, of which there are so many, by the name of this one. Nothing for a name that is none of
    /// them.
    #[must_use]
    pub fn several(&self, count: usize) -> Option<Vec<Self>> {
        if count == 1 {
            return Some(vec![self.clone()]);
        }
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let names = gguf::names_of_several(name, u32::try_from(count).ok()?)?;
        names.contains(&name.to_owned()).then(|| {
            let beside = |name: String| if folder.is_empty() { name } else { format!("{folder}/{name}") };
            names.into_iter().map(|name| Self { path: beside(name), ..self.clone() }).collect()
        })
    }

    /// The commit, if it is named by one.
    #[must_use]
    pub fn commit(&self) -> Option<&str> {
        Some(self.revision.as_str()).filter(|revision| is_commit(revision))
    }

    /// The same file as it is at a commit: 40 hexadecimal digits, or nothing.
    #[must_use]
    pub fn at(&self, commit: &str) -> Option<Self> {
        is_commit(commit).then(|| Self { revision: commit.into(), ..self.clone() })
    }

    /// Whether who was asked for this file may take the other one: the same, or any commit of it where none is named.
    #[must_use]
    pub fn is_met_by(&self, other: &Self) -> bool {
        let is_open = self.revision == DEFAULT_REVISION;
        self.repo == other.repo && self.path == other.path && (is_open || self.revision == other.revision)
    }

    /// Whether no branch, tag or commit is named.
    #[must_use]
    pub fn is_any_revision(&self) -> bool {
        self.revision == DEFAULT_REVISION
    }

    /// As the hub's own crate names it.
    pub(super) fn hub_repo(&self) -> Repo {
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

/// As git writes them in full.
fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A part of a path that stays where it is put, and that means nothing else in an address.
fn is_component(text: &str, also: &[u8]) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte) || also.contains(&byte);
    let plain = |byte: u8| allowed(byte) || !byte.is_ascii();
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(plain)
}

/// Where the files of hubs are kept.
pub(super) fn cache_of(config: &HubConfig) -> Result<Cache, HubError> {
    Ok(Cache::new(config.hub.home()?.join("hub")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_branch_is_met_by_any_commit_and_a_commit_by_itself() {
        let file = |name: &str| name.parse::<HubFile>().expect(name);
        let (one, other) = ("1".repeat(40), "a".repeat(40));
        let (any, at) = (file("o/r/f.gguf"), file(&format!("o/r/f.gguf@{one}")));
        assert_eq!((any.commit(), at.commit()), (None, Some(one.as_str())));
        assert_eq!(any.at(&one), Some(at.clone()));
        assert_eq!(any.at("v1"), None);
        let another = any.at(&other).expect("a commit");
        assert!(any.is_met_by(&at) && any.is_met_by(&another) && any.is_met_by(&any));
        assert!(at.is_met_by(&at) && !at.is_met_by(&another) && !at.is_met_by(&any));
        assert!(!any.is_met_by(&file(&format!("o/r/g.gguf@{one}"))) && !any.is_met_by(&file("o/s/f.gguf")));
    }

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
