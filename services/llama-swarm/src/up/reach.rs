//! Who may ask a swarm on this machine, and where. Beyond this machine nobody asks without a key, unless that is said.

use std::{
    ffi::OsString,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use gateway::clients::{Entry, KeyHash, Limits};

use crate::{credentials::Credentials, key::private_file};

/// Where nobody but this machine reaches a port.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The client's name in the gateway's metrics.
const CLIENT: &str = "up";

/// Who may ask, and where.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Clients")]
pub(crate) struct Reach {
    /// Where the HTTP API listens; 0.0.0.0 is all addresses of this machine. Beyond this machine clients show a key,
    /// which is told when the swarm is ready.
    #[arg(long, env = "LLAMA_SWARM_HOST", value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: IpAddr,

    /// With --host: the key that clients show. Without it each start makes one.
    #[arg(long, env = "LLAMA_SWARM_API_KEY", value_name = "KEY", hide_env_values = true)]
    api_key: Option<String>,

    /// With --host: everybody who reaches the port uses the model, without a key.
    #[arg(long, env = "LLAMA_SWARM_OPEN_GATEWAY")]
    open_gateway: bool,
}

/// This machine alone.
impl Default for Reach {
    fn default() -> Self {
        Self { host: LOOPBACK, api_key: None, open_gateway: false }
    }
}

/// What the gateway is told of its clients.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    host: IpAddr,
    /// Nothing where nobody is asked for one.
    key: Option<ClientKey>,
}

/// The key that clients show, and the gateway's file, which has its hash.
#[derive(Clone)]
struct ClientKey {
    shown: String,
    file: PathBuf,
}

/// A key is in no log.
impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientKey").field("file", &self.file).finish_non_exhaustive()
    }
}

/// This machine alone.
impl Default for Access {
    fn default() -> Self {
        Self { host: LOOPBACK, key: None }
    }
}

impl Access {
    /// Writes the file of keys to `dir`, where keys are needed.
    ///
    /// # Errors
    /// When the key is none, or the file cannot be written.
    pub(crate) fn new(reach: &Reach, dir: &Path) -> Result<Self> {
        let Reach { host, open_gateway, .. } = *reach;
        if host.is_loopback() || open_gateway {
            return Ok(Self { host, key: None });
        }
        let given = reach.api_key.as_deref().map(str::trim).filter(|key| !key.is_empty());
        let (shown, entry) = match given {
            Some(key) => {
                ensure!(
                    key.chars().all(|c| c.is_ascii_graphic()),
                    "--api-key: a key has no spaces and only ASCII"
                );
                let hash = KeyHash::of(key);
                (key.to_owned(), Entry { name: CLIENT.into(), hash, limits: Limits::default() })
            }
            None => {
                let (key, entry) = Entry::new(CLIENT, Limits::default()).map_err(|fault| anyhow!(fault))?;
                (key.as_str().to_owned(), entry)
            }
        };
        let file = dir.join("clients.keys");
        write(&file, &entry).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { host, key: Some(ClientKey { shown, file }) })
    }

    /// Where the HTTP API listens.
    pub(crate) fn host(&self) -> IpAddr {
        self.host
    }

    /// What we show ourselves.
    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::with_key(self.key.as_ref().map(|key| key.shown.clone()))
    }

    /// The gateway's flags.
    pub(crate) fn flags(&self) -> Vec<OsString> {
        match &self.key {
            Some(key) => vec!["--api-keys-file".into(), (&key.file).into()],
            None if self.host.is_loopback() => vec![],
            None => vec!["--open-gateway".into()],
        }
    }

    /// What the operator is told.
    pub(crate) fn lines(&self) -> Vec<String> {
        let everywhere =
            if self.host.is_unspecified() { "all addresses of this machine" } else { "this address" };
        match &self.key {
            Some(ClientKey { shown, file }) => vec![
                format!("  key         {shown}   (on {everywhere}: --api-key, Authorization: Bearer)"),
                format!("  more keys   llama-swarm key new NAME --file {}", file.display()),
            ],
            None if self.host.is_loopback() => vec![],
            None => vec![format!("  OPEN        on {everywhere} everybody may ask, without a key")],
        }
    }
}

/// Each run has keys of its own.
fn write(file: &Path, entry: &Entry) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    io::Write::write_all(&mut private_file(file)?, format!("{entry}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use gateway::clients::entries;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        reach: Reach,
    }

    fn access(flags: &[&str], dir: &Path) -> Result<Access> {
        Access::new(&Cli::parse_from([&["up"][..], flags].concat()).reach, dir)
    }

    #[test]
    fn this_machine_alone_needs_no_key_and_others_do() {
        let dir = tempfile::tempdir().expect("a folder");
        let here = access(&["--api-key", "of-another-gateway"], dir.path()).expect("valid");
        assert!(here.flags().is_empty() && here.lines().is_empty());
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 0);

        let made = access(&["--host", "0.0.0.0"], dir.path()).expect("valid");
        let again = access(&["--host", "0.0.0.0"], dir.path()).expect("valid");
        let key = |access: &Access| access.key.clone().expect("a key").shown;
        assert_ne!(key(&made), key(&again), "each run has its own");
        let file = fs::read(dir.path().join("clients.keys")).expect("written");
        let read = entries(&file).expect("valid");
        assert_eq!(read.iter().map(|entry| entry.hash).collect::<Vec<_>>(), [KeyHash::of(&key(&again))]);
        assert_eq!(again.flags()[0], "--api-keys-file");
        assert!(again.lines()[0].contains(&key(&again)) && !format!("{again:?}").contains(&key(&again)));
    }

    #[test]
    fn a_key_may_be_given_and_a_gateway_be_open() {
        let dir = tempfile::tempdir().expect("a folder");
        let given = access(&["--host", "::", "--api-key", "mine"], dir.path()).expect("valid");
        assert_eq!(given.key.as_ref().map(|key| key.shown.as_str()), Some("mine"));
        assert!(access(&["--host", "::", "--api-key", "a b"], dir.path()).is_err());
        let open = access(&["--host", "0.0.0.0", "--open-gateway"], dir.path()).expect("valid");
        assert_eq!(open.flags(), ["--open-gateway"]);
        assert!(open.lines()[0].contains("without a key"), "{:?}", open.lines());
    }
}
