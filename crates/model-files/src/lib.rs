//! A node's model files: where they come from when the swarm is one of the places, and their way to other nodes.
//!
//! A [`LocalModel`] is whole on this machine. A [`SwarmModel`] comes from other nodes, and what none of them has from
//! a hub: its header first, then the bytes that are asked for. Both are given to others by [`Sharing`]. How pieces
//! travel is `torrent-exchange`'s business, how nodes find each other `swarm-net`'s, which bytes a node needs its own.

mod config;
mod describing;
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
mod turns;

pub use config::SharingConfig;
pub use describing::describe_until;
pub use error::FilesError;
pub use local::LocalModel;
pub use model::Model;
pub use sharing::{Shared, Sharing};
pub use swarm_model::SwarmModel;
pub use torrent_exchange::Progress;
