//! The node by which others enter the swarm.
//!
//! It introduces newcomers to the peers that are there and stores DHT records as every node does. Once a node has
//! entered, nothing depends on it. Knows that peers exist; requests and weights are none of its business.

mod config;
mod rendezvous;

pub use config::Config;
pub use rendezvous::{Rendezvous, RendezvousError, serve};
