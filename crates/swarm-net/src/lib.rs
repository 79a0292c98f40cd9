//! The network: identity, QUIC, the DHT, announcements, liveness, and direct connections that carry gRPC.
//!
//! This is the only crate that names libp2p. It knows peers, records, liveness and streams; nothing of tokens,
//! tensors or how a route is chosen.
//!
//! A node is one loop (`node`) on a thread of its own, so that it answers while the machine computes. What it
//! decides by is pure and tested by tables: who is online (`membership`), whom to dial (`dialer`, `entry`), what to
//! believe (`signed`, `records`), what to say (`announcer`).

mod activity;
mod address;
mod announcer;
mod behaviour;
mod config;
mod describe;
mod dialer;
mod entry;
mod error;
mod fresh_port;
mod guard;
mod heartbeat;
mod identity;
mod lines;
mod links;
mod membership;
mod metrics;
mod node;
mod peer;
mod publisher;
mod queries;
mod records;
mod registry;
mod signed;
mod stream;
mod streams;
mod swarm_net;
mod transport;

pub use announcer::ShardOffer;
pub use config::NetConfig;
pub use describe::Descriptions;
pub use error::NetError;
pub use identity::Identity;
pub use links::peer_server;
pub use stream::{PeerInfo, PeerListener, PeerStream};
pub use swarm_net::{Role, SwarmNet};
