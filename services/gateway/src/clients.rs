//! Who asks this gateway, what they may ask, and how much: keys, limits by key, and the names it is called by.
//!
//! Knows nothing of requests: what is done for a client is the business of others.

mod allowance;
mod client;
mod config;
mod denied;
mod entry;
mod hosts;
mod key;
mod keys;
mod metrics;
mod principal;
mod shares;

pub use client::{Client, InHand, Limits};
pub use config::{ClientsConfig, HostName, Origin};
pub(crate) use denied::whole_seconds;
pub use denied::{Denied, Limit};
pub use entry::{Entry, KeyFileError, entries};
pub use hosts::Hosts;
pub use key::{Key, KeyHash};
pub use keys::Keys;
pub use metrics::ClientMetrics;
pub use principal::Principal;
pub(crate) use shares::Shares;
