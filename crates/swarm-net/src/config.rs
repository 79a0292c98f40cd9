//! How a node joins its swarm: flags, environment variables, and their checked form.

mod members;

use std::path::{Path, PathBuf};

use libp2p::Multiaddr;
use swarm_types::{Admission, MAX_SHARDS};

pub use self::members::MemberConfig;
use self::members::Members;
use crate::{
    NetError, Role,
    admission::keyring::Source,
    entry_address::{EntryAddress, entry},
    identity::Identity,
    transport::address,
};

/// Nodes of one name on one machine whose identities are kept.
const MAX_SAME_NAME: u32 = 64;
/// Longer names are refused: the name is part of keys, protocols and log lines.
const MAX_CLUSTER_NAME: usize = 64;

/// How a node joins its swarm.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Network")]
pub struct NetConfig {
    /// Name of the swarm. Nodes of different names never meet.
    #[arg(long, env = "LLAMA_SWARM_CLUSTER", default_value = "llama-cluster")]
    pub cluster: String,

    /// Where to listen, as multiaddresses, for example `/ip4/0.0.0.0/udp/4001/quic-v1` or `/ip4/0.0.0.0/tcp/4001`.
    /// Without it: port 4001 on a rendezvous, free ports on other nodes; QUIC and TCP.
    #[arg(long, env = "LLAMA_SWARM_LISTEN", value_delimiter = ',', value_name = "MULTIADDR", value_parser = listen_text)]
    pub listen: Vec<String>,

    /// Nodes to enter the swarm by, as `host:port` or as `/dns4/host/udp/4001/quic-v1`; `/p2p/<peer id>` may follow.
    /// Where QUIC gets no answer, TCP is tried on the same port. Any node will do, and it is needed only to enter.
    #[arg(long, env = "LLAMA_SWARM_RENDEZVOUS", value_delimiter = ',', value_name = "ADDRESS", value_parser = entry_text)]
    pub rendezvous: Vec<String>,

    /// Addresses that others reach this node at when they differ from where it listens (behind NAT or a load
    /// balancer).
    #[arg(long, env = "LLAMA_SWARM_EXTERNAL_ADDRESS", value_delimiter = ',', value_name = "MULTIADDR", value_parser = external_text)]
    pub external_address: Vec<String>,

    /// File with the node's private key, made when it does not exist: who restarts with it is the same node
    /// [default: one for each kind of node, in the user's state directory].
    #[arg(long, env = "LLAMA_SWARM_IDENTITY", value_name = "FILE", value_parser = members::file())]
    pub identity: Option<PathBuf>,

    /// Who may take part.
    #[command(flatten)]
    pub members: MemberConfig,

    /// Into how many shards the model is cut. All nodes of a swarm must agree.
    #[arg(long, env = "LLAMA_SWARM_TOTAL_SHARDS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SHARDS)))]
    pub total_shards: u32,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            cluster: "llama-cluster".into(),
            listen: vec![],
            rendezvous: vec![],
            external_address: vec![],
            identity: None,
            members: MemberConfig::default(),
            total_shards: 8,
        }
    }
}

impl NetConfig {
    /// The identity in the configured file. Without one, an identity that is kept under `name` in the user's
    /// state directory; a second node of that name on the machine gets one of its own. Where there is no such
    /// directory, a new identity that is not kept.
    ///
    /// # Errors
    /// When the configured file cannot be used, or a kept one is damaged.
    pub fn load_identity(&self, name: &str) -> Result<Identity, NetError> {
        if let Some(file) = self.identity.as_deref().filter(|file| !file.as_os_str().is_empty()) {
            return Identity::load_or_create(file);
        }
        let Some(folder) = state_folder() else {
            tracing::warn!("no state directory: this node will be a new one after a restart, see --identity");
            return Ok(Identity::ephemeral());
        };
        kept_identity(&folder.join("llama-swarm").join(&self.cluster), name)
    }
}

/// Where a program keeps what must outlive it, by the XDG Base Directory Specification and its likes.
fn state_folder() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let default = || match std::env::consts::OS {
        "windows" => absolute("LOCALAPPDATA"),
        "macos" => Some(home?.join("Library/Application Support")),
        _ => Some(home?.join(".local/state")),
    };
    absolute("XDG_STATE_HOME").or_else(default)
}

/// The first identity of that name which no other process uses.
fn kept_identity(folder: &Path, name: &str) -> Result<Identity, NetError> {
    for number in 1..=MAX_SAME_NAME {
        let file = match number {
            1 => format!("{name}.key"),
            // A point: with a hyphen, the second worker of shard 0 would be called as the first of shards 0-2.
            more => format!("{name}.{more}.key"),
        };
        match Identity::load_or_create(&folder.join(file)) {
            Err(NetError::IdentityInUse { .. }) => {}
            Err(NetError::Identity { path, message }) if !path.exists() => {
                tracing::warn!(path = %path.display(), message, "this node will be a new one after a restart");
                return Ok(Identity::ephemeral());
            }
            other => return other,
        }
    }
    Ok(Identity::ephemeral())
}

/// A checked [`NetConfig`].
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) cluster: String,
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) entries: Vec<EntryAddress>,
    pub(crate) external: Vec<Multiaddr>,
    pub(crate) total_shards: u32,
    /// What admits to the swarm.
    pub(crate) admission: Admission,
    /// Where the secrets come from.
    pub(crate) secrets: Source,
}

impl Settings {
    pub(crate) fn check(config: NetConfig, role: Role) -> Result<Self, NetError> {
        let Members { admission, secrets, entries: invited } = Members::check(&config.members)?;
        let listen = given(config.listen).map(|text| listen_address(&text)).collect::<Result<Vec<_>, _>>()?;
        let mut entries = given(config.rendezvous).map(|text| entry(&text)).collect::<Result<Vec<_>, _>>()?;
        let external =
            given(config.external_address).map(|text| external(&text)).collect::<Result<_, _>>()?;
        if !(1..=MAX_SHARDS).contains(&config.total_shards) {
            return Err(NetError::config("--total-shards", format!("must be 1 to {MAX_SHARDS}")));
        }
        entries.extend(invited);
        let listen = if listen.is_empty() { role.default_listen(admission) } else { listen };
        if admission == Admission::Loopback {
            members::stay_on_this_machine(&listen, &entries)?;
        }
        Ok(Self {
            cluster: cluster_name(config.cluster)?,
            listen,
            entries,
            external,
            total_shards: config.total_shards,
            admission,
            secrets,
        })
    }
}

impl Role {
    fn default_listen(self, admission: Admission) -> Vec<Multiaddr> {
        let port = if self == Self::Rendezvous { 4001 } else { 0 };
        let host = if admission == Admission::Loopback { "127.0.0.1" } else { "0.0.0.0" };
        [format!("/ip4/{host}/udp/{port}/quic-v1"), format!("/ip4/{host}/tcp/{port}")]
            .iter()
            .map(|text| text.parse().expect("a valid address"))
            .collect()
    }
}

/// An environment variable that is set to nothing yields one empty value.
fn given(texts: Vec<String>) -> impl Iterator<Item = String> {
    texts.into_iter().filter(|text| !text.trim().is_empty())
}

fn cluster_name(name: String) -> Result<String, NetError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=MAX_CLUSTER_NAME).contains(&name.len()) && name.chars().all(allowed) {
        Ok(name)
    } else {
        let message = format!("must be 1 to {MAX_CLUSTER_NAME} letters, digits, '-', '_' or '.'");
        Err(NetError::config("--cluster", message))
    }
}

fn listen_address(text: &str) -> Result<Multiaddr, NetError> {
    let example = "for example /ip4/0.0.0.0/udp/4001/quic-v1";
    let parsed: Multiaddr = text
        .parse()
        .map_err(|error| NetError::config("--listen", format!("{text:?}: {error}; {example}")))?;
    match address::transport(&parsed) {
        Some(_) => Ok(parsed),
        None => Err(NetError::config("--listen", format!("{text:?} is neither QUIC nor TCP; {example}"))),
    }
}

fn external(text: &str) -> Result<Multiaddr, NetError> {
    let setting = "--external-address";
    let parsed: Multiaddr =
        text.parse().map_err(|error| NetError::config(setting, format!("{text:?}: {error}")))?;
    address::dialable(&parsed).ok_or_else(|| NetError::config(setting, format!("{text:?} cannot be dialled")))
}

/// Checks a value while the command line is read, where the message helps most.
fn checked<T>(text: &str, check: impl Fn(&str) -> Result<T, NetError>) -> Result<String, String> {
    match check(text) {
        _ if text.trim().is_empty() => Ok(String::new()),
        Ok(_) => Ok(text.trim().to_owned()),
        Err(NetError::Config { message, .. }) => Err(message),
        Err(error) => Err(error.to_string()),
    }
}

fn listen_text(text: &str) -> Result<String, String> {
    checked(text, listen_address)
}

fn entry_text(text: &str) -> Result<String, String> {
    checked(text, entry)
}

fn external_text(text: &str) -> Result<String, String> {
    checked(text, external)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_one_name_on_one_machine_are_different_nodes() {
        let folder = tempfile::tempdir().unwrap();
        let first = kept_identity(folder.path(), "worker-2").unwrap();
        let second = kept_identity(folder.path(), "worker-2").unwrap();
        assert_ne!(first.id(), second.id());
        let other_name = kept_identity(folder.path(), "worker-2-2").unwrap();
        assert_ne!(second.id(), other_name.id());
        assert!(folder.path().join("worker-2-2.key").exists(), "no name is another's second");
        let id = first.id().clone();
        drop(first);
        assert_eq!(*kept_identity(folder.path(), "worker-2").unwrap().id(), id);
    }

    #[test]
    fn settings_are_refused_by_flag() {
        let refused = |change: fn(&mut NetConfig)| {
            let mut config = NetConfig::default();
            change(&mut config);
            match Settings::check(config, Role::Worker) {
                Err(NetError::Config { setting, .. }) => setting,
                other => panic!("expected a refusal, got {other:?}"),
            }
        };
        assert_eq!(refused(|c| c.cluster = "a/b".into()), "--cluster");
        assert_eq!(refused(|c| c.total_shards = 0), "--total-shards");
        assert_eq!(refused(|c| c.listen = vec!["/ip4/1.2.3.4".into()]), "--listen");
        assert_eq!(refused(|c| c.external_address = vec!["/ip4/1.2.3.4/tcp/0".into()]), "--external-address");
        let empty = NetConfig { rendezvous: vec![String::new()], ..NetConfig::default() };
        assert!(Settings::check(empty, Role::Worker).unwrap().entries.is_empty());
    }
}
