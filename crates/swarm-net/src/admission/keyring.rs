//! What proves that a node belongs to the swarm: keys that are made of its secrets, and follow them when they change.

use std::{
    fmt, fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroize;

use super::{secret::Secret, secret_file};
use crate::NetError;

/// Where the secrets come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// There are none: every node of that name that also has none is a member.
    Nothing,
    /// These, for as long as the node runs.
    Fixed(Vec<Secret>),
    /// A file that is read again when it changes.
    File(PathBuf),
}

/// Made of a secret and the swarm's name.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key([u8; 32]);

impl Key {
    fn of(secret: &Secret, cluster: &str) -> Self {
        Self::derive(secret.bytes(), "llama-swarm admit 1", cluster)
    }

    /// Of those who have no secret; known to everybody.
    fn of_nobody(cluster: &str) -> Self {
        Self::derive(&[], "llama-swarm admit 1 without a secret", cluster)
    }

    fn derive(secret: &[u8], label: &str, cluster: &str) -> Self {
        let mut key = [0; 32];
        let info = [label.as_bytes(), &[0], cluster.as_bytes()];
        let derived = Hkdf::<Sha256>::new(None, secret).expand_multi_info(&info, &mut key);
        derived.expect("32 bytes are a valid length");
        Self(key)
    }

    /// HMAC-SHA256 over the parts.
    pub(crate) fn tag(&self, message: &[u8]) -> [u8; 32] {
        self.mac(message).finalize().into_bytes().into()
    }

    /// Whether the tag was made with this key, in constant time.
    pub(crate) fn verifies(&self, message: &[u8], tag: &[u8; 32]) -> bool {
        self.mac(message).verify_slice(tag).is_ok()
    }

    fn mac(&self, message: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("keys of any length are taken");
        mac.update(message);
        mac
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    /// Never shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The keys of the secrets that hold now, the one that proves first. Never empty.
pub(crate) type Keys = Arc<[Key]>;

/// The keys of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Keyring(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cluster: String,
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    keys: Keys,
    /// Of the file that was read last, whether it was of use or not.
    stamp: Stamp,
}

/// Tells that a file has changed. Without a time, there is no file.
type Stamp = Option<(SystemTime, u64)>;

impl Keyring {
    /// # Errors
    /// When the file of secrets cannot be used.
    pub(crate) fn new(cluster: &str, source: Source) -> Result<Self, NetError> {
        let (file, secrets, stamp) = match source {
            Source::Nothing => (None, vec![], None),
            Source::Fixed(secrets) => (None, secrets, None),
            Source::File(path) => {
                let stamp = stamp(&path);
                secret_file::warn_if_public(&path);
                let secrets = secret_file::read(&path)?.iter().map(|line| line.secret().clone()).collect();
                (Some(path), secrets, stamp)
            }
        };
        let state = Mutex::new(State { keys: keys(cluster, &secrets), stamp });
        Ok(Self(Arc::new(Inner { cluster: cluster.to_owned(), file, state })))
    }

    /// The keys that hold now.
    pub(crate) fn keys(&self) -> Keys {
        Arc::clone(&self.state().keys)
    }

    /// Whether a key still holds.
    pub(crate) fn accepts(&self, key: &Key) -> bool {
        self.state().keys.contains(key)
    }

    /// Looks whether the file has changed and reads it then. A file that is of no use changes nothing, and that is told
    /// once. True when there are other keys now.
    pub(crate) fn refresh(&self) -> bool {
        let Some(path) = &self.0.file else { return false };
        let found = stamp(path);
        if std::mem::replace(&mut self.state().stamp, found) == found {
            return false;
        }
        let lines = match secret_file::read(path) {
            Ok(lines) => lines,
            Err(error) => {
                tracing::warn!(%error, "the secrets stay as they were");
                return false;
            }
        };
        let secrets: Vec<_> = lines.iter().map(|line| line.secret().clone()).collect();
        let keys = keys(&self.0.cluster, &secrets);
        let before = std::mem::replace(&mut self.state().keys, Arc::clone(&keys));
        if before == keys {
            return false;
        }
        tracing::info!(secrets = keys.len(), "the swarm's secrets have changed");
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keys(cluster: &str, secrets: &[Secret]) -> Keys {
    if secrets.is_empty() {
        return [Key::of_nobody(cluster)].into();
    }
    secrets.iter().map(|secret| Key::of(secret, cluster)).collect()
}

fn stamp(path: &std::path::Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_one_secret_and_one_swarm() {
        let (secret, other) = (Secret::generate(), Secret::generate());
        let key = Key::of(&secret, "a");
        let tag = key.tag(b"message");
        assert!(key.verifies(b"message", &tag) && Key::of(&secret, "a").verifies(b"message", &tag));
        assert!(!key.verifies(b"massage", &tag));
        for foreign in [Key::of(&secret, "b"), Key::of(&other, "a"), Key::of_nobody("a")] {
            assert!(!foreign.verifies(b"message", &tag));
        }
    }

    #[test]
    fn keys_follow_the_file_and_a_file_of_no_use_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        let (old, new) = (Secret::generate(), Secret::generate());
        std::fs::write(&path, old.reveal()).unwrap();
        let ring = Keyring::new("c", Source::File(path.clone())).unwrap();
        let first = ring.keys()[0].clone();
        assert!(!ring.refresh(), "nothing has changed");
        std::fs::write(&path, format!("{}\n{}\n", new.reveal(), old.reveal())).unwrap();
        assert!(ring.refresh());
        assert_eq!(ring.keys()[0], Key::of(&new, "c"), "the first proves");
        assert!(ring.accepts(&first), "all are accepted");
        std::fs::write(&path, "nonsense").unwrap();
        assert!(!ring.refresh());
        std::fs::remove_file(&path).unwrap();
        assert!(!ring.refresh());
        assert!(ring.accepts(&first));
        std::fs::write(&path, new.reveal()).unwrap();
        assert!(ring.refresh());
        assert!(!ring.accepts(&first), "it was withdrawn");
    }
}
