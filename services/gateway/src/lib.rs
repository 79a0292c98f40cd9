//! The gateway: text and JSON in front, tokens and routes behind.
//!
//! From outside inwards: [`clients`] knows who may ask, [`http`] and [`inference_service`] speak OpenAI's HTTP API and
//! gRPC, [`chat`] tells thinking and calls of functions from what is said, [`completion`] turns text into tokens and
//! back, [`generation`] drives tokens through the swarm on the routes that [`route`] plans.

mod access;
pub mod chat;
pub mod clients;
pub mod completion;
mod config;
mod error;
mod gateway;
pub mod generation;
pub mod http;
pub mod inference_service;
mod misfits;
mod model;
mod pace;
mod ports;
mod record;
pub mod route;
pub mod swarm;
pub mod text;
mod waits;

pub use config::Config;
pub use error::GatewayError;
pub use gateway::{Gateway, serve};
pub use record::LogRequests;
