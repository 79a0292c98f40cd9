//! What can go wrong, by how a caller treats it.

/// A model that cannot be loaded, or a step that cannot be computed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The model's file is not there, damaged, or of a kind that is not supported.
    #[error("model {path}: {reason}")]
    Model {
        /// Which file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The device cannot be used.
    #[error("device {device}: {reason}")]
    Device {
        /// As it was asked for.
        device: String,
        /// Why not.
        reason: String,
    },
    /// A field of a session or step is not what it must be.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The slot was closed, or is computing a step already.
    #[error("the session is not open on this worker")]
    UnknownSlot,
    /// All memory for caches is taken.
    #[error("the cache is full: the session needs {needed} bytes, {free} of {total} are free")]
    Full {
        /// Bytes that the session would reserve.
        needed: u64,
        /// Bytes that are not reserved.
        free: u64,
        /// The bound.
        total: u64,
    },
    /// A step came out as numbers that say nothing: some overflowed, or the weights are damaged.
    #[error("the {0} of the step are not finite numbers")]
    NotFinite(&'static str),
    /// The session's text cannot go on by its grammar, on no worker.
    #[error("grammar: {0}")]
    Grammar(String),
    /// The computation itself failed.
    #[error("computation failed: {0}")]
    Compute(String),
}

impl From<candle_core::Error> for EngineError {
    fn from(error: candle_core::Error) -> Self {
        Self::Compute(error.to_string())
    }
}

impl EngineError {
    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { field, reason: reason.into() }
    }
}
