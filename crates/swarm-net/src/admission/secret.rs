//! The swarm's secret, and the file it is kept in.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
    str::FromStr,
};

use zeroize::Zeroizing;

use super::invitation::Invitation;
use crate::{NetError, private_file::create_private};

/// Long enough that nobody finds it by trying, however much was recorded.
const SECRET_BYTES: usize = 32;
/// A rotation has two or three.
pub(crate) const MAX_SECRETS: usize = 16;
/// A file of secrets has some hundred bytes.
const LARGEST_FILE: u64 = 64 * 1024;

/// What all members of a swarm hold and nobody else: 32 random bytes. As text 64 hexadecimal digits.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; SECRET_BYTES]>);

impl Secret {
    /// A new one, from the system's source of randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }

    /// Its text, for a file or an invitation. Whoever reads it is a member.
    #[must_use]
    pub fn reveal(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes it to a new file that only its owner reads.
    ///
    /// # Errors
    /// When the file exists already, or cannot be written.
    pub fn create(&self, path: &Path) -> Result<(), NetError> {
        let line = format!("{}\n", self.reveal());
        create_private(path, line.as_bytes()).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => wrong(path, "is there already: it is not replaced".into()),
            _ => wrong(path, format!("not written: {error}")),
        })
    }

    /// The one in a file that a node proves: the first.
    ///
    /// # Errors
    /// When the file cannot be read, holds none, or what it holds is no secret.
    pub fn first_in(path: &Path) -> Result<Self, NetError> {
        let lines = read(path)?;
        Ok(lines[0].secret().clone())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &*self.0
    }
}

impl FromStr for Secret {
    type Err = String;

    /// # Errors
    /// When it is no 64 hexadecimal digits. The message does not repeat the text.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_hex = text.len() == 2 * SECRET_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex {
            return Err(format!("a secret has {} hexadecimal digits", 2 * SECRET_BYTES));
        }
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte =
                u8::from_str_radix(&text[2 * place..2 * place + 2], 16).map_err(|error| error.to_string())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Secret {
    /// Never shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has a source of randomness");
    bytes
}

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
    let cannot = |error| wrong(path, format!("cannot be read: {error}"));
    let mut text = Zeroizing::new(String::new());
    File::open(path).map_err(cannot)?.take(LARGEST_FILE).read_to_string(&mut text).map_err(cannot)?;
    let mut lines = vec![];
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let read = parse(line).map_err(|message| wrong(path, format!("line {}: {message}", number + 1)))?;
        lines.push(read);
    }
    match lines.len() {
        0 => Err(wrong(path, "holds no secret; `llama-swarm secret new FILE` makes one".into())),
        1..=MAX_SECRETS => Ok(lines),
        more => Err(wrong(path, format!("holds {more} secrets, at most {MAX_SECRETS} are used"))),
    }
}

fn parse(line: &str) -> Result<Line, String> {
    if line.starts_with(super::invitation::PREFIX) {
        return line.parse().map(Line::Invitation);
    }
    line.parse().map(Line::Secret)
}

fn wrong(path: &Path, message: String) -> NetError {
    NetError::Secret { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_written_once_for_its_owner_alone_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("swarm.secret");
        let secret = Secret::generate();
        secret.create(&path).unwrap();
        assert!(Secret::generate().create(&path).is_err(), "what exists is not overwritten");
        let read = read(&path).unwrap();
        assert_eq!(read[0].secret().bytes(), secret.bytes());
        assert!(!format!("{secret:?} {read:?}").contains(&secret.reveal()[..8]));
        assert_ne!(Secret::generate().bytes(), secret.bytes());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_may_hold_several_and_a_wrong_line_is_named_but_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        let (new, old) = (Secret::generate(), Secret::generate());
        std::fs::write(&path, format!("# since spring\n{}\r\n\n  {}", new.reveal(), old.reveal())).unwrap();
        let lines = read(&path).unwrap();
        let secrets: Vec<_> = lines.iter().map(|line| line.secret().bytes()).collect();
        assert_eq!(secrets, [new.bytes(), old.bytes()]);
        assert_eq!(Secret::first_in(&path).unwrap().bytes(), new.bytes());
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
