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
    /// As it is written in the proof of admission.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Worker => 1,
            Self::Rendezvous => 2,
            Self::Gateway => 3,
        }
    }

    /// The role of that code; none when this version does not know it.
    pub(crate) fn coded(code: u8) -> Option<Self> {
        [Self::Worker, Self::Rendezvous, Self::Gateway].into_iter().find(|role| role.code() == code)
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Rendezvous => "rendezvous",
            Self::Gateway => "gateway",
        }
    }
}
