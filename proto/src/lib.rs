//! The protocol: generated code, its conversion to and from the vocabulary, and the one mapping of refusals to
//! gRPC statuses.
//!
//! Generated types ([`wire`]) stop at the services' adapters. `TryFrom<wire::X> for X` checks every invariant on
//! receipt; `From<X> for wire::X` cannot fail.

mod model;
mod peer;
mod refusal;
mod shard;
mod status;
mod step;

pub use refusal::{Refusal, RefusalCause};
pub use shard::{CollectSession, FromBelow, FromHop, HopFailure, OpenSession, Opened, ToHop};
pub use step::{activations_from_bytes, activations_to_bytes};

/// Generated from `swarm/v1/*.proto`; the comments are in those files.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod wire {
    tonic::include_proto!("swarm.v1");
}

/// The compiled `.proto` files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// A message that is not what the protocol says. Names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct WireError {
    /// Which field, as in the `.proto`.
    pub field: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl WireError {
    pub(crate) fn new(field: &'static str, message: impl ToString) -> Self {
        Self { field, message: message.to_string() }
    }
}

/// Parses a text field, naming it when it does not parse.
pub(crate) fn parse<T>(field: &'static str, text: &str) -> Result<T, WireError>
where
    T: std::str::FromStr,
    T::Err: ToString,
{
    text.parse().map_err(|error: T::Err| WireError::new(field, error))
}
