//! Who is missed after its end, and for how long.
// What fails here fails a test.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Node, QUIC_AND_TCP, TCP, config, offer};
use swarm_net::{Identity, NetConfig, Role};
use swarm_types::{ForgetError, NodeId, ReplicaState::Loaded};

/// A node that listens there alone.
async fn node(listen: &str, role: Role, entry: Option<&Node>) -> Node {
    let listen = listen.split(',').map(str::to_owned).collect();
    Node::start(NetConfig { listen, ..config(2, entry) }, role, Identity::ephemeral()).await
}

/// A worker with shard 1 that both see.
async fn worker(listen: &str, [entry, other]: [&Node; 2]) -> Node {
    let worker = node(listen, Role::Worker, Some(entry)).await;
    worker.net.announce(vec![offer(1, true)]);
    for node in [entry, other] {
        node.sees_replica(1, worker.net.id(), Loaded).await;
    }
    worker
}

async fn sees_lost(node: &Node, worker: &NodeId, lost: bool) {
    let what = format!("{worker} {}", if lost { "lost" } else { "not lost" });
    node.sees(&what, |status| {
        let replica = status.shards[1].replicas.iter().find(|replica| replica.worker == *worker);
        let is_there = replica.is_some_and(|replica| replica.state == Loaded);
        !is_there && replica.is_some_and(|replica| replica.lost) == lost
    })
    .await;
}

/// Over TCP alone a goodbye and the end of a process look the same: what counts is what was said before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_lost_that_has_not_retired_until_any_node_forgets_it_for_all() {
    for listen in [QUIC_AND_TCP, TCP] {
        let rendezvous = node(listen, Role::Rendezvous, None).await;
        let gateway = node(listen, Role::Gateway, Some(&rendezvous)).await;
        let both = [&rendezvous, &gateway];

        let retires = worker(listen, both).await;
        retires.net.retire().await;
        retires.net.leave().await;
        let fails = worker(listen, both).await;
        let id = fails.net.id().clone();
        let present = gateway.net.forget(id.as_str()).await;
        assert_eq!(present, Err(ForgetError::Present(id.clone())));
        fails.net.leave().await;
        for node in both {
            sees_lost(node, retires.net.id(), false).await;
            sees_lost(node, &id, true).await;
        }
        let left = gateway.net.forget(retires.net.id().as_str()).await;
        assert_eq!(left, Err(ForgetError::HasLeft(retires.net.id().clone())));

        // It has come since, and has lost nobody.
        let newcomer = worker(listen, both).await;
        let unknown = newcomer.net.forget(&id.as_str()[..20]).await;
        assert_eq!(unknown, Err(ForgetError::Unknown(id.as_str()[..20].into())), "a beginning is not enough");
        let forgotten = newcomer.net.forget(id.as_str()).await.unwrap();
        assert_eq!((&forgotten.worker, forgotten.nodes, forgotten.silent), (&id, 2, vec![]));
        for node in both {
            sees_lost(node, &id, false).await;
        }
        let again = newcomer.net.forget(id.as_str()).await;
        assert_eq!(again, Err(ForgetError::Unknown(id.to_string())));
    }
}
