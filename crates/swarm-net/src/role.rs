//! Roles of nodes.

/// What kind of node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Serves shards.
    Worker,
    /// Is there to enter by.
    Rendezvous,
    /// Asks.
    Gateway,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Rendezvous => "rendezvous",
            Self::Gateway => "gateway",
        }
    }
}
