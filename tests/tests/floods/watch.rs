//! What a flood does to a service: its memory, its health, its answers to others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use swarm_proto::wire::{GetStatusRequest, swarm_service_client::SwarmServiceClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{interval, timeout},
};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::port::Port;

/// Other requests, and how many of them at once.
const REQUESTS: usize = 200;
const AT_ONCE: usize = 8;
/// A request at the side is not given up before.
const PATIENCE: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(10);
const PROBE_EVERY: Duration = Duration::from_millis(50);

/// The resident memory of a process, looked at all the time.
pub(crate) struct Memory {
    pid: u32,
    before: u64,
    peak: Arc<AtomicU64>,
    watching: JoinHandle<()>,
}

impl Memory {
    /// Against what it took `before`.
    pub(crate) fn watch(pid: u32, before: u64) -> Self {
        let peak = Arc::new(AtomicU64::new(before));
        let seen = peak.clone();
        let watching = tokio::spawn(async move {
            let mut ticks = interval(EVERY);
            while let Ok(now) = resident(pid) {
                seen.fetch_max(now, Ordering::Relaxed);
                ticks.tick().await;
            }
        });
        Self { pid, before, peak, watching }
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    pub(crate) fn grown(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.before)
    }

    /// Waits until no more than `left` of its growth is left; says how long that took.
    pub(crate) async fn goes_back(&self, left: u64, within: Duration) -> anyhow::Result<Duration> {
        let (since, mut ticks) = (Instant::now(), interval(EVERY));
        loop {
            ticks.tick().await;
            let grown = self.grown(resident(self.pid)?);
            if grown <= left {
                return Ok(since.elapsed());
            }
            ensure!(since.elapsed() < within, "{} MiB did not go back to the system", grown >> 20);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// What a process has in memory, in bytes.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS is told")?;
    let kib = line.trim().split(' ').next().context("a number")?;
    Ok(kib.parse::<u64>()? << 10)
}

/// Asks for health all the time, each time on a new connection, as a kubelet does.
pub(crate) struct Probes(JoinHandle<anyhow::Result<Duration>>, tokio::sync::oneshot::Sender<()>);

impl Probes {
    pub(crate) fn start(port: Port, url: &str) -> Self {
        let (end, mut ended) = tokio::sync::oneshot::channel();
        let url = url.to_owned();
        let asking = tokio::spawn(async move {
            let (mut slowest, mut ticks) = (Duration::ZERO, interval(PROBE_EVERY));
            while ended.try_recv().is_err() {
                ticks.tick().await;
                let since = Instant::now();
                let probe = timeout(PATIENCE, probe(port, &url)).await;
                probe.context("a probe is not answered")?.context("a probe")?;
                slowest = slowest.max(since.elapsed());
            }
            Ok(slowest)
        });
        Self(asking, end)
    }

    /// Says how long the slowest took.
    pub(crate) async fn end(self) -> anyhow::Result<Duration> {
        // It may have ended with an error already.
        let _ = self.1.send(());
        self.0.await?
    }
}

async fn probe(port: Port, url: &str) -> anyhow::Result<()> {
    if port != Port::GatewayHttp {
        let mut client = HealthClient::new(channel(url).await?);
        let answer = client.check(HealthCheckRequest::default()).await?.into_inner();
        ensure!(answer.status == 1, "{answer:?}");
        return Ok(());
    }
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    Ok(())
}

async fn channel(url: &str) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(url.to_owned())?.connect().await?)
}

/// What others ask meanwhile, each on a connection of its own; all must be answered.
pub(crate) async fn side_requests(port: Port, url: &str) -> anyhow::Result<()> {
    let requests = (0..REQUESTS).map(|index| async move {
        let answered = timeout(PATIENCE, side_request(port, url, index)).await;
        answered.context("it is not answered")?.with_context(|| format!("number {index}"))
    });
    stream::iter(requests).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

async fn side_request(port: Port, url: &str, index: usize) -> anyhow::Result<()> {
    if port != Port::GatewayHttp {
        let status = SwarmServiceClient::new(channel(url).await?).get_status(GetStatusRequest {}).await?;
        ensure!(status.into_inner().swarm_ready, "the swarm is not ready any more");
        return Ok(());
    }
    let client = reqwest::Client::new();
    let answer = if index.is_multiple_of(2) {
        client.get(format!("{url}/v1/models")).send().await?
    } else {
        let body = json!({"prompt": "hello", "max_tokens": 1});
        client.post(format!("{url}/v1/completions")).json(&body).send().await?
    };
    let status = answer.status();
    let text = answer.text().await?;
    ensure!(status == 200, "{status}: {text}");
    Ok(())
}
