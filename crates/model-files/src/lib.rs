//! A node's model files: where they come from when the swarm is one of the places, and their way to other nodes.
//!
//! A [`LocalModel`] is whole on this machine. A [`SwarmModel`] comes from other nodes, and what none of them has from
//! a hub: its header first, then the bytes that are asked for. Both are given to others by [`Sharing`]. How pieces
//! travel is `torrent-exchange`'s business, how nodes find each other `swarm-net`'s, which bytes a node needs its own.
//! What is kept on this machine, of whatever source, is listed and removed here too ([`cached_models`]).

mod cache;
mod called;
mod config;
mod error;
mod held;
mod hub_model;
mod hunt;
mod kept;
mod local;
mod model;
mod origin;
mod peers;
mod sharing;
mod swarm_model;
mod traced;
mod turns;

pub use cache::{CachedFrom, CachedModel, cached_models};
pub use called::{NameError, called};
pub use config::SharingConfig;
pub use error::FilesError;
pub use local::LocalModel;
pub use model::Model;
pub use sharing::{Shared, Sharing};
pub use swarm_model::SwarmModel;
pub use torrent_exchange::Progress;
