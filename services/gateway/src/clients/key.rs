//! Keys that clients show, and what is kept of them.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// By it a key is known for one wherever it lies around.
const PREFIX: &str = "lsk-";

/// What a client shows. It is told once, when it is made.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// A new one: 32 bytes of the system's randomness.
    ///
    /// # Errors
    /// When the system has none to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("{PREFIX}{}", hex::encode(bytes))))
    }

    /// As the client shows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key is in no log.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What a file of keys has of a key. Keys are random and long, so that a plain SHA-256 cannot be turned around; what
/// passwords need would only make each request slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of what a client shows.
    #[must_use]
    pub fn of(shown: &str) -> Self {
        Self(Sha256::digest(shown).into())
    }

    /// Whether both are the same, in a time that does not tell where they differ.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl FromStr for KeyHash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ())?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_random_and_known_by_their_hash() {
        let (one, other) = (Key::random().expect("randomness"), Key::random().expect("randomness"));
        assert_ne!(one.as_str(), other.as_str());
        assert_eq!(one.as_str().len(), 4 + 64);
        let hash = KeyHash::of(one.as_str());
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!(hash.is(&KeyHash::of(one.as_str())) && !hash.is(&KeyHash::of(other.as_str())));
    }

    #[test]
    fn a_hash_is_that_of_sha256_and_nothing_shorter() {
        // `printf abc | sha256sum`
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyHash::of("abc").to_string(), abc);
        for wrong in ["", &abc[1..], &abc.replace('b', "x"), &format!("{abc}00")] {
            assert_eq!(wrong.parse::<KeyHash>(), Err(()), "{wrong}");
        }
    }
}
