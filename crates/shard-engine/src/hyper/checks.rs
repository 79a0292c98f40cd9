//! What is said of numbers that cannot be.

use gguf::GgufError;

/// Sizes beyond those of any model; they keep all products of sizes far from overflow.
pub(crate) const MAX_SIZE: u32 = 1 << 20;

pub(crate) fn unsupported(what: impl Into<String>) -> GgufError {
    GgufError::Unsupported(what.into())
}

/// A size that is there, and not beyond that of any model.
pub(crate) fn positive(key: &str, number: u32) -> Result<usize, GgufError> {
    if (1..=MAX_SIZE).contains(&number) {
        Ok(number as usize)
    } else {
        Err(GgufError::Impossible(format!("{key} is {number}, must be 1 to {MAX_SIZE}")))
    }
}
