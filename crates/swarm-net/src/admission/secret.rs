//! The swarm's secret.

use std::{fmt, io, path::Path, str::FromStr};

use zeroize::Zeroizing;

use crate::{NetError, private_file::create_private};

/// Long enough that nobody finds it by trying, however much was recorded.
const SECRET_BYTES: usize = 32;

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
            io::ErrorKind::AlreadyExists => NetError::secret(path, "is there already: it is not replaced"),
            _ => NetError::secret(path, format!("not written: {error}")),
        })
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
        let read: Secret = std::fs::read_to_string(&path).unwrap().trim().parse().unwrap();
        assert_eq!(read.bytes(), secret.bytes());
        assert!(!format!("{secret:?}").contains(&secret.reveal()[..8]));
        assert_ne!(Secret::generate().bytes(), secret.bytes());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
