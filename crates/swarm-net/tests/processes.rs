//! Workers in processes of their own, which are killed and which hang. This program is also that worker: it is started
//! again with an entry to join by, so it has its own `main`.
// What fails here fails the test.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use support::{
    Node, QUIC, QUIC_AND_TCP, TCP,
    process::{WorkerProcess, was_the_worker},
};
use swarm_net::Identity;
use swarm_types::{
    ReplicaState::{Loaded, Offline, Suspect},
    Transport,
};

/// With more nodes than this not every pair watches each other.
const MANY: usize = 18;
/// A worker that hangs must be seen OFFLINE by all within this: 14 s of silence, and what it takes to be told.
const HUNG: Duration = Duration::from_secs(25);
/// A killed worker must be seen OFFLINE within this; the machine that tests may be busy.
const DEATH: Duration = Duration::from_millis(2500);

#[tokio::main(worker_threads = 2)]
async fn main() {
    if was_the_worker().await {
        return;
    }
    let tests = [
        ("a_killed_worker_is_offline_within_two_seconds_and_comes_back_as_the_same", tokio::spawn(killed())),
        ("a_killed_worker_is_noticed_by_its_life_line", tokio::spawn(killed_with_a_life_line())),
        (
            "a_worker_that_hangs_is_suspect_within_two_seconds_and_back_when_it_goes_on",
            tokio::spawn(hanging()),
        ),
        ("in_a_large_swarm_those_who_watch_tell_the_others", tokio::spawn(large())),
    ];
    for (name, test) in tests {
        // The panic's own words were printed when it happened.
        test.await.unwrap_or_else(|_| panic!("{name} failed"));
        println!("test {name} ... ok");
    }
}

async fn killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("identity");
    let id = Identity::load_or_create(&file).unwrap().id().clone();
    let observer = Node::worker_on(QUIC_AND_TCP).await;
    for listen in [QUIC_AND_TCP, QUIC] {
        let start = Instant::now();
        let mut worker = WorkerProcess::start(&observer, listen, &file, None);
        observer.sees_replica(1, &id, Loaded).await;
        println!("{listen}: process start → seen LOADED: {:?}", start.elapsed());
        let status = observer.net.status().borrow().clone();
        assert_eq!(status.shards[1].replicas.len(), 1, "nothing else is left: {:?}", status.shards[1]);

        worker.kill();
        let offline = observer.sees_replica(1, &id, Offline).await;
        println!("{listen}: kill -9 → OFFLINE: {offline:?}");
        assert!(offline < DEATH, "{listen}: {offline:?}");
    }
}

/// A killed process is noticed by the end of its life line, and one that left in peace is not taken for killed.
async fn killed_with_a_life_line() {
    let observer = Node::worker_on(QUIC_AND_TCP).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("identity");
    let id = Identity::load_or_create(&file).unwrap().id().clone();
    for round in 1..=3 {
        let mut worker = WorkerProcess::start(&observer, QUIC_AND_TCP, &file, None);
        observer.sees_replica(1, &id, Loaded).await;
        observer.counts("connections{transport=\"TCP\"}", 1).await;
        worker.kill();
        let offline = observer.sees_replica(1, &id, Offline).await;
        println!("kill -9 with a life line → OFFLINE: {offline:?}");
        assert_eq!(observer.counted("peers_gone_total{cause=\"closed\"}"), round);
        assert_eq!(observer.counted("connections{transport=\"TCP\"}"), 0, "nothing is left of it");
    }
    let leaves = Node::worker(2, 1, Some(&observer)).await;
    observer.counts("connections{transport=\"TCP\"}", 1).await;
    leaves.net.leave().await;
    observer.sees_replica(1, leaves.net.id(), Offline).await;
    assert_eq!(observer.counted("peers_gone_total{cause=\"left\"}"), 1);
    assert_eq!(observer.counted("peers_gone_total{cause=\"closed\"}"), 3);
    assert_eq!(observer.counted("peers_gone_total{cause=\"silent\"}"), 0);
}

async fn hanging() {
    for listen in [QUIC, QUIC_AND_TCP, TCP] {
        let observer = Node::worker_on(listen).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("identity");
        // Of two the one with the smaller id asks. Whether it does can be seen.
        let id = loop {
            let id = Identity::load_or_create(&file).unwrap().id().clone();
            if *observer.net.id() < id {
                break id;
            }
            std::fs::remove_file(&file).unwrap();
        };
        let worker = WorkerProcess::start(&observer, listen, &file, None);
        observer.sees_replica(1, &id, Loaded).await;
        let transport = observer.net.status().borrow().shards[1].replicas[0].transport;
        assert_eq!(transport, Some(if listen == TCP { Transport::Tcp } else { Transport::Quic }));
        if listen == QUIC_AND_TCP {
            observer.counts("connections{transport=\"TCP\"}", 1).await;
        }
        // A watcher is there as soon as the peer is.
        observer.reaches("round_trip_seconds_count", 3).await;
        worker.freeze();
        // Where nobody can ask its kernel, it is taken for dead.
        let (state, gone) = if listen == QUIC { (Offline, 1) } else { (Suspect, 0) };
        let noticed = observer.sees_replica(1, &id, state).await;
        assert_eq!(observer.counted("peers_gone_total{cause=\"silent\"}"), gone, "{listen}");
        println!("{listen}: hang → {state:?}: {noticed:?}");
        assert!(noticed < DEATH, "{listen}: {noticed:?}");
        worker.thaw();
        let back = observer.sees_replica(1, &id, Loaded).await;
        println!("{listen}: goes on → LOADED: {back:?}");
    }
}

/// Most nodes have no life line to the worker and do not watch it.
async fn large() {
    let entry = Node::worker_on(QUIC_AND_TCP).await;
    let mut nodes = vec![];
    for _ in 0..MANY {
        nodes.push(Node::worker(2, 0, Some(&entry)).await);
    }
    nodes.push(entry);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("identity");
    let id = Identity::load_or_create(&file).unwrap().id().clone();
    let all_see = async |state| {
        let seen = nodes.iter().map(|node| node.sees_replica(1, &id, state));
        futures::future::join_all(seen).await.into_iter().max().unwrap()
    };
    let lines = |node: &Node| node.counted("connections{transport=\"TCP\"}");
    let mut worker = WorkerProcess::start(&nodes[MANY], QUIC_AND_TCP, &file, None);
    all_see(Loaded).await;
    worker.kill();
    let offline = all_see(Offline).await;
    println!("kill -9 in a swarm of {} → OFFLINE on all: {offline:?}", MANY + 2);
    assert!(offline < DEATH, "{offline:?}");

    let worker = WorkerProcess::start(&nodes[MANY], QUIC_AND_TCP, &file, None);
    all_see(Loaded).await;
    worker.freeze();
    let offline = all_see(Offline).await;
    println!("hang in a swarm of {} → OFFLINE on all: {offline:?}", MANY + 2);
    assert!(offline < HUNG, "{offline:?}");
    worker.thaw();
    all_see(Loaded).await;
    assert!(nodes.iter().any(|node| lines(node) < MANY as u64), "not every pair has a line");
}
