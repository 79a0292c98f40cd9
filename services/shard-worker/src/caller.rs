//! Who calls, and what they may do: sessions are opened by gateways, and passed on by workers.

use swarm_net::Role;
use swarm_proto::{OpenSession, Refusal, RefusalCause};
use swarm_types::NodeId;

/// A peer that calls. Its id is proven by the transport, its role by its admission.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    node: NodeId,
    role: Role,
}

impl Caller {
    pub(crate) fn new(node: NodeId, role: Role) -> Self {
        Self { node, role }
    }

    pub(crate) fn node(&self) -> &NodeId {
        &self.node
    }

    /// Whether it may open sessions here at all.
    pub(crate) fn check_forward(&self) -> Result<(), Refusal> {
        match self.role {
            Role::Gateway | Role::Worker => Ok(()),
            Role::Rendezvous => Err(denied("only gateways and workers open sessions")),
        }
    }

    /// Whether it may ask for a session's tokens.
    pub(crate) fn check_collect(&self) -> Result<(), Refusal> {
        match self.role {
            Role::Gateway => Ok(()),
            Role::Worker | Role::Rendezvous => Err(denied("only gateways collect tokens")),
        }
    }

    /// Whether it may open this session. A gateway opens its own; a worker is believed whose session it passes on,
    /// since the hop that the gateway has called has looked.
    pub(crate) fn check_open(&self, open: &OpenSession) -> Result<(), Refusal> {
        let is_first = open.hop.shards.start() == 0;
        match self.role {
            Role::Worker if is_first => Err(denied("a route begins at a gateway")),
            Role::Worker => Ok(()),
            _ if open.gateway == self.node => Ok(()),
            _ => {
                let what = format!("the session is opened by {}, not by {}", self.node, open.gateway);
                Err(Refusal::of_field(RefusalCause::PermissionDenied, "gateway", what))
            }
        }
    }

    /// Whether it begins a route: then its first step comes at once.
    pub(crate) fn begins_route(&self, open: &OpenSession) -> bool {
        open.gateway == self.node
    }
}

fn denied(message: &str) -> Refusal {
    Refusal::new(RefusalCause::PermissionDenied, message)
}

#[cfg(test)]
mod tests {
    use swarm_types::{Attempt, Hop, ModelDigest, Precision, ShardRange, fixture};

    use super::*;

    fn node(name: &str) -> NodeId {
        format!("12D3{name}").parse().expect("valid")
    }

    /// A session that starts at this shard of two.
    fn open(first_shard: u32, gateway: &str) -> OpenSession {
        let shards = ShardRange::new(first_shard, 2).expect("valid");
        OpenSession {
            session: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().expect("a UUID"),
            attempt: Attempt::FIRST,
            gateway: node(gateway),
            model_digest: ModelDigest([0; 32]),
            precision: Precision::Exact,
            cut: fixture::cut(2),
            hop: Hop { worker: node("w"), shards },
            below: vec![],
            prompt_tokens: 1,
            max_positions: 2,
        }
    }

    #[test]
    fn who_may_do_what_is_told_by_the_proven_role() {
        use Role::{Gateway, Rendezvous, Worker};
        let cases = [
            // Role, may forward, may collect; may open its own at the first hop, another's there, another's below.
            (Gateway, [true, true, true, false, false]),
            (Worker, [true, false, false, false, true]),
            (Rendezvous, [false, false, true, false, false]),
        ];
        for (role, expected) in cases {
            let caller = Caller::new(node("a"), role);
            let got = [
                caller.check_forward(),
                caller.check_collect(),
                caller.check_open(&open(0, "a")),
                caller.check_open(&open(0, "b")),
                caller.check_open(&open(1, "b")),
            ];
            let refused = got.iter().filter_map(|answer| answer.as_ref().err());
            assert!(refused.into_iter().all(|refusal| refusal.cause == RefusalCause::PermissionDenied));
            assert_eq!(got.map(|answer| answer.is_ok()), expected, "{role:?}");
        }
    }
}
