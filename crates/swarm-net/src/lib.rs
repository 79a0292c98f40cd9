//! The network: identity, QUIC, the DHT, announcements, liveness, and direct connections that carry gRPC.
//!
//! This is the only crate that names libp2p. It knows peers, records, liveness and streams; nothing of tokens,
//! tensors, how a route is chosen, or what torrents are made of.
//!
//! A node is one loop (`node`) on a thread of its own, so that it answers while the machine computes. Below it lie
//! four rooms: `transport` (connections and whether they live), `directory` (what is told where all can read it),
//! `peers` (who is there) and `calls` (gRPC and other streams between peers). What the loop decides by is pure and
//! tested by tables: who takes part (`admission`), who is online (`peers::membership`), whom to dial (`peers::dialer`,
//! `peers::entry`), what to believe (`directory::signed`, `directory::records`), what to say (`directory::announcer`,
//! `directory::holder`).

mod admission;
mod behaviour;
mod calls;
mod command;
mod config;
mod directory;
mod entry_address;
mod error;
mod identity;
mod metrics;
mod node;
mod peer;
mod peers;
mod private_file;
mod role;
mod swarm_net;
mod transport;

pub use admission::{invitation::Invitation, secret::Secret, secret_file::first_secret};
pub use calls::{
    bounds::MethodLimit,
    describe::{DescribeServer, Descriptions},
    links::{PeerCalls, RoundTrip, peer_server, peer_server_for},
    stream::{PeerInfo, PeerListener, PeerStream},
};
pub use config::{MemberConfig, NetConfig};
pub use directory::announcer::ShardOffer;
pub use error::NetError;
pub use identity::Identity;
pub use peers::holdings::{PeerTorrents, PeerWants};
pub use private_file::create_private;
pub use role::Role;
pub use swarm_net::SwarmNet;
