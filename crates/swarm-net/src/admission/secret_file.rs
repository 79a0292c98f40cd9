//! The file that a node's secrets are kept in, and that an administrator changes under it.

use std::{fs::File, io::Read, path::Path};

use zeroize::Zeroizing;

use super::{
    invitation::{self, Invitation},
    secret::Secret,
};
use crate::NetError;

/// A rotation has two or three.
const MAX_SECRETS: usize = 16;
/// A file of secrets has some hundred bytes.
const LARGEST_FILE: u64 = 64 * 1024;

/// A line of a file of secrets.
#[derive(Debug)]
pub(crate) enum Line {
    Secret(Secret),
    Invitation(Invitation),
}

impl Line {
    pub(crate) fn secret(&self) -> &Secret {
        match self {
            Self::Secret(secret) => secret,
            Self::Invitation(invitation) => &invitation.secret,
        }
    }
}

/// Reads a file of secrets or invitations, one a line; empty lines and those that begin with `#` are skipped.
///
/// # Errors
/// When it cannot be read, has a line that is neither, none at all, or too many.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>, NetError> {
    let cannot = |error| NetError::secret(path, format!("cannot be read: {error}"));
    let mut text = Zeroizing::new(String::new());
    File::open(path).map_err(cannot)?.take(LARGEST_FILE).read_to_string(&mut text).map_err(cannot)?;
    let mut lines = vec![];
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let read = parse(line)
            .map_err(|message| NetError::secret(path, format!("line {}: {message}", number + 1)))?;
        lines.push(read);
    }
    match lines.len() {
        0 => Err(NetError::secret(path, "holds no secret; `llama-swarm secret new FILE` makes one")),
        1..=MAX_SECRETS => Ok(lines),
        more => Err(NetError::secret(path, format!("holds {more} secrets, at most {MAX_SECRETS} are used"))),
    }
}

/// The secret that a node with this file proves: the first.
///
/// # Errors
/// When the file cannot be read, or holds no secret.
pub fn first_secret(path: &Path) -> Result<Secret, NetError> {
    Ok(read(path)?[0].secret().clone())
}

/// Says so when everybody on the machine may read the file.
#[cfg(unix)]
pub(crate) fn warn_if_public(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if path.metadata().is_ok_and(|file| file.permissions().mode() & 0o004 != 0) {
        tracing::warn!(path = %path.display(), "every user of this machine can read the swarm's secret: chmod 600");
    }
}

/// Who may read a file is not told by its mode here.
#[cfg(not(unix))]
pub(crate) fn warn_if_public(_: &Path) {}

fn parse(line: &str) -> Result<Line, String> {
    if line.starts_with(invitation::PREFIX) {
        return line.parse().map(Line::Invitation);
    }
    line.parse().map(Line::Secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_hold_several_and_a_wrong_line_is_named_but_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        let (new, old) = (Secret::generate(), Secret::generate());
        std::fs::write(&path, format!("# since spring\n{}\r\n\n  {}", new.reveal(), old.reveal())).unwrap();
        let lines = read(&path).unwrap();
        let secrets: Vec<_> = lines.iter().map(|line| line.secret().bytes()).collect();
        assert_eq!(secrets, [new.bytes(), old.bytes()]);
        assert_eq!(first_secret(&path).unwrap().bytes(), new.bytes());
        let short = &new.reveal()[1..];
        let many = format!("{}\n", new.reveal()).repeat(MAX_SECRETS + 1);
        let wrong = [("", "no secret"), ("#\n", "no secret"), (short, "line 1"), ("correct horse", "line 1")];
        for (text, named) in wrong.into_iter().chain([(many.as_str(), "at most")]) {
            std::fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("--secret-file"), "{error}");
            assert!(!error.contains(short) && !error.contains("horse"), "{error}");
        }
    }
}
