//! Who takes part. Two nodes prove to each other, on every connection and before anything else is said on it, that
//! they hold the swarm's secret. Until then a connection is not one: no protocol sees it, so nothing is served on it or
//! heard from it.
//!
//! What admits is decided here and nowhere else: `exchange` is the proof, `gate` holds each new connection until it is
//! given, `doors` bounds how many may be on their way, `keyring` has what proves, `roster` who has proven what.

pub(crate) mod doors;
pub(crate) mod exchange;
pub(crate) mod gate;
pub(crate) mod invitation;
pub(crate) mod keyring;
pub(crate) mod renewals;
pub(crate) mod roster;
pub(crate) mod secret;
pub(crate) mod secret_file;
