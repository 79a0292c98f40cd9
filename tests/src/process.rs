//! One process of the swarm.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures::StreamExt;
use swarm_proto::wire::{self, swarm_service_client::SwarmServiceClient};
use tokio::process::{Child, Command};

use crate::{BOUND, llama_swarm};

/// How to start a process, and to start it again.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    /// Its name in the folder: log, address file and identity are called by it.
    pub name: String,
    /// Sub-command and flags.
    pub args: Vec<String>,
    /// What its environment has besides the test's own.
    pub environment: Vec<(String, String)>,
    /// Folder of the swarm.
    pub dir: PathBuf,
}

/// A running process; ended when dropped.
#[derive(Debug)]
pub struct Process {
    spec: ProcessSpec,
    child: Child,
    started: Instant,
    addresses: serde_json::Value,
}

impl Process {
    /// Starts it and returns when its ports are open.
    ///
    /// # Errors
    /// When it ends or does not open its ports within the bound; with the end of its log.
    pub async fn start(spec: ProcessSpec) -> anyhow::Result<Self> {
        let address_file = spec.dir.join(format!("{}.json", spec.name));
        let _ = std::fs::remove_file(&address_file);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(spec.log_path())?;
        let started = Instant::now();
        let child = Command::new(llama_swarm())
            .args(&spec.args)
            .envs(spec.environment.iter().cloned())
            .arg("--address-file")
            .arg(&address_file)
            .arg("--identity")
            .arg(spec.dir.join(format!("{}.key", spec.name)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let mut process = Self { spec, child, started, addresses: serde_json::Value::Null };
        process.addresses = process.read_addresses(&address_file).await?;
        Ok(process)
    }

    async fn read_addresses(&mut self, file: &Path) -> anyhow::Result<serde_json::Value> {
        let mut poll = tokio::time::interval(Duration::from_millis(10));
        while self.started.elapsed() < BOUND {
            poll.tick().await;
            if let Ok(json) = std::fs::read(file) {
                return Ok(serde_json::from_slice(&json)?);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.spec.name, self.log());
            }
        }
        bail!("{} did not open its ports:\n{}", self.spec.name, self.log())
    }

    /// Its name in the folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// When it was started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Process id.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process is running")
    }

    /// All it has logged, over its restarts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.spec.log_path()).unwrap_or_default()
    }

    /// libp2p peer id.
    #[must_use]
    pub fn peer_id(&self) -> &str {
        self.addresses["peer_id"].as_str().unwrap_or_default()
    }

    /// A loopback QUIC multiaddress where peers reach it, with its peer id.
    ///
    /// # Errors
    /// When it has none.
    pub fn quic_address(&self) -> anyhow::Result<String> {
        let all = self.addresses["addresses"].as_array().context("addresses is a list")?;
        let mut texts = all.iter().filter_map(|address| address.as_str());
        let quic = texts.find(|address| address.contains("/quic-v1")).context("it listens on QUIC")?;
        Ok(quic.to_owned())
    }

    /// The loopback address on which it listens for peers; no two processes of a swarm have the same.
    pub(crate) fn host(&self) -> anyhow::Result<Ipv4Addr> {
        let address = self.quic_address()?;
        let host = address.split('/').nth(2).context("an address begins with /ip4/ and the host")?;
        Ok(host.parse()?)
    }

    /// `http://…` of its TCP gRPC port.
    #[must_use]
    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.addresses["grpc"].as_str().unwrap_or_default())
    }

    /// `http://…` of its HTTP port; only a gateway has one.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://{}", self.addresses["http"].as_str().unwrap_or_default())
    }

    /// `http://…` of its port for metrics alone; only a gateway may have one.
    #[must_use]
    pub fn metrics_url(&self) -> String {
        format!("http://{}", self.addresses["metrics"].as_str().unwrap_or_default())
    }

    /// The swarm as this process sees it.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> anyhow::Result<wire::SwarmStatus> {
        let mut client = SwarmServiceClient::connect(self.grpc_url()).await?;
        Ok(client.get_status(wire::GetStatusRequest {}).await?.into_inner())
    }

    /// Waits until this process sees the swarm so, by its pushed changes; says how long that took.
    ///
    /// # Errors
    /// When it does not within the bound; with what it saw last.
    pub async fn sees(
        &self,
        what: &str,
        mut so: impl FnMut(&wire::SwarmStatus) -> bool,
    ) -> anyhow::Result<Duration> {
        let since = Instant::now();
        let mut last = None;
        let watch = async {
            let mut client = SwarmServiceClient::connect(self.grpc_url()).await?;
            let mut changes = client.watch_status(wire::WatchStatusRequest {}).await?.into_inner();
            while let Some(status) = changes.next().await {
                if so(last.insert(status?)) {
                    return Ok(since.elapsed());
                }
            }
            bail!("the stream of changes ended")
        };
        match tokio::time::timeout(BOUND, watch).await {
            Ok(seen) => seen.with_context(|| format!("{} watching for: {what}", self.spec.name)),
            Err(_) => bail!("{} never saw: {what}; last: {last:#?}\n{}", self.spec.name, self.log()),
        }
    }

    /// Waits until this gateway says that an answer could begin, which it says also to whoever has no key.
    ///
    /// # Errors
    /// When it does not within the bound.
    pub async fn is_ready(&self) -> anyhow::Result<()> {
        let (since, mut poll) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
        while reqwest::get(format!("{}/readyz", self.http_url())).await?.status() != 200 {
            anyhow::ensure!(since.elapsed() < BOUND, "{} is never ready:\n{}", self.spec.name, self.log());
            poll.tick().await;
        }
        Ok(())
    }

    /// Waits until it has noted where a peer is, for the next time that it starts.
    ///
    /// # Errors
    /// When it does not within the bound.
    pub async fn has_noted(&self, peer: &Self) -> anyhow::Result<()> {
        let book = self.spec.dir.join(format!("{}.key.peers", self.spec.name));
        let address = peer.quic_address()?;
        let address = address.split("/p2p/").next().unwrap_or_default().to_owned();
        let notes = |line: &str| line.starts_with(peer.peer_id()) && line.contains(&address);
        let mut poll = tokio::time::interval(Duration::from_millis(50));
        let noted = async {
            while !std::fs::read_to_string(&book).is_ok_and(|text| text.lines().any(notes)) {
                poll.tick().await;
            }
        };
        tokio::time::timeout(BOUND, noted)
            .await
            .with_context(|| format!("{} notes {address}", self.spec.name))
    }

    /// Waits until this gateway, which fetches its model's header from others, has it.
    ///
    /// # Errors
    /// When it does not within the bound.
    pub async fn has_header(&self) -> anyhow::Result<()> {
        let (since, mut poll) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
        while reqwest::get(format!("{}/v1/models", self.http_url())).await?.status() == 503 {
            anyhow::ensure!(since.elapsed() < BOUND, "{} never has it:\n{}", self.spec.name, self.log());
            poll.tick().await;
        }
        Ok(())
    }

    /// Ends it as a crash does, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub async fn kill(&mut self) -> anyhow::Result<Instant> {
        let now = Instant::now();
        self.child.kill().await?;
        Ok(now)
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it does not end by itself within the bound, or not with success.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await?;
        anyhow::ensure!(sent.success(), "cannot signal {pid}");
        let ended = tokio::time::timeout(BOUND, self.child.wait()).await.context("it does not end")??;
        anyhow::ensure!(ended.success(), "{} ended with {ended}:\n{}", self.spec.name, self.log());
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not within the bound.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let ended = tokio::time::timeout(BOUND, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} does not end:\n{}", self.spec.name, self.log()))??)
    }

    /// Starts it again, with the same identity.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        *self = Self::start(self.spec.clone()).await?;
        Ok(())
    }
}

impl ProcessSpec {
    fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }
}

/// What a status says of one worker in one shard, if it lists it.
#[must_use]
pub fn replica_state(status: &wire::SwarmStatus, shard: usize, worker: &str) -> Option<wire::ReplicaState> {
    let replica = status.shards[shard].replicas.iter().find(|replica| replica.worker == worker)?;
    Some(replica.state())
}
