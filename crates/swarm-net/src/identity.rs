//! Who a node is: an Ed25519 key, kept in a file so that a restarted worker is the same worker.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use libp2p::identity::{KeyType, Keypair};
use swarm_types::NodeId;

use crate::{NetError, peer};

/// A node's private key. Its public half is the node's id.
#[derive(Clone)]
pub struct Identity {
    key: Keypair,
    id: NodeId,
    /// Locked while this process uses it: two nodes must not be the same.
    _file: Option<Arc<File>>,
}

impl Identity {
    /// A new identity that is not kept.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self::new(Keypair::generate_ed25519(), None)
    }

    /// The identity in `path`; makes the file, readable only by its owner, when there is none. It stays locked
    /// until the last clone is dropped and the node that uses it has ended.
    ///
    /// # Errors
    /// When the file is damaged, cannot be read or written, or is used by another process.
    pub fn load_or_create(path: &Path) -> Result<Self, NetError> {
        if !path.exists() {
            let key = Keypair::generate_ed25519();
            let bytes = key.to_protobuf_encoding().expect("an Ed25519 key can be encoded");
            write_private(path, &bytes)
                .map_err(|error| wrong(path, format!("cannot be written: {error}")))?;
        }
        Self::load(path)
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    pub(crate) fn key(&self) -> &Keypair {
        &self.key
    }

    fn new(key: Keypair, file: Option<File>) -> Self {
        let id = peer::node_id(&key.public().to_peer_id());
        Self { key, id, _file: file.map(Arc::new) }
    }

    fn load(path: &Path) -> Result<Self, NetError> {
        let cannot = |error: io::Error| wrong(path, format!("cannot be read: {error}"));
        let mut file = File::open(path).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(NetError::IdentityInUse { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "identity file cannot be locked; use it only once");
            }
        }
        let mut bytes = vec![];
        (&mut file).take(LARGEST).read_to_end(&mut bytes).map_err(cannot)?;
        match Keypair::from_protobuf_encoding(&bytes) {
            Ok(key) if key.key_type() == KeyType::Ed25519 => Ok(Self::new(key, Some(file))),
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

fn wrong(path: &Path, message: String) -> NetError {
    NetError::Identity { path: path.to_owned(), message }
}

/// Writes a file that must not exist yet.
pub(crate) fn create_new_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    write_private(path, bytes)?;
    // Another process may have been faster.
    match fs::read(path)? == bytes {
        true => Ok(()),
        false => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// Writes the file complete or not at all. When another process has written it meanwhile, that one stays.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    let written = create_private(&part)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| match fs::hard_link(&part, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(&part, path),
            _ => Ok(()),
        });
    // Renamed away, or not needed any more.
    let _ = fs::remove_file(&part);
    written
}

#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A file inherits who may read it from its folder, which may be everybody. It is restricted while it is still empty;
/// a disk that knows no owners stays as open as it is.
#[cfg(windows)]
fn create_private(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    if let Err(error) = leave_to_owner(path) {
        tracing::warn!(path = %path.display(), %error, "others may be able to read the identity file");
    }
    Ok(file)
}

/// By Windows' own tool: the calls themselves are not safe Rust.
#[cfg(windows)]
fn leave_to_owner(path: &Path) -> io::Result<()> {
    /// The group "owner rights", by the number that is the same in every language: full access.
    const OWNER: &str = "*S-1-3-4:F";
    let windows = std::env::var_os("SystemRoot").ok_or_else(|| io::Error::other("SystemRoot is not set"))?;
    let icacls = Path::new(&windows).join("System32").join("icacls.exe");
    let mut command = std::process::Command::new(icacls);
    let output = command.arg(path).args(["/inheritance:r", "/grant:r", OWNER]).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
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
