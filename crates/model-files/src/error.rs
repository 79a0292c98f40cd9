//! Why a model's file is not here.

use gguf::GgufError;
use model_hub::HubError;
use model_torrent::TorrentError;
use swarm_net::NetError;
use torrent_exchange::ExchangeError;

/// Why a model's file cannot be had, or not be given to others.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// It is on this machine, or comes from a hub, and something is wrong there.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// It cannot be kept, or is not what it was.
    #[error(transparent)]
    Torrent(#[from] TorrentError),
    /// It does not come from the other nodes.
    #[error("the model from the swarm: {0}")]
    Exchange(#[from] ExchangeError),
    /// It came, and is no model.
    #[error("the swarm's model is not one that can be read: {0}")]
    Header(#[from] GgufError),
    /// Its torrent is not over the files that its header tells of.
    #[error("the swarm's model has {torrent} files, and its header says that there are {header}")]
    Files {
        /// How many the torrent has.
        torrent: usize,
        /// How many the header tells of.
        header: usize,
    },
    /// The node has left.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A thread for files ended early.
    #[error("internal: {0}")]
    Internal(String),
}
