//! A worker in a process of its own, for test targets with a `main` of their own: it is this program, started again.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use swarm_net::{MemberConfig, NetConfig, NetError, Role};
use tokio::{io::AsyncReadExt, time::sleep};

use super::{Node, offer};

const ENTRY: &str = "SWARM_NET_TEST_ENTRY";
const LISTEN: &str = "SWARM_NET_TEST_LISTEN";
const IDENTITY: &str = "SWARM_NET_TEST_IDENTITY";
const SECRET: &str = "SWARM_NET_TEST_SECRET";

/// A worker with shard 1 of 2 in a process of its own.
pub struct WorkerProcess(Child);

impl WorkerProcess {
    /// Starts this program again, see [`was_the_worker`].
    pub fn start(entry: &Node, listen: &str, identity: &Path, secret: Option<&Path>) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .env(SECRET, secret.unwrap_or(Path::new("")))
            .env(ENTRY, entry.entry())
            .env(LISTEN, listen)
            .env(IDENTITY, identity)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Stops it without ending it, as a machine that hangs.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// The memory that it has now, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
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

/// The other side of [`WorkerProcess::start`]: runs until it is killed, or until whoever started it is gone. False when
/// this process is none of that kind.
pub async fn was_the_worker() -> bool {
    let Ok(entry) = std::env::var(ENTRY) else { return false };
    let secret_file = std::env::var_os(SECRET).filter(|path| !path.is_empty()).map(Into::into);
    let config = NetConfig {
        cluster: "test".into(),
        listen: std::env::var(LISTEN).unwrap().split(',').map(str::to_owned).collect(),
        rendezvous: vec![entry],
        identity: Some(std::env::var_os(IDENTITY).unwrap().into()),
        total_shards: 2,
        members: MemberConfig { secret_file, ..MemberConfig::default() },
        ..NetConfig::default()
    };
    // The test has had the file open, and a process that another test starts at that moment has it until it is this
    // program.
    let mut tries = 0;
    let identity = loop {
        match config.load_identity("worker") {
            Err(NetError::IdentityInUse { .. }) if tries < 40 => tries += 1,
            loaded => break loaded.unwrap(),
        }
        sleep(Duration::from_millis(50)).await;
    };
    let node = Node::start(config, Role::Worker, identity).await;
    node.net.announce(vec![offer(1, true)]);
    // Ends with the process that holds the other end.
    let _ = tokio::io::stdin().read(&mut [0]).await;
    true
}
