//! Why a call is refused, and how that is said in gRPC.

use std::fmt;

use tonic::{Code, Status, metadata::MetadataValue};

use crate::WireError;

/// Metadata key that carries the cause by name, so that a caller need not guess it from the code.
const CAUSE_KEY: &str = "llama-swarm-cause";
/// Metadata key that names the field to blame, where there is one.
const FIELD_KEY: &str = "llama-swarm-field";
/// Metadata key: seconds after which to try again. Every refusal that another try may mend carries it.
const RETRY_AFTER_KEY: &str = "retry-after";

/// Causes that a caller treats differently. Also the `cause` label of the refusal counters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RefusalCause {
    /// A field is not what the protocol says.
    InvalidArgument,
    /// The other end speaks another version of the protocol.
    ProtocolVersion,
    /// The other end has another model file or precision.
    Model,
    /// No such model is served.
    UnknownModel,
    /// Prompt and answer do not fit into the model's context.
    ContextLength,
    /// The worker does not serve these shards, or cuts the model differently.
    Shards,
    /// The session is not, or no longer, known.
    UnknownSession,
    /// From an older route of the session.
    StaleAttempt,
    /// The caller has not said who it is.
    Unauthenticated,
    /// The caller may not do this, or not with this session.
    PermissionDenied,
    /// A step from the hop above is not what it must be: either that hop or the one that says so is broken.
    WrongStep,
    /// The session's text cannot go on by its grammar, on no worker.
    Grammar,
    /// No room for another session.
    Full,
    /// Not loaded yet, or on the way out.
    NotReady,
    /// A hop further down failed.
    HopFailed,
    /// Something took longer than its bound.
    Timeout,
    /// An internal error.
    Internal,
}

impl RefusalCause {
    /// Every cause there is.
    pub const ALL: [Self; 17] = [
        Self::InvalidArgument,
        Self::ProtocolVersion,
        Self::Model,
        Self::UnknownModel,
        Self::ContextLength,
        Self::Shards,
        Self::UnknownSession,
        Self::StaleAttempt,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::WrongStep,
        Self::Grammar,
        Self::Full,
        Self::NotReady,
        Self::HopFailed,
        Self::Timeout,
        Self::Internal,
    ];

    /// The cause's name on the wire and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::ProtocolVersion => "protocol_version",
            Self::Model => "model",
            Self::UnknownModel => "unknown_model",
            Self::ContextLength => "context_length",
            Self::Shards => "shards",
            Self::UnknownSession => "unknown_session",
            Self::StaleAttempt => "stale_attempt",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::WrongStep => "wrong_step",
            Self::Grammar => "grammar",
            Self::Full => "full",
            Self::NotReady => "not_ready",
            Self::HopFailed => "hop_failed",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }

    /// The gRPC code it is sent as.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::InvalidArgument | Self::ContextLength | Self::Grammar => Code::InvalidArgument,
            Self::ProtocolVersion | Self::Model | Self::Shards => Code::FailedPrecondition,
            Self::UnknownSession | Self::UnknownModel => Code::NotFound,
            Self::StaleAttempt => Code::Aborted,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::WrongStep => Code::DataLoss,
            Self::Full => Code::ResourceExhausted,
            Self::NotReady | Self::HopFailed => Code::Unavailable,
            Self::Timeout => Code::DeadlineExceeded,
            Self::Internal => Code::Internal,
        }
    }

    /// The cause with this name on the wire.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == name)
    }

    /// The nearest to what foreign software says.
    pub(crate) fn from_code(code: Code) -> Self {
        match code {
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Self::InvalidArgument,
            Code::FailedPrecondition => Self::Model,
            Code::NotFound => Self::UnknownSession,
            Code::Aborted => Self::StaleAttempt,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::DataLoss => Self::WrongStep,
            Code::ResourceExhausted => Self::Full,
            Code::Unavailable | Code::Cancelled | Code::Unknown => Self::HopFailed,
            Code::DeadlineExceeded => Self::Timeout,
            _ => Self::Internal,
        }
    }
}

impl fmt::Display for RefusalCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call that is not served, with the cause by name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why, for programs.
    pub cause: RefusalCause,
    /// The field to blame, for programs; as in the `.proto`.
    pub field: Option<String>,
    /// Why and what to do, for people. Begins with the field, where there is one.
    pub message: String,
}

impl Refusal {
    /// A refusal with a message for people.
    pub fn new(cause: RefusalCause, message: impl Into<String>) -> Self {
        Self { cause, field: None, message: message.into() }
    }

    /// A refusal because of one field.
    pub fn of_field(cause: RefusalCause, field: &str, what: impl fmt::Display) -> Self {
        Self { cause, field: Some(field.into()), message: format!("{field}: {what}") }
    }

    /// A refusal because one field is not what it must be.
    pub fn invalid(field: &str, what: impl fmt::Display) -> Self {
        Self::of_field(RefusalCause::InvalidArgument, field, what)
    }

    /// As the answer to a call that had better be made again after so many seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Status {
        let mut status = Status::from(self);
        status.metadata_mut().insert(RETRY_AFTER_KEY, seconds.into());
        status
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        Self::invalid(error.field, error.message)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut status = Self::new(refusal.cause.code(), refusal.message);
        status.metadata_mut().insert(CAUSE_KEY, MetadataValue::from_static(refusal.cause.as_str()));
        if let Some(field) = refusal.field.and_then(|field| field.parse().ok()) {
            status.metadata_mut().insert(FIELD_KEY, field);
        }
        if matches!(status.code(), Code::ResourceExhausted | Code::Unavailable) {
            status.metadata_mut().insert(RETRY_AFTER_KEY, MetadataValue::from_static("1"));
        }
        status
    }
}

impl From<Status> for Refusal {
    /// The cause by name when our software sent it, else the nearest to the code.
    fn from(status: Status) -> Self {
        let text = |key| status.metadata().get(key).and_then(|value| value.to_str().ok());
        let cause = text(CAUSE_KEY).and_then(RefusalCause::named);
        Self {
            cause: cause.unwrap_or_else(|| RefusalCause::from_code(status.code())),
            field: text(FIELD_KEY).map(Into::into),
            message: status.message().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_survives_the_wire() {
        for cause in RefusalCause::ALL {
            for refusal in [Refusal::new(cause, "because"), Refusal::of_field(cause, "tokens", "none")] {
                assert_eq!(Refusal::from(Status::from(refusal.clone())), refusal);
            }
        }
        let invalid = Refusal::invalid("tokens", "none");
        assert_eq!((invalid.field.as_deref(), invalid.to_string()), (Some("tokens"), "tokens: none".into()));
    }

    #[test]
    fn whatever_may_be_mended_by_waiting_says_how_long() {
        use RefusalCause::{Full, HopFailed, NotReady};
        for cause in RefusalCause::ALL {
            let status = Status::from(Refusal::new(cause, "because"));
            let expected = matches!(cause, Full | HopFailed | NotReady);
            assert_eq!(status.metadata().contains_key(RETRY_AFTER_KEY), expected, "{cause}");
        }
        let status = Refusal::new(Full, "because").retry_after(7);
        let all: Vec<_> = status.metadata().get_all(RETRY_AFTER_KEY).iter().collect();
        assert_eq!(all, ["7"]);
    }

    #[test]
    fn a_status_of_foreign_software_gets_the_nearest_cause() {
        assert_eq!(Refusal::from(Status::unavailable("gone")).cause, RefusalCause::HopFailed);
        assert_eq!(Refusal::from(Status::resource_exhausted("x")).cause, RefusalCause::Full);
    }
}
