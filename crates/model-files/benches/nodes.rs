//! How fast a model comes from one node and from four, as nodes do it: on this machine, by the TCP connection that is
//! beside QUIC, each node a process of its own. Everything is read from disk, checked at both ends, and written. Says
//! too what that costs of a processor.
//!
//! `cargo bench -p model-files`; `TMPDIR=/dev/shm` leaves the disk out of it.
// What fails here ends it.
#![allow(clippy::unwrap_used)]

use std::{
    error::Error,
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use gguf::tiny::TinyModel;
use model_files::{LocalModel, Sharing, SharingConfig};
use model_hub::{HubConfig, ModelRef};
use swarm_net::{Identity, NetConfig, PeerListener, Role, SwarmNet, peer_server};
use tokio::{task::JoinHandle, time::timeout};

/// So many bytes take long enough to be measured.
const MODEL: u64 = 256 << 20;
const ROUNDS: usize = 5;
/// What `/proc/PID/stat` counts in; the same on all Linux systems.
const TICKS_A_SECOND: f64 = 100.0;
/// Nodes find each other in less.
const SOON: Duration = Duration::from_secs(30);

const MODEL_FILE: &str = "MODEL_FILES_BENCH_MODEL";
const ENTRY: &str = "MODEL_FILES_BENCH_ENTRY";

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A node that gives and takes model files.
struct Node {
    net: SwarmNet,
    sharing: Sharing,
    server: JoinHandle<()>,
}

impl Node {
    async fn enter(entry: Option<String>) -> Outcome<Self> {
        let config = NetConfig {
            cluster: "bench".into(),
            listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into(), "/ip4/127.0.0.1/tcp/0".into()],
            rendezvous: entry.into_iter().collect(),
            ..NetConfig::default()
        };
        let (net, peers) = SwarmNet::bind(config, Role::Worker, Identity::ephemeral()).await?;
        let sharing = Sharing::start(&net, &SharingConfig::default())?;
        let server = tokio::spawn(describe(net.clone(), peers));
        Ok(Self { net, sharing, server })
    }
}

async fn describe(net: SwarmNet, peers: PeerListener) {
    _ = peer_server().add_service(net.peer_service()).serve_with_incoming(peers).await;
}

fn hub(cache: &Path) -> HubConfig {
    HubConfig { cache_dir: Some(cache.to_owned()), offline: true, ..HubConfig::default() }
}

/// This program again, as a node that has the whole file.
struct Seeder {
    child: Child,
    address: String,
}

impl Seeder {
    fn start(model: &Path, entry: Option<&str>) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(MODEL_FILE, model).env(ENTRY, entry.unwrap_or_default());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("it has an output")?).read_line(&mut address)?;
        Ok(Self { child, address: address.trim().to_owned() })
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

async fn seed(model: PathBuf) -> Outcome<()> {
    let entry = std::env::var(ENTRY).ok().filter(|entry| !entry.is_empty());
    let node = Node::enter(entry).await?;
    // Where the one that started this has noted what the file is.
    let folder = model.parent().ok_or("a file is in a folder")?;
    let local = LocalModel::find(&ModelRef::File(model.clone()), &hub(folder)).await?;
    let _shared = node.sharing.share("bench", &local.ok_or("it is a file")?)?;
    println!("{}", node.net.addresses().first().ok_or("it listens")?);
    // Ends with the process that holds the other end.
    _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
    node.server.abort();
    Ok(())
}

/// Seconds that a process has computed.
fn computed(pid: u32) -> f64 {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return f64::NAN };
    // Behind the name, which is in brackets, user and system time are the twelfth and the thirteenth.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_A_SECOND
}

/// What one fetch took.
struct Fetched {
    seconds: f64,
    own: f64,
    theirs: f64,
}

async fn fetch(node: &Node, model: &LocalModel, seeders: &[Seeder], folder: &Path) -> Outcome<Fetched> {
    let cache = tempfile::tempdir_in(folder)?;
    let of_seeders = || seeders.iter().map(|seeder| computed(seeder.child.id())).sum::<f64>();
    let (own, theirs, start) = (computed(std::process::id()), of_seeders(), Instant::now());
    let fetched = node.sharing.fetch(Some(model.digest()), &hub(cache.path())).await?;
    fetched.need_all().await?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Fetched { seconds, own: computed(std::process::id()) - own, theirs: of_seeders() - theirs })
}

async fn measure(model: &LocalModel, peers: usize, folder: &Path) -> Outcome<()> {
    let mut seeders = vec![Seeder::start(model.path(), None)?];
    for _ in 1..peers {
        seeders.push(Seeder::start(model.path(), Some(&seeders[0].address))?);
    }
    let node = Node::enter(Some(seeders[0].address.clone())).await?;
    let mut torrents = node.net.torrents();
    timeout(SOON, torrents.wait_for(|told| told.len() == peers)).await??;
    let mut rounds = vec![];
    for _ in 0..ROUNDS {
        rounds.push(fetch(&node, model, &seeders, folder).await?);
    }
    let gigabytes = model.metainfo.layout().total() as f64 / 1e9;
    let median = |of: &dyn Fn(&Fetched) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        (all[0], all[all.len() / 2], all[all.len() - 1])
    };
    let (least, rate, most) = median(&|fetched| gigabytes * 1000.0 / fetched.seconds);
    let (_, own, _) = median(&|fetched| fetched.own / gigabytes);
    let (_, theirs, _) = median(&|fetched| fetched.theirs / gigabytes);
    println!("| {peers} | {rate:.0} ({least:.0} to {most:.0}) | {own:.1} | {theirs:.1} |");
    node.net.leave().await;
    node.server.abort();
    Ok(())
}

/// A small model with weights behind it that belong to nobody.
fn write_model(path: &Path) -> Outcome<()> {
    TinyModel::default().write(path)?;
    let missing = MODEL - fs::metadata(path)?.len();
    let mut file = std::io::BufWriter::new(OpenOptions::new().append(true).open(path)?);
    for number in 0..missing / 8 {
        file.write_all(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())?;
    }
    Ok(file.flush()?)
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Outcome<()> {
    if let Some(model) = std::env::var_os(MODEL_FILE) {
        return seed(model.into()).await;
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("made.gguf");
    write_model(&path)?;
    let model = LocalModel::find(&ModelRef::File(path), &hub(folder.path())).await?.ok_or("it is a file")?;
    println!("| from | MB/s | processor seconds a GB, who fetches | all who give |\n|---|---|---|---|");
    for peers in [1, 4] {
        measure(&model, peers, folder.path()).await?;
    }
    Ok(())
}
