//! Who a node is: an Ed25519 key, kept in a file so that a restarted worker is the same worker.

use std::{
    fmt,
    fs::{File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use libp2p::identity::{KeyType, Keypair};
use swarm_types::NodeId;

use crate::{NetError, peer, private_file::create_private};

/// A node's private key. Its public half is the node's id.
#[derive(Clone)]
pub struct Identity {
    key: Keypair,
    id: NodeId,
    /// Locked while this process uses it: two nodes must not be the same.
    file: Option<Arc<(PathBuf, File)>>,
}

impl Identity {
    /// A new identity that is not kept.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self::new(Keypair::generate_ed25519())
    }

    /// The identity in `path`; makes the file, readable only by its owner, when there is none. It stays locked
    /// until the last clone is dropped and the node that uses it has ended.
    ///
    /// # Errors
    /// When the file is damaged, cannot be read or written, or is used by another process.
    pub fn load_or_create(path: &Path) -> Result<Self, NetError> {
        if !path.exists() {
            match write_new(path) {
                // Another process was faster: that key is as good.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => drop(other.map_err(|error| cannot("written", path, &error))?),
            }
        }
        Self::load(path)
    }

    /// Makes the file `path` for a node that runs later, and tells whose it is.
    ///
    /// # Errors
    /// When there is a file already, which stays as it is, or when it cannot be written.
    pub fn create(path: &Path) -> Result<NodeId, NetError> {
        write_new(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => wrong(path, "is there already: it is not replaced".into()),
            _ => cannot("written", path, &error),
        })
    }

    /// Whose the file `path` is, also while its node runs.
    ///
    /// # Errors
    /// When the file is damaged or cannot be read.
    pub fn id_in(path: &Path) -> Result<NodeId, NetError> {
        let file = File::open(path).map_err(|error| cannot("read", path, &error))?;
        Ok(Self::read(path, &file)?.id)
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    pub(crate) fn key(&self) -> &Keypair {
        &self.key
    }

    /// Where it is kept.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.0.as_path())
    }

    fn new(key: Keypair) -> Self {
        let id = peer::node_id(&key.public().to_peer_id());
        Self { key, id, file: None }
    }

    fn load(path: &Path) -> Result<Self, NetError> {
        let file = File::open(path).map_err(|error| cannot("read", path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(NetError::IdentityInUse { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "identity file cannot be locked; use it only once");
            }
        }
        let identity = Self::read(path, &file)?;
        Ok(Self { file: Some(Arc::new((path.to_owned(), file))), ..identity })
    }

    fn read(path: &Path, file: &File) -> Result<Self, NetError> {
        let mut bytes = vec![];
        file.take(LARGEST).read_to_end(&mut bytes).map_err(|error| cannot("read", path, &error))?;
        match Keypair::from_protobuf_encoding(&bytes) {
            Ok(key) if key.key_type() == KeyType::Ed25519 => Ok(Self::new(key)),
            _ => Err(wrong(
                path,
                "is damaged: it does not hold a protobuf-encoded Ed25519 key; restore it, or delete it to become \
                 a new node"
                    .into(),
            )),
        }
    }
}

impl fmt::Debug for Identity {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.id).finish()
    }
}

/// An encoded key has 68 bytes.
const LARGEST: u64 = 4096;

fn write_new(path: &Path) -> io::Result<NodeId> {
    let identity = Identity::ephemeral();
    let bytes = identity.key.to_protobuf_encoding().expect("an Ed25519 key can be encoded");
    create_private(path, &bytes).map(|()| identity.id)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> NetError {
    wrong(path, format!("cannot be {what}: {error}"))
}

fn wrong(path: &Path, message: String) -> NetError {
    NetError::Identity { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_identity_outlives_the_process_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/identity");
        let first = Identity::load_or_create(&path).unwrap();
        let twice = Identity::load_or_create(&path).unwrap_err();
        assert!(matches!(twice, NetError::IdentityInUse { .. }), "two nodes must not be the same: {twice}");
        let id = first.id().clone();
        drop(first);
        assert_eq!(*Identity::load_or_create(&path).unwrap().id(), id);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_key_that_was_made_before_is_the_nodes_own_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        let id = Identity::create(&path).unwrap();
        let again = Identity::create(&path).unwrap_err().to_string();
        assert!(again.contains("already"), "{again}");
        let node = Identity::load_or_create(&path).unwrap();
        assert_eq!((node.id(), &Identity::id_in(&path).unwrap()), (&id, &id), "also while the node has it");
        assert!(Identity::id_in(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        let key = Identity::ephemeral().key.to_protobuf_encoding().unwrap();
        for damaged in [&b""[..], b"not a key", &key[..key.len() - 1]] {
            fs::write(&path, damaged).unwrap();
            let error = Identity::load_or_create(&path).unwrap_err().to_string();
            assert!(error.contains("damaged") && error.contains("identity"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), damaged);
        }
    }
}
