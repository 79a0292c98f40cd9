//! Several nodes find each other, lose each other and talk.
// What fails here fails a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use support::{Node, config, offer, replica_state};
use swarm_net::{Identity, NetConfig, Role};
use swarm_types::{
    NodeId, ReplicaState,
    ReplicaState::{Loaded, Loading, Offline},
    SwarmStatus, Transport,
};
use tokio::{sync::watch, task::JoinSet};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_is_discovered_connected_and_seen_loaded_by_everyone() {
    let rendezvous = Node::rendezvous(3).await;
    let gateway = Node::gateway(3, &rendezvous).await;
    let first = Node::worker(3, 0, Some(&rendezvous)).await;
    let second = Node::worker(3, 1, Some(&rendezvous)).await;
    first.sees_replica(1, second.net.id(), Loaded).await;

    let start = Instant::now();
    let third = Node::start(config(3, Some(&rendezvous)), Role::Worker, Identity::ephemeral()).await;
    third.net.announce(vec![offer(2, false)]);
    for node in [&first, &second, &gateway, &rendezvous] {
        node.sees_replica(2, third.net.id(), Loading).await;
    }
    println!("start of a worker → seen by four others: {:?}", start.elapsed());
    assert!(!gateway.net.status().borrow().swarm_ready);

    let start = Instant::now();
    third.net.announce(vec![offer(2, true)]);
    for node in [&first, &second, &third, &gateway, &rendezvous] {
        node.sees("swarm ready", |status| status.swarm_ready && status.pipeline_complete).await;
    }
    println!("loaded → ready on five nodes: {:?}", start.elapsed());
    let status = third.net.status().borrow().clone();
    let own = &status.shards[2].replicas[0];
    assert!(own.local && own.transport.is_none());
    assert_eq!(status.shards[0].replicas[0].transport, Some(Transport::Quic));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dht_alone_is_enough_once_the_rendezvous_is_gone() {
    let rendezvous = Node::rendezvous(3).await;
    let first = Node::worker(3, 0, Some(&rendezvous)).await;
    let second = Node::worker(3, 1, Some(&rendezvous)).await;
    first.sees_replica(1, second.net.id(), Loaded).await;
    second.sees_replica(0, first.net.id(), Loaded).await;
    rendezvous.net.leave().await;
    drop(rendezvous);

    let start = Instant::now();
    let replica = Node::worker(3, 1, Some(&first)).await;
    for node in [&first, &second] {
        node.sees_replica(1, replica.net.id(), Loaded).await;
    }
    println!("newcomer by another worker's address, seen by both: {:?}", start.elapsed());
    replica.sees_replica(1, second.net.id(), Loaded).await;
    println!("newcomer sees both: {:?}", start.elapsed());
    let status = first.net.status().borrow().clone();
    assert_eq!(replica_state(&status, 1, second.net.id()), Some(Loaded), "both replicas are listed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_leave_is_seen_at_once() {
    let rendezvous = Node::rendezvous(2).await;
    let stays = Node::worker(2, 0, Some(&rendezvous)).await;
    let leaves = Node::worker(2, 1, Some(&rendezvous)).await;
    stays.sees_replica(1, leaves.net.id(), Loaded).await;
    let id = leaves.net.id().clone();
    let (seen, ()) = tokio::join!(stays.sees_replica(1, &id, Offline), leaves.net.leave());
    println!("leave → OFFLINE: {seen:?}");
    assert!(seen < Duration::from_secs(1), "{seen:?}");
    assert!(!stays.net.status().borrow().pipeline_complete);
    assert!(leaves.net.channel(stays.net.id()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_left_does_not_come_back_for_a_moment() {
    let rendezvous = Node::rendezvous(2).await;
    let others = (0..6).map(|_| Node::worker(2, 0, Some(&rendezvous)));
    let others = futures::future::join_all(others).await;
    let mut watched = JoinSet::new();
    for _ in 0..5 {
        let leaves = Node::worker(2, 1, Some(&rendezvous)).await;
        let id = leaves.net.id().clone();
        for other in &others {
            other.sees_replica(1, &id, Loaded).await;
        }
        for other in &others {
            watched.spawn(states_of(other.net.status(), 1, id.clone()));
        }
        // Its last words go to the DHT, where questions and answers are still under way when it leaves.
        leaves.net.announce(vec![offer(1, false)]);
        leaves.net.leave().await;
    }
    for states in watched.join_all().await {
        let gone = states.iter().position(|state| *state == Offline).unwrap();
        assert_eq!(states[gone..], [Offline], "{states:?}");
    }
}

/// The states of a replica one after the other, until it has been OFFLINE for longer than a silent peer would be kept.
async fn states_of(
    mut status: watch::Receiver<Arc<SwarmStatus>>,
    shard: u32,
    worker: NodeId,
) -> Vec<ReplicaState> {
    let mut states: Vec<ReplicaState> = vec![];
    loop {
        let state = replica_state(&status.borrow_and_update(), shard, &worker).unwrap();
        if states.last() != Some(&state) {
            states.push(state);
        }
        if tokio::time::timeout(Duration::from_secs(2), status.changed()).await.is_err() {
            return states;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_rendezvous_is_entered_again_whoever_it_is_now() {
    let port = free_port();
    let start = |identity| {
        let listen = vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1")];
        Node::start(NetConfig { listen, ..config(2, None) }, Role::Rendezvous, identity)
    };
    let rendezvous = start(Identity::ephemeral()).await;
    let by_host_and_port = NetConfig { rendezvous: vec![format!("127.0.0.1:{port}")], ..config(2, None) };
    let worker = Node::start(by_host_and_port.clone(), Role::Worker, Identity::ephemeral()).await;
    worker.net.announce(vec![offer(0, true)]);
    rendezvous.sees_replica(0, worker.net.id(), Loaded).await;
    rendezvous.net.leave().await;
    drop(rendezvous);

    let restarted = start(Identity::ephemeral()).await;
    let took = restarted.sees_replica(0, worker.net.id(), Loaded).await;
    println!("restarted rendezvous sees the worker after {took:?}");
    let newcomer = Node::start(by_host_and_port, Role::Worker, Identity::ephemeral()).await;
    newcomer.net.announce(vec![offer(1, true)]);
    worker.sees_replica(1, newcomer.net.id(), Loaded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_together_become_a_full_mesh() {
    let rendezvous = Node::rendezvous(8).await;
    let start = Instant::now();
    let workers = (0..8).map(|shard| Node::worker(8, shard, Some(&rendezvous)));
    let workers = futures::future::join_all(workers).await;
    let gateway = Node::gateway(8, &rendezvous).await;
    for node in workers.iter().chain([&gateway, &rendezvous]) {
        node.sees("swarm ready", |status| status.swarm_ready).await;
    }
    println!("eight workers, gateway and rendezvous, all ready everywhere: {:?}", start.elapsed());
    let last = &workers[7];
    let (id, left) = (last.net.id().clone(), Instant::now());
    last.net.leave().await;
    for node in workers[..7].iter().chain([&gateway, &rendezvous]) {
        node.sees_replica(7, &id, Offline).await;
    }
    println!("leave → OFFLINE on nine nodes: {:?}", left.elapsed());
}

fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
