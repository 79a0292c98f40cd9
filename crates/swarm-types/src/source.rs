//! Names of places outside of the swarm where a model's file can be had: what nodes tell each other of them.

use std::{fmt, str::FromStr, sync::Arc};

use crate::visible::is_visible;

/// Bytes of the longest source: a repository, a path in it, and a commit.
pub const MAX_SOURCE: usize = 512;
/// One node waits for the files of no more sources than this at the same time.
pub const MAX_WANTED_SOURCES: usize = 16;

/// A source that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No bytes, or too many.
    #[error("must have 1 to {MAX_SOURCE} bytes, got {0}")]
    Length(usize),
    /// Characters that terminals obey instead of showing them.
    #[error("has control characters, or such that turn the order of writing around")]
    Hidden,
}

/// Where a model's file can be had, as `hf:owner/repo/file.gguf@commit`. What is in it is for those who can fetch from
/// there.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(Arc<str>);

impl Source {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        match text.len() {
            1..=MAX_SOURCE if is_visible(text) => Ok(Self(text.into())),
            1..=MAX_SOURCE => Err(SourceError::Hidden),
            length => Err(SourceError::Length(length)),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A source that a node has nothing of yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedSource {
    /// As the node was asked for it.
    pub source: Source,
    /// The node fetches all of it, so that others can have it from there.
    pub is_fetching: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_short_and_all_of_it_is_seen() {
        let read = |text: &str| text.parse::<Source>().map(|source| source.to_string());
        assert_eq!(read("hf:o/r/f.gguf@v1"), Ok("hf:o/r/f.gguf@v1".into()));
        assert_eq!(read(""), Err(SourceError::Length(0)));
        assert_eq!(read(&"x".repeat(513)), Err(SourceError::Length(513)));
        assert_eq!(read("hf:o/r/\u{202e}f.gguf"), Err(SourceError::Hidden));
    }
}
