//! What kinds of nodes there are.

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
    /// The role that is called so; none when this version does not know it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Worker, Self::Rendezvous, Self::Gateway].into_iter().find(|role| role.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Rendezvous => "rendezvous",
            Self::Gateway => "gateway",
        }
    }
}
