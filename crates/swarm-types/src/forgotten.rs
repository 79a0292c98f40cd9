//! Taking a lost worker out of service: which one is meant, and what came of it.

use std::collections::BTreeSet;

use crate::{NodeId, ReplicaState, SwarmStatus};

/// Longer than any peer id.
const MAX_NAME: usize = 128;

/// A worker that is not missed any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forgotten {
    /// Who.
    pub worker: NodeId,
    /// How many nodes had lost it and have forgotten it.
    pub nodes: u32,
    /// Connected nodes that have not answered: they may have lost it still.
    pub silent: Vec<NodeId>,
}

/// Why nobody is forgotten.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ForgetError {
    /// Nothing that a peer id can begin with.
    #[error("node must be a peer id or its beginning, for example 12D3KooW…")]
    NoName,
    /// Several lost ones begin with it.
    #[error("node {name} may be {one} or {other}: name more of it")]
    Ambiguous {
        /// As given.
        name: String,
        /// One of those that are meant.
        one: NodeId,
        /// Another.
        other: NodeId,
    },
    /// It is connected.
    #[error(
        "node {0} is there: only lost ones are forgotten; to take it out of service, end it in order (SIGTERM)"
    )]
    Present(NodeId),
    /// It is on the list, and not lost.
    #[error("node {0} has left in order: it is not lost, and off the list within minutes")]
    HasLeft(NodeId),
    /// Nobody has lost one of this name.
    #[error("node {0} is not known as lost: `llama-swarm status` names those that are")]
    Unknown(String),
    /// The node that was asked has left the swarm.
    #[error("this node has left the swarm")]
    Left,
}

impl SwarmStatus {
    /// The workers that are lost.
    #[must_use]
    pub fn lost(&self) -> BTreeSet<&NodeId> {
        let replicas = self.shards.iter().flat_map(|shard| &shard.replicas);
        replicas.filter(|replica| replica.lost).map(|replica| &replica.worker).collect()
    }

    /// The lost worker whose id this is, or begins so.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn lost_worker(&self, name: &str) -> Result<NodeId, ForgetError> {
        if !(1..=MAX_NAME).contains(&name.len()) || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(ForgetError::NoName);
        }
        let mut lost = self.lost();
        lost.retain(|worker| worker.as_str().starts_with(name));
        match (lost.first(), lost.last()) {
            (Some(one), Some(other)) if one != other => {
                let (one, other) = (NodeId::clone(one), NodeId::clone(other));
                return Err(ForgetError::Ambiguous { name: name.into(), one, other });
            }
            (Some(worker), _) => return Ok(NodeId::clone(worker)),
            _ => {}
        }
        let mut replicas = self.shards.iter().flat_map(|shard| &shard.replicas);
        match replicas.find(|replica| replica.worker.as_str().starts_with(name)) {
            Some(left) if left.state == ReplicaState::Offline => {
                Err(ForgetError::HasLeft(left.worker.clone()))
            }
            Some(present) => Err(ForgetError::Present(present.worker.clone())),
            None => Err(ForgetError::Unknown(name.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Replica, fixture};

    #[test]
    fn a_lost_worker_is_found_by_its_id_or_a_beginning_that_no_other_lost_one_has() {
        let replica = fixture::replica;
        let lost = |worker| Replica { lost: true, ..replica(worker, ReplicaState::Offline) };
        let status = fixture::status(vec![
            vec![lost("12D3aa"), lost("12D3ab"), replica("12D3ac", ReplicaState::Loaded)],
            vec![lost("12D3aa"), replica("12D3d", ReplicaState::Offline)],
        ]);
        let node = |name: &str| name.parse::<NodeId>().expect("valid");
        let ambiguous =
            ForgetError::Ambiguous { name: "12D3a".into(), one: node("12D3aa"), other: node("12D3ab") };
        let cases = [
            ("12D3aa", Ok(node("12D3aa"))),
            ("12D3ab", Ok(node("12D3ab"))),
            ("12D3a", Err(ambiguous)),
            ("12D3ac", Err(ForgetError::Present(node("12D3ac")))),
            ("12D3d", Err(ForgetError::HasLeft(node("12D3d")))),
            ("12D3e", Err(ForgetError::Unknown("12D3e".into()))),
            ("", Err(ForgetError::NoName)),
            ("12D3 ", Err(ForgetError::NoName)),
        ];
        for (name, expected) in cases {
            assert_eq!(status.lost_worker(name), expected, "{name:?}");
        }
        let one = fixture::status(vec![vec![lost("12D3aa"), replica("12D3ac", ReplicaState::Loaded)]]);
        assert_eq!(one.lost_worker("12D3"), Ok(node("12D3aa")), "those that are there are not meant");
    }
}
