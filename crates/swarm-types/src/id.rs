//! Names of things.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::visible;

/// Bytes of the longest free text that travels: a name, a device, a version, an address.
pub(crate) const MAX_TEXT: usize = 256;

/// A name that does not have its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a base58 peer id.
    #[error("node id must be 2 to 128 base58 characters, for example 12D3KooW…")]
    Node,
    /// Not 64 hexadecimal digits.
    #[error("model digest must be 64 hexadecimal digits")]
    Digest,
    /// Not a UUID.
    #[error("session id must be a UUID of 36 characters")]
    Session,
    /// Neither of the two precisions.
    #[error("precision must be \"exact\" or \"standard\"")]
    Precision,
}

/// Implements serde by the type's `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

/// A node of the swarm: its libp2p peer id in base58. Workers, gateways and rendezvous nodes have one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let base58 = |c: char| c.is_ascii_alphanumeric() && !matches!(c, '0' | 'O' | 'I' | 'l');
        if (2..=128).contains(&text.len()) && text.chars().all(base58) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Node)
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(NodeId);

/// One generation on a route: a UUID that the gateway chose.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SessionId(Arc<str>);

impl FromStr for SessionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let uuid = |(i, c): (usize, char)| match i {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        };
        if text.len() == 36 && text.chars().enumerate().all(uuid) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Session)
        }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a session's current route, from 1. Anything from an older attempt is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Attempt(pub u32);

impl Attempt {
    /// A session's first route.
    pub const FIRST: Self = Self(1);

    /// The attempt after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A token of the model's vocabulary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct TokenId(pub u32);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which model this is: the info-hash of the BitTorrent v2 torrent over its file, under a name that is always the same.
///
/// All bytes of the file decide it and nothing else. Files that differ in a single weight are two models.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelDigest(pub [u8; 32]);

impl FromStr for ModelDigest {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError::Digest)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(ModelDigest);

/// Which arithmetic gives the answers. All hops of a route must agree on it; how each of them holds its weights for it
/// is its own business.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum Precision {
    /// Sums of f32 products from the first to the last: the reference's answers.
    Exact,
    /// Activations of 16 bits with a scale for every 32 of them, products of whole numbers summed exactly.
    #[default]
    Standard,
}

impl Precision {
    /// What `standard` was called before: still taken from people, not from nodes.
    pub const OLD_NAME: &str = "fast";

    /// As people write it: also by its old name.
    ///
    /// # Errors
    /// When it is no precision.
    pub fn from_option(text: &str) -> Result<Self, IdError> {
        if text == Self::OLD_NAME { Ok(Self::Standard) } else { text.parse() }
    }
}

impl FromStr for Precision {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text {
            "exact" => Ok(Self::Exact),
            "standard" => Ok(Self::Standard),
            _ => Err(IdError::Precision),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Standard => "standard",
        })
    }
}

serde_as_text!(Precision);

/// What a shard must agree on with its neighbours to be in one route with them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ModelId {
    /// For people; two files may share it.
    pub name: String,
    /// Which file.
    pub digest: ModelDigest,
    /// How it is computed.
    pub precision: Precision,
}

impl ModelId {
    /// A model by name, file and precision. A name comes from a file and may hold anything, at any length: what would
    /// not be seen is replaced, and the rest cut to what an announcement has room for.
    #[must_use]
    pub fn new(name: &str, digest: ModelDigest, precision: Precision) -> Self {
        let name = visible::cleaned(name);
        let end = (0..=name.len().min(MAX_TEXT)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        Self { name: name[..end].to_owned(), digest, precision }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let name = |text: &str| ModelId::new(text, ModelDigest([0; 32]), Precision::Exact).name;
        assert_eq!(name("tiny"), "tiny");
        assert_eq!(name(""), "");
        assert_eq!(name(&"x".repeat(300)).len(), 256);
        assert_eq!(name(&"€".repeat(100)), "€".repeat(85), "three bytes each");
    }

    #[test]
    fn a_name_that_terminals_would_obey_is_made_clean() {
        let hostile = ModelId::new("a\u{1b}]0;b\u{7}\n", ModelDigest([0; 32]), Precision::Exact);
        assert_eq!(hostile.name, "a\u{fffd}]0;b\u{fffd}\u{fffd}");
    }

    #[test]
    fn ids_are_read_back_as_written_and_refused_when_malformed() {
        let digest = ModelDigest([0xa5; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!("zz".repeat(32).parse::<ModelDigest>(), Err(IdError::Digest));
        assert_eq!("+f".repeat(32).parse::<ModelDigest>(), Err(IdError::Digest));
        assert!("12D3KooWGzBvZVkz".parse::<NodeId>().is_ok());
        assert_eq!("12D3 KooW".parse::<NodeId>(), Err(IdError::Node));
        assert!("67e55044-10b1-426f-9247-bb680e5fe0c8".parse::<SessionId>().is_ok());
        assert_eq!("67e55044-10b1-426f-9247".parse::<SessionId>(), Err(IdError::Session));
    }
}
