//! Who may take part in a swarm.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// Who may take part, as one node has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Admission {
    /// Who holds the swarm's secret.
    Secret,
    /// Who is on the same machine: there is no secret, and nobody else can reach the node.
    Loopback,
    /// Everybody who reaches the node.
    Open,
}

/// None of the words that an admission has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown: {0:?}")]
pub struct UnknownAdmission(String);

impl Admission {
    /// As the status shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Loopback => "loopback",
            Self::Open => "open",
        }
    }
}

impl FromStr for Admission {
    type Err = UnknownAdmission;

    fn from_str(name: &str) -> Result<Self, UnknownAdmission> {
        let all = [Self::Secret, Self::Loopback, Self::Open];
        let named = all.into_iter().find(|admission| admission.name() == name);
        named.ok_or_else(|| UnknownAdmission(name.to_owned()))
    }
}

impl fmt::Display for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Admission {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
