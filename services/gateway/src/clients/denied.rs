//! Why somebody may not ask.

use std::{fmt, time::Duration};

use swarm_proto::{Refusal, RefusalCause};
use tonic::Status;

/// A limit that a client has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Requests at once.
    AtOnce,
    /// Requests a minute.
    Requests,
    /// Tokens a minute.
    Tokens,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtOnce => "requests at once",
            Self::Requests => "requests a minute",
            Self::Tokens => "tokens a minute",
        })
    }
}

/// Why somebody may not ask.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Denied {
    /// No key was shown.
    #[error("an API key is needed: send the header authorization: Bearer KEY, or x-api-key: KEY")]
    NoKey,
    /// The key that was shown is nobody's.
    #[error("the API key is not one of this gateway's, or not any more")]
    UnknownKey,
    /// The key is not for this model.
    #[error("the API key of {client} is not for the model {model:?}")]
    Model {
        /// Whose key.
        client: String,
        /// Which model.
        model: String,
    },
    /// The key's limit is reached.
    #[error("{client} has no more {limit}, try again in {} s", whole_seconds(*retry_after))]
    TooMany {
        /// Whose key.
        client: String,
        /// Which limit.
        limit: Limit,
        /// When there is room again.
        retry_after: Duration,
    },
    /// The gateway was called by a name that a page of others may have given it.
    #[error("this gateway is not known as {host:?}: start it with --allowed-host {host}")]
    Host {
        /// The name that was called.
        host: String,
    },
}

/// As long as `Retry-After` can say: at least the time that has to pass, and never none.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs_f64().ceil() as u64).max(1)
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        let message = denied.to_string();
        let cause = match &denied {
            Denied::NoKey | Denied::UnknownKey => RefusalCause::Unauthenticated,
            Denied::Model { .. } | Denied::Host { .. } => RefusalCause::PermissionDenied,
            Denied::TooMany { .. } => RefusalCause::Full,
        };
        let refusal = Refusal::new(cause, message);
        match denied {
            Denied::TooMany { retry_after, .. } => refusal.retry_after(whole_seconds(retry_after)),
            _ => refusal.into(),
        }
    }
}
