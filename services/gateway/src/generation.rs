//! Drives generations through the swarm: routes, hops, steps and retries.
//!
//! Tokens in, tokens out; text is the front sides' business.

mod account;
mod admission;
mod api;
mod assignment;
mod config;
mod detour;
mod driver;
mod gen_ai;
mod generator;
mod metrics;
mod outage;
mod outlet;
mod patience;
mod pipeline;
mod recovery;
#[cfg(test)]
mod tests;

pub(crate) use api::NO_MODEL;
pub use api::{
    FinishReason, Generate, GeneratedToken, GenerationError, GenerationEvent, GenerationRequest,
    GenerationStream, Operation,
};
pub use config::GenerationConfig;
pub use generator::Generator;
pub use metrics::GenerationMetrics;
