//! Outsiders that flood the TCP ports: in a process of their own, against a swarm of real processes.
//!
//! Under each flood the service answers health probes within a second and other requests as ever, its memory grows by
//! a bounded amount and goes back to the system, and its log stays readable. This program is also the outsider: it is
//! started again with an order, so it has its own `main`.

mod outsider;
mod port;
mod watch;

use std::{
    process::{ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use swarm_tests::{Scenario, Swarm, SwarmSpec, run_scenarios, tiny_model};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use outsider::{
    Flood, GENERATE, ORDER,
    Opening::{Events, HalfAPreface, Metrics, Preface, Silence},
    STATUS,
};
use port::Port;
use watch::{Memory, Probes, resident, side_requests};

/// A flood is kept up at least so long, however fast the other requests are answered.
const LASTS: Duration = Duration::from_secs(3);
/// Until all of a flood is there.
const RISES: Duration = Duration::from_secs(30);
/// What memory may grow by.
const GROWTH: u64 = 64 << 20;
/// And what may be left of that a minute later.
const LEFT: u64 = 16 << 20;
const GOES_BACK: Duration = Duration::from_secs(60);
/// Lines that may be logged meanwhile.
const LINES: usize = 20;
/// A health probe is answered within it.
const PROBED: Duration = Duration::from_secs(1);

/// One scenario for each flood and each port it goes to.
macro_rules! floods {
    ($($name:ident: $flood:expr, $port:ident;)+) => {
        const FLOODS: &[Scenario<Ground>] =
            &[$((stringify!($name), |ground| Box::pin(withstands(ground, $flood, Port::$port)))),+];
    };
}

floods! {
    unfinished_messages_to_a_gateway: Flood::Messages { path: GENERATE, connections: 1, calls: 256 }, GatewayGrpc;
    unfinished_messages_on_two_connections: Flood::Messages { path: GENERATE, connections: 2, calls: 200 }, GatewayGrpc;
    unfinished_messages_to_a_worker: Flood::Messages { path: STATUS, connections: 1, calls: 256 }, WorkerGrpc;
    unfinished_messages_to_a_rendezvous: Flood::Messages { path: STATUS, connections: 2, calls: 200 }, RendezvousGrpc;
    unfinished_messages_on_many_connections:
        Flood::Messages { path: GENERATE, connections: 100, calls: 32 }, GatewayGrpc;
    unfinished_bodies: Flood::Bodies { connections: 300, bytes: (4 << 20) - 1 }, GatewayHttp;
    heads_without_bodies: Flood::Bodies { connections: 192, bytes: 0 }, GatewayHttp;
    silent_connections: Flood::Openings(Silence), GatewayHttp;
    silent_connections_to_grpc: Flood::Openings(Silence), WorkerGrpc;
    half_prefaces: Flood::Openings(HalfAPreface), GatewayHttp;
    half_prefaces_to_grpc: Flood::Openings(HalfAPreface), RendezvousGrpc;
    prefaces_with_answered_pings: Flood::Openings(Preface), GatewayHttp;
    prefaces_with_answered_pings_to_grpc: Flood::Openings(Preface), GatewayGrpc;
    endless_calls_on_health: Flood::Calls { path: "/grpc.health.v1.Health/Watch" }, GatewayGrpc;
    endless_calls_on_the_swarm: Flood::Calls { path: "/swarm.v1.SwarmService/WatchStatus" }, WorkerGrpc;
    endless_event_streams: Flood::Openings(Events), GatewayHttp;
    answers_that_nobody_reads: Flood::Openings(Metrics), GatewayHttp;
    rapid_resets: Flood::Resets, GatewayHttp;
    rapid_resets_to_grpc: Flood::Resets, WorkerGrpc;
}

fn main() -> ExitCode {
    match std::env::var(ORDER) {
        Ok(order) => outsider::run(&order),
        Err(_) => run_scenarios(set_up, FLOODS),
    }
}

/// A swarm, and what each process takes when nobody floods it.
struct Ground {
    swarm: Swarm,
    before: Vec<(u32, u64)>,
}

async fn set_up() -> anyhow::Result<Ground> {
    let model = tiny_model(2)?;
    let swarm = Swarm::ready(SwarmSpec { total_shards: 2, ..SwarmSpec::new(model.path()) }).await?;
    for port in [Port::GatewayHttp, Port::GatewayGrpc, Port::WorkerGrpc, Port::RendezvousGrpc] {
        // What a process takes once, for its first requests, is not what floods make it take.
        side_requests(port, &port.url(&swarm)).await?;
    }
    let before = swarm.nodes().map(|node| Ok((node.pid(), resident(node.pid())?)));
    Ok(Ground { before: before.collect::<anyhow::Result<_>>()?, swarm })
}

/// The outsider's process, ended when dropped.
struct Outsider(Child);

impl Outsider {
    /// Returns when all of the flood is there.
    async fn start(flood: Flood, url: &str) -> anyhow::Result<Self> {
        let target = url.trim_start_matches("http://");
        let mut child = Command::new(std::env::current_exe()?)
            .env(ORDER, flood.order(target))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("it was piped")?).lines();
        let line = timeout(RISES, said.next_line()).await.context("the flood does not rise")??;
        ensure!(line.as_deref() == Some(outsider::RISEN), "the outsider said {line:?}");
        Ok(Self(child))
    }

    async fn end(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.0.try_wait()? {
            bail!("the outsider ended by itself: {status}");
        }
        Ok(self.0.kill().await?)
    }
}

async fn withstands(ground: &Ground, flood: Flood, port: Port) -> anyhow::Result<()> {
    let (process, url) = (port.process(&ground.swarm), port.url(&ground.swarm));
    let before = ground.before.iter().find(|(pid, _)| *pid == process.pid()).context("it runs on")?.1;
    let lines = process.log().lines().count();
    let memory = Memory::watch(process.pid(), before);
    let probes = Probes::start(port, &url);
    let outsider = Outsider::start(flood, &url).await?;
    let (answered, ()) = tokio::join!(side_requests(port, &url), tokio::time::sleep(LASTS));
    outsider.end().await?;
    let slowest = probes.end().await?;
    let peak = memory.peak();
    let back = memory.goes_back(LEFT, GOES_BACK).await;
    println!(
        "  it grew by {} MiB and went back after {back:.2?}; the slowest probe took {slowest:.2?}",
        memory.grown(peak) >> 20
    );
    answered.context("requests at the side")?;
    ensure!(slowest <= PROBED, "a probe took {slowest:?}");
    ensure!(memory.grown(peak) <= GROWTH, "memory grew by {} bytes", memory.grown(peak));
    back?;
    let log = process.log();
    // The requests at the side have their lines.
    let of_the_flood = |line: &&str| !line.contains("request answered");
    let logged: Vec<&str> = log.lines().skip(lines).filter(of_the_flood).collect();
    ensure!(logged.len() <= LINES, "{} lines were logged, among them {:?}", logged.len(), logged.first());
    Ok(())
}
