//! Which processes make a swarm on this machine, and with which flags. Pure: starts nothing.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use gateway::text::UserSpecialTokens;
use shard_engine::{BackendChoice, CANDLE_THREADS_VARIABLE, DeviceChoice, KvType};
use swarm_process::{
    address_file::Addresses,
    telemetry::{LogFormat, TelemetryConfig},
};
use swarm_types::{ByteSize, MAX_SHARDS, Precision, ShardRange, ShardWeights};

use super::reach::{Access, LOOPBACK};

/// A worker's caches get no less, however little memory there is: it holds a long session of a small model.
const LEAST_KV_MEMORY: u64 = 256 * MIB;
const MIB: u64 = 1 << 20;

/// What swarm to run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The model's file.
    pub model: PathBuf,
    /// How workers compute.
    pub precision: Precision,
    /// Into how many shards the model is cut.
    pub total_shards: u32,
    /// How unequal the shards are.
    pub shard_weights: Option<ShardWeights>,
    /// Whether workers load without asking whether there is the memory.
    pub ignore_memory: bool,
    /// The shards of each worker.
    pub workers: Vec<ShardRange>,
    /// Threads of each worker's engine.
    pub threads: u16,
    /// The same for steps of many rows.
    pub threads_batch: u16,
    /// Where workers compute.
    pub backend: BackendChoice,
    pub device: DeviceChoice,
    /// Memory of each worker for its sessions' caches; absent: as much as a worker takes by itself.
    pub kv_memory: Option<ByteSize>,
    /// How caches are held.
    pub kv_type: KvType,
    /// The gateway's chat template, instead of the model's.
    pub chat_template: Option<PathBuf>,
    /// How the gateway reads special tokens in messages.
    pub user_special_tokens: UserSpecialTokens,
    /// Who may ask the gateway, and where.
    pub access: Access,
    /// What each process logs.
    pub log: TelemetryConfig,
    /// What the environment of all processes has besides ours.
    pub environment: Vec<(&'static str, String)>,
    /// Where identities, address files and logs are.
    pub dir: PathBuf,
    /// Ports that are given; 0 is any free one.
    pub ports: GivenPorts,
}

/// Ports where the swarm is reached from outside; 0 is any free one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GivenPorts {
    /// The gateway's HTTP API.
    pub http: u16,
    /// The gateway's gRPC API.
    pub grpc: u16,
    /// The rendezvous node's QUIC (UDP) and TCP port.
    pub rendezvous: u16,
}

/// Gives each worker its shards: neighbouring ones when there are fewer workers than shards, replicas when there are
/// more.
///
/// # Errors
/// When there is no shard or no worker.
pub(crate) fn spread(total_shards: u32, workers: u32) -> Result<Vec<ShardRange>> {
    ensure!((1..=MAX_SHARDS).contains(&total_shards), "--total-shards must be 1 to {MAX_SHARDS}");
    ensure!((1..=MAX_SHARDS).contains(&workers), "--workers must be 1 to {MAX_SHARDS}");
    let groups = workers.min(total_shards);
    let (each, longer) = (total_shards / groups, total_shards % groups);
    let start = |group: u32| group * each + group.min(longer);
    let range = |worker: u32| ShardRange::new(start(worker % groups), start(worker % groups + 1));
    Ok((0..workers).map(range).collect::<Result<_, _>>()?)
}

/// Each worker's part of the memory for caches, which it takes only as sessions need it. Half of what the machine has
/// is left to weights and all else.
pub(crate) fn kv_share(available: u64, workers: u32) -> ByteSize {
    let share = available / 2 / u64::from(workers.max(1));
    ByteSize((share / MIB * MIB).max(LEAST_KV_MEMORY))
}

/// What a process listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listen {
    peers: Vec<String>,
    grpc: SocketAddr,
    http: Option<SocketAddr>,
}

impl Listen {
    fn loopback(peers: u16, grpc: u16) -> Self {
        Self {
            peers: vec![format!("/ip4/127.0.0.1/udp/{peers}/quic-v1"), format!("/ip4/127.0.0.1/tcp/{peers}")],
            grpc: SocketAddr::new(LOOPBACK, grpc),
            http: None,
        }
    }

    fn flags(&self) -> Vec<OsString> {
        let peers = self.peers.iter().flat_map(|address| ["--listen".into(), address.into()]);
        let http = self.http.iter().flat_map(|http| ["--http-listen".into(), http.to_string().into()]);
        peers.chain(["--grpc-listen".into(), self.grpc.to_string().into()]).chain(http).collect()
    }
}

/// How to start one process, and to start it again.
#[derive(Clone, Debug)]
pub(crate) struct ProcessSpec {
    /// Its log, address file and identity are called by it.
    pub name: String,
    /// What its environment has besides ours.
    pub environment: Vec<(&'static str, String)>,
    dir: PathBuf,
    /// Sub-command and flags, without those below.
    args: Vec<OsString>,
    listen: Listen,
    /// Others were told its address, so a restart must come back there.
    keeps_ports: bool,
}

impl ProcessSpec {
    /// All arguments of the command.
    pub(crate) fn args(&self) -> Vec<OsString> {
        let identity = self.dir.join(format!("{}.key", self.name));
        let own = [
            "--identity".into(),
            identity.into(),
            "--address-file".into(),
            self.address_file().into(),
            "--exit-with-stdin".into(),
        ];
        self.args.iter().cloned().chain(self.listen.flags()).chain(own).collect()
    }

    /// Where the process writes what it listens on.
    pub(crate) fn address_file(&self) -> PathBuf {
        self.dir.join(format!("{}.json", self.name))
    }

    /// Where its standard error goes.
    pub(crate) fn log(&self) -> PathBuf {
        log_of(&self.dir, &self.name)
    }

    /// Notes where it listens now, for its next start.
    pub(crate) fn opened(&mut self, addresses: &Addresses) {
        if self.keeps_ports {
            let bare = addresses.addresses.iter().map(|a| a.split("/p2p/").next().unwrap_or(a).to_owned());
            self.listen = Listen { peers: bare.collect(), grpc: addresses.grpc, http: addresses.http };
        }
    }
}

/// The secret of the swarm that runs there.
pub(crate) fn secret_of(dir: &Path) -> PathBuf {
    dir.join("swarm.secret")
}

/// The log of the process with this name.
pub(crate) fn log_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}

impl Plan {
    /// The node by which the others enter.
    pub(crate) fn rendezvous(&self) -> ProcessSpec {
        ProcessSpec {
            keeps_ports: true,
            ..self.process("rendezvous", "rendezvous", Listen::loopback(self.ports.rendezvous, 0))
        }
    }

    /// The node that clients ask. Enters by `entry`, a multiaddress.
    pub(crate) fn gateway(&self, entry: &str) -> ProcessSpec {
        let http = Some(SocketAddr::new(self.access.host(), self.ports.http));
        let listen = Listen { http, ..Listen::loopback(0, self.ports.grpc) };
        let mut gateway = ProcessSpec { keeps_ports: true, ..self.process("gateway", "gateway", listen) };
        gateway.args.extend(self.membership(entry));
        if let Some(file) = &self.chat_template {
            gateway.args.extend(["--chat-template".into(), file.into()]);
        }
        if self.user_special_tokens == UserSpecialTokens::Control {
            gateway.args.extend(words("--user-special-tokens control"));
        }
        gateway.args.extend(self.access.flags());
        gateway
    }

    /// The nodes that compute. Enter by `entry`, a multiaddress.
    pub(crate) fn workers(&self, entry: &str) -> Vec<ProcessSpec> {
        let Self { precision, threads, threads_batch, backend, device, kv_type, .. } = self;
        let worker = |(place, shards): (usize, &ShardRange)| {
            let name = format!("worker-{place}");
            let mut worker = self.process(&name, "worker", Listen::loopback(0, 0));
            // The flag below is for our products, this for candle's.
            worker.environment.push((CANDLE_THREADS_VARIABLE, threads.to_string()));
            worker.args.extend(words(&format!(
                "--shard-id {shards} --precision {precision} --threads {threads} --threads-batch {threads_batch} \
                 --backend {backend} --device {device} --kv-type {kv_type}"
            )));
            let kv_memory = self.kv_memory.map(|bytes| words(&format!("--kv-memory {bytes}")));
            worker.args.extend(kv_memory.unwrap_or_default());
            worker.args.extend(self.ignore_memory.then(|| "--ignore-memory".into()));
            worker.args.extend(self.membership(entry));
            worker
        };
        self.workers.iter().enumerate().map(worker).collect()
    }

    /// What all processes have in common.
    fn process(&self, name: &str, command: &str, listen: Listen) -> ProcessSpec {
        let format = match self.log.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let mut args =
            words(&format!("{command} --total-shards {} --log-format {format} --log", self.total_shards));
        args.push((&self.log.log).into());
        args.extend(["--secret-file".into(), secret_of(&self.dir).into()]);
        ProcessSpec {
            name: name.into(),
            environment: self.environment.clone(),
            dir: self.dir.clone(),
            args,
            listen,
            keeps_ports: false,
        }
    }

    fn membership(&self, entry: &str) -> Vec<OsString> {
        let mut args = vec!["--rendezvous".into(), entry.into(), "--model".into(), (&self.model).into()];
        if let Some(weights) = &self.shard_weights {
            args.extend(["--shard-weights".into(), weights.to_string().into()]);
        }
        args
    }
}

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_workers_get_neighbouring_shards_and_more_become_replicas() {
        let texts = |total, workers| {
            let ranges = spread(total, workers).expect("valid");
            ranges.iter().map(ShardRange::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(texts(8, 8), "0 1 2 3 4 5 6 7");
        assert_eq!(texts(8, 3), "0-2 3-5 6-7");
        assert_eq!(texts(8, 1), "0-7");
        assert_eq!(texts(2, 5), "0 1 0 1 0");
        assert!(spread(0, 1).is_err());
        assert!(spread(8, 0).is_err());
    }

    #[test]
    fn every_number_of_workers_covers_every_shard() {
        for (total, workers) in (1..=12).flat_map(|total| (1..=24).map(move |workers| (total, workers))) {
            let ranges = spread(total, workers).expect("valid");
            assert_eq!(ranges.len(), workers as usize);
            let covered = |shard| ranges.iter().any(|range| range.iter().any(|id| id.0 == shard));
            assert!((0..total).all(covered), "{total} shards on {workers} workers");
        }
    }

    fn plan() -> Plan {
        Plan {
            model: "/models/tiny.gguf".into(),
            precision: Precision::Exact,
            total_shards: 2,
            shard_weights: None,
            ignore_memory: false,
            workers: spread(2, 2).expect("valid"),
            threads: 1,
            threads_batch: 2,
            backend: BackendChoice::Native,
            device: DeviceChoice::Cpu,
            kv_memory: None,
            kv_type: KvType::default(),
            chat_template: None,
            user_special_tokens: UserSpecialTokens::Text,
            environment: vec![],
            access: Access::default(),
            log: TelemetryConfig { log: "info".into(), log_format: LogFormat::Text },
            dir: "/run/swarm".into(),
            ports: GivenPorts::default(),
        }
    }

    #[test]
    fn workers_are_told_their_threads_for_both_kinds_of_products() {
        let workers = Plan { threads: 3, ..plan() }.workers("/ip4/127.0.0.1/udp/4001/quic-v1");
        for worker in workers {
            assert!(worker.args().windows(2).any(|pair| pair == ["--threads", "3"]), "{:?}", worker.args());
            assert_eq!(worker.environment, [(CANDLE_THREADS_VARIABLE, "3".to_owned())]);
        }
    }

    #[test]
    fn gateway_and_workers_are_told_the_same_weights() {
        let plan = Plan { shard_weights: Some("2,1".parse().expect("weights")), ..plan() };
        let entry = "/ip4/127.0.0.1/udp/4001/quic-v1";
        for process in plan.workers(entry).into_iter().chain([plan.gateway(entry)]) {
            let args = process.args();
            assert!(args.windows(2).any(|pair| pair == ["--shard-weights", "2,1"]), "{args:?}");
        }
    }

    #[test]
    fn the_gateway_alone_is_told_how_conversations_are_read() {
        let template = Some("/t.jinja".into());
        let plan =
            Plan { chat_template: template, user_special_tokens: UserSpecialTokens::Control, ..plan() };
        let entry = "/ip4/127.0.0.1/udp/4001/quic-v1";
        let args = plan.gateway(entry).args();
        for pair in [["--chat-template", "/t.jinja"], ["--user-special-tokens", "control"]] {
            assert!(args.windows(2).any(|args| args == pair), "{args:?}");
            assert!(plan.workers(entry).iter().all(|worker| !worker.args().contains(&pair[0].into())));
        }
    }

    #[test]
    fn workers_share_half_of_the_memory_and_each_has_enough_for_a_session() {
        const GIB: u64 = 1 << 30;
        assert_eq!(kv_share(64 * GIB, 8), ByteSize(4 * GIB));
        assert_eq!(kv_share(7 * GIB, 3).to_string(), "1194MiB");
        assert_eq!(kv_share(GIB, 8), ByteSize(LEAST_KV_MEMORY));
        let plan = Plan { kv_memory: Some(ByteSize(2 * GIB)), ..plan() };
        for worker in plan.workers("/ip4/127.0.0.1/udp/4001/quic-v1") {
            assert!(
                worker.args().windows(2).any(|pair| pair == ["--kv-memory", "2GiB"]),
                "{:?}",
                worker.args()
            );
        }
    }

    #[test]
    fn a_restarted_rendezvous_comes_back_where_the_others_know_it() {
        let plan = plan();
        let mut rendezvous = plan.rendezvous();
        assert!(rendezvous.args().contains(&"/ip4/127.0.0.1/udp/0/quic-v1".into()));
        rendezvous.opened(&Addresses {
            peer_id: "12D3KooWa".parse().expect("valid"),
            addresses: vec!["/ip4/127.0.0.1/udp/4242/quic-v1/p2p/12D3KooWa".into()],
            grpc: "127.0.0.1:5000".parse().expect("valid"),
            http: None,
            metrics: None,
        });
        let args = rendezvous.args();
        assert!(args.contains(&"/ip4/127.0.0.1/udp/4242/quic-v1".into()), "{args:?}");
        assert!(args.contains(&"127.0.0.1:5000".into()), "{args:?}");
    }
}
