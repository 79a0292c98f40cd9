//! A worker: holds some layers, runs steps through them, passes them on to the hop it was given.
//!
//! Knows its layers and the next hop; text, OpenAI's JSON and how a route is chosen are none of its business.

mod caller;
mod config;
mod engine_thread;
mod error;
#[cfg(test)]
mod fixture;
mod host;
mod load;
mod metrics;
mod model;
mod offer;
mod queues;
mod replays;
mod room;
mod session;
mod sessions;
mod shard_service;
mod shares;
mod spent;
mod stalls;
mod standing;
mod worker;

pub use config::Config;
pub use error::WorkerError;
pub use worker::{Worker, serve};
