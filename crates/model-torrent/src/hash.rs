//! SHA-256 hashes: of blocks and what is above them, and of whole files.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

/// A text that was to be a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a SHA-256: write 64 hexadecimal digits")]
pub struct NotAHash(String);

/// A SHA-256 hash; shown as 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Stands in the tree for a block behind the file's end.
    pub(crate) const NOTHING: Self = Self([0; 32]);

    /// Of some bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Of two hashes: the one above them.
    pub(crate) fn above(left: &Self, right: &Self) -> Self {
        Self(Sha256::new().chain_update(left.0).chain_update(right.0).finalize().into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Sha256> for Hash {
    fn from(hash: Sha256) -> Self {
        Self(hash.finalize().into())
    }
}

impl FromStr for Hash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| NotAHash(text.into()))?;
        Ok(Self(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_shown() {
        let hash = Hash::of(b"abc");
        assert_eq!(hash.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for wrong in ["", "ba78", &"é".repeat(32), &"0".repeat(66)] {
            assert!(wrong.parse::<Hash>().is_err(), "{wrong}");
        }
    }
}
