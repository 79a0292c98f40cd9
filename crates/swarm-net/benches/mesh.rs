//! What it takes until many nodes of one process know each other, and what they cost when nothing happens: over
//! real sockets, on the loopback device of a network namespace of its own, which carries nothing else. A rendezvous,
//! a gateway and so many workers, which start in waves: the next one begins when the gateway sees the last one
//! loaded. Needs root, for the namespace.
//!
//! `cargo bench -p swarm-net --bench mesh -- [--nodes 25,50] [--settle 30] [--seconds 60]`
// What fails here fails the benchmark, and figures are rounded.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    env, fs,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use futures::future::join_all;
use support::{Node, QUIC_AND_TCP, config, offer};
use swarm_net::{Identity, NetConfig, Role};
use swarm_types::ReplicaState;
use tokio::time::{sleep, timeout};

const SHARDS: u32 = 8;
/// Set where the loopback device is this process's own.
const INSIDE: &str = "LLAMA_SWARM_BENCH_INSIDE";
/// How many start together.
const WAVE: usize = 10;
/// Two cores agree on all keys within this, or are too few for so many nodes.
const SOON: Duration = Duration::from_secs(1800);

/// What the process has used and the loopback device has carried so far.
#[derive(Clone, Copy)]
struct Used {
    at: Instant,
    computed_s: f64,
    bytes: f64,
    packets: f64,
}

impl Used {
    fn now() -> Self {
        // Of all threads, also those that have ended; hundredths of a second.
        let process = fs::read_to_string("/proc/self/stat").unwrap();
        let fields = process.rsplit(')').next().unwrap().split_whitespace();
        let computed: f64 = fields.skip(11).take(2).map(|time| time.parse::<f64>().unwrap()).sum();
        let devices = fs::read_to_string("/proc/net/dev").unwrap();
        let loopback = devices.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap();
        let carried: Vec<f64> = loopback.split_whitespace().map(|number| number.parse().unwrap()).collect();
        Self { at: Instant::now(), computed_s: computed / 100.0, bytes: carried[0], packets: carried[1] }
    }
}

/// Runs this program again there.
fn enter_namespace() -> ExitCode {
    let again = env::args_os().skip(1);
    let inside = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(env::current_exe().unwrap())
        .args(again)
        .env(INSIDE, "1")
        .status();
    if inside.unwrap().success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The argument behind a name.
fn argument(name: &str, default: &str) -> String {
    let given = env::args().skip_while(|argument| argument != name).nth(1);
    given.unwrap_or_else(|| default.to_owned())
}

fn total(nodes: &[Node], series: &[&str]) -> u64 {
    nodes.iter().flat_map(|node| series.iter().map(|series| node.counted(series))).sum()
}

/// At an address of its own: of one address few may knock at the same time.
async fn worker(shard: u32, number: usize, rendezvous: &Node) -> Node {
    let host = format!("127.0.{}.{}", 1 + number / 250, 1 + number % 250);
    let listen = QUIC_AND_TCP.replace("127.0.0.1", &host).split(',').map(str::to_owned).collect();
    let config = NetConfig { listen, ..config(SHARDS, Some(rendezvous)) };
    let node = Node::start(config, Role::Worker, Identity::ephemeral()).await;
    node.net.announce(vec![offer(shard, true)]);
    node
}

async fn sees_all(node: &Node, workers: usize) {
    let mut status = node.net.status();
    let all = status.wait_for(|status| {
        let replicas = status.shards.iter().flat_map(|shard| &shard.replicas);
        replicas.filter(|replica| replica.state == ReplicaState::Loaded).count() == workers
    });
    drop(all.await.unwrap());
}

async fn measure(workers: usize, settle: Duration, seconds: Duration) {
    let rendezvous = Node::rendezvous(SHARDS).await;
    let mut nodes = vec![Node::gateway(SHARDS, &rendezvous).await];
    let start = Used::now();
    let all = async {
        let shards: Vec<u32> = (0..SHARDS).cycle().take(workers).collect();
        for wave in shards.chunks(WAVE) {
            let started =
                wave.iter().zip(nodes.len()..).map(|(shard, number)| worker(*shard, number, &rendezvous));
            let started = join_all(started).await;
            nodes.extend(started);
            sees_all(&nodes[0], nodes.len() - 1).await;
            eprintln!("{} workers after {:.1} s", nodes.len() - 1, start.at.elapsed().as_secs_f64());
        }
        nodes.push(rendezvous);
        join_all(nodes.iter().map(|node| sees_all(node, workers))).await;
    };
    assert!(timeout(SOON, all).await.is_ok(), "not all nodes have seen {workers} workers within {SOON:?}");
    let whole = Used::now();
    sleep(settle).await;
    let gone = ["peers_gone_total{cause=\"silent\"}", "peers_gone_total{cause=\"closed\"}"];
    let lost = total(&nodes, &gone);
    let before = Used::now();
    sleep(seconds).await;
    let after = Used::now();
    let lost = total(&nodes, &gone) - lost;
    let connections = ["connections{transport=\"QUIC\"}", "connections{transport=\"TCP\"}"];
    let connections = connections.map(|series| total(&nodes, &[series]) as f64 / nodes.len() as f64);
    let (count, took) = (nodes.len() as f64, after.at.duration_since(before.at).as_secs_f64());
    println!(
        "| {workers} | {:.1} | {:.1} | {:.0} | {:.0} | {:.2} | {:.2} | {:.1} | {:.1} + {:.1} | {lost} |",
        whole.at.duration_since(start.at).as_secs_f64(),
        whole.computed_s - start.computed_s,
        (whole.packets - start.packets) / count,
        (whole.bytes - start.bytes) / count / 1e3,
        100.0 * (after.computed_s - before.computed_s) / took / count,
        (after.bytes - before.bytes) / took / count / 1e3,
        (after.packets - before.packets) / took / count,
        connections[0],
        connections[1],
    );
}

#[tokio::main]
async fn main() -> ExitCode {
    if env::var_os(INSIDE).is_none() {
        return enter_namespace();
    }
    let seconds = |name, default| Duration::from_secs(argument(name, default).parse().expect("seconds"));
    println!(
        "| workers | all right, s | computed, s | packets a node | kB a node | idle: % of a core a node | kB/s a node \
         | packets/s a node | connections a node, QUIC + TCP | lost |\n|{}",
        "---|".repeat(10)
    );
    for workers in argument("--nodes", "25,50").split(',') {
        let workers = workers.parse().expect("a number of workers");
        measure(workers, seconds("--settle", "30"), seconds("--seconds", "60")).await;
    }
    ExitCode::SUCCESS
}
