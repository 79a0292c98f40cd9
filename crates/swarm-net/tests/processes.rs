//! Workers in processes of their own, which are killed and which hang. This program is also that worker: it is started
//! again with an entry to join by, so it has its own `main`.
// What fails here fails the test.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use support::{Node, QUIC, QUIC_AND_TCP, TCP, offer};
use swarm_net::{Identity, NetConfig, Role};
use swarm_types::{
    ReplicaState::{Loaded, Offline},
    Transport,
};
use tokio::io::AsyncReadExt;

/// A killed worker must be seen OFFLINE within this; the machine that tests may be busy.
const DEATH: Duration = Duration::from_millis(2500);

const ENTRY: &str = "SWARM_NET_TEST_ENTRY";
const LISTEN: &str = "SWARM_NET_TEST_LISTEN";
const IDENTITY: &str = "SWARM_NET_TEST_IDENTITY";

#[tokio::main(worker_threads = 2)]
async fn main() {
    if let Ok(entry) = std::env::var(ENTRY) {
        return be_the_worker(entry).await;
    }
    let tests = [
        ("a_killed_worker_is_offline_within_two_seconds_and_comes_back_as_the_same", tokio::spawn(killed())),
        (
            "a_worker_that_hangs_is_offline_within_two_seconds_and_back_when_it_goes_on",
            tokio::spawn(hanging()),
        ),
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
        let mut worker = WorkerProcess::start(&observer, listen, &file);
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

async fn hanging() {
    for listen in [QUIC, TCP] {
        let observer = Node::worker_on(listen).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("identity");
        let id = Identity::load_or_create(&file).unwrap().id().clone();
        let worker = WorkerProcess::start(&observer, listen, &file);
        observer.sees_replica(1, &id, Loaded).await;
        let transport = observer.net.status().borrow().shards[1].replicas[0].transport;
        assert_eq!(transport, Some(if listen == TCP { Transport::Tcp } else { Transport::Quic }));
        worker.freeze();
        let offline = observer.sees_replica(1, &id, Offline).await;
        println!("{listen}: hang → OFFLINE: {offline:?}");
        assert!(offline < DEATH, "{listen}: {offline:?}");
        worker.thaw();
        let back = observer.sees_replica(1, &id, Loaded).await;
        println!("{listen}: goes on → LOADED: {back:?}");
    }
}

/// A worker with shard 1 of 2 in a process of its own.
struct WorkerProcess(Child);

impl WorkerProcess {
    /// Starts this program again, see [`be_the_worker`].
    fn start(entry: &Node, listen: &str, identity: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .env(ENTRY, entry.entry())
            .env(LISTEN, listen)
            .env(IDENTITY, identity)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Stops it without ending it, as a machine that hangs.
    fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The other side of [`WorkerProcess::start`]: runs until it is killed, or until whoever started it is gone.
async fn be_the_worker(entry: String) {
    let config = NetConfig {
        cluster: "test".into(),
        listen: std::env::var(LISTEN).unwrap().split(',').map(str::to_owned).collect(),
        rendezvous: vec![entry],
        identity: Some(std::env::var_os(IDENTITY).unwrap().into()),
        total_shards: 2,
        ..NetConfig::default()
    };
    let identity = config.load_identity("worker").unwrap();
    let node = Node::start(config, Role::Worker, identity).await;
    node.net.announce(vec![offer(1, true)]);
    // Ends with the process that holds the other end.
    let _ = tokio::io::stdin().read(&mut [0]).await;
}
