//! What can go wrong for those who use the network.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use swarm_types::NodeId;

/// Why the network cannot do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A setting that cannot be.
    #[error("{setting}: {message}")]
    Config {
        /// The flag that sets it.
        setting: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
    /// An identity file that cannot be used.
    #[error("identity file {} (--identity): {message}", path.display())]
    Identity {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// An identity file that another process uses.
    #[error("identity file {} (--identity) is used by another process; each node needs its own", path.display())]
    IdentityInUse {
        /// Which file.
        path: PathBuf,
    },
    /// A file of secrets that cannot be used.
    #[error("secret file {} (--secret-file): {message}", path.display())]
    Secret {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do. Never repeats what is in the file.
        message: String,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {address} (--listen): {message}")]
    Listen {
        /// As given.
        address: String,
        /// Of the operating system.
        message: String,
    },
    /// The network cannot start at all.
    #[error("the network cannot start: {0}")]
    Start(String),
    /// No connection to the peer, and none could be made.
    #[error("peer {0} is not connected")]
    NotConnected(NodeId),
    /// The peer is there but gives no stream.
    #[error("peer {node} refused a stream: {message}")]
    Stream {
        /// Which peer.
        node: NodeId,
        /// Why.
        message: String,
    },
    /// Nothing happened for too long.
    #[error("peer {node} did not answer within {} ms", within.as_millis())]
    Timeout {
        /// Which peer.
        node: NodeId,
        /// The bound.
        within: Duration,
    },
    /// The node has left the swarm.
    #[error("this node has left the swarm")]
    Left,
    /// An internal error: the node's loop has ended without being told to.
    #[error("the network has stopped unexpectedly")]
    Stopped,
}

impl NetError {
    pub(crate) fn config(setting: &'static str, message: impl Into<String>) -> Self {
        Self::Config { setting, message: message.into() }
    }

    pub(crate) fn secret(path: &Path, message: impl Into<String>) -> Self {
        Self::Secret { path: path.to_owned(), message: message.into() }
    }
}
