//! Rendezvous, workers and gateway.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::atomic::{AtomicU8, Ordering},
};

use anyhow::Context;
use futures::future::{try_join, try_join_all};
use swarm_net::Secret;
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

use crate::{BOUND, Process, ProcessSpec, llama_swarm, network::host};

/// What kind of swarm.
#[derive(Clone, Debug)]
pub struct SwarmSpec {
    /// The model's file, or `swarm:` for the one that other nodes give.
    pub model: PathBuf,
    /// Files that a node of their own gives to the others. It is there before the gateway.
    pub shared: Vec<PathBuf>,
    /// Into how many shards it is cut.
    pub total_shards: u32,
    /// `standard` or `exact`.
    pub precision: &'static str,
    /// More flags for every node that only gives files.
    pub share_args: Vec<String>,
    /// More flags for every worker.
    pub worker_args: Vec<String>,
    /// More flags for the gateway.
    pub gateway_args: Vec<String>,
    /// What the environment of all processes has besides the test's own.
    pub environment: Vec<(String, String)>,
}

impl SwarmSpec {
    /// Eight shards, in the default precision.
    #[must_use]
    pub fn new(model: PathBuf) -> Self {
        Self {
            model,
            shared: vec![],
            total_shards: 8,
            precision: "standard",
            share_args: vec![],
            worker_args: vec![],
            gateway_args: vec![],
            environment: vec![],
        }
    }

    /// The same, where one node has the model's file and the others get it from there, and from each other.
    #[must_use]
    pub fn fetching(model: PathBuf) -> Self {
        Self { shared: vec![model], ..Self::new("swarm:".into()) }
    }
}

/// A swarm of processes in a folder of its own.
#[derive(Debug)]
pub struct Swarm {
    ground: Ground,
    /// The node to enter by.
    pub rendezvous: Process,
    /// Those that only give files.
    pub seeders: Vec<Process>,
    /// One worker for each shard, in order; more after [`Self::add_worker`].
    pub workers: Vec<Process>,
    /// The node that answers.
    pub gateway: Process,
}

impl Swarm {
    /// Starts all processes; returns when their ports are open.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn start(spec: SwarmSpec) -> anyhow::Result<Self> {
        let mut swarm = Self::without_workers(spec).await?;
        let entry = swarm.rendezvous.quic_address()?;
        for shard in 0..swarm.ground.spec.total_shards {
            swarm.add_worker(&format!("worker-{shard}"), &shard.to_string(), &entry).await?;
        }
        Ok(swarm)
    }

    /// Starts a rendezvous, who gives files, and a gateway only. What that fetches from who gives files it has then.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn without_workers(spec: SwarmSpec) -> anyhow::Result<Self> {
        let ground = Ground::of(spec)?;
        let rendezvous = ground.start("rendezvous", rendezvous_args(&ground.spec)).await?;
        let (entry, mut seeders) = (rendezvous.quic_address()?, vec![]);
        if !ground.spec.shared.is_empty() {
            seeders.push(ground.start("seeder", share_args(&ground.spec, &entry)).await?);
        }
        let gateway = ground.start("gateway", gateway_args(&ground.spec, &entry)).await?;
        if !seeders.is_empty() {
            gateway.has_header().await?;
        }
        Ok(Self { ground, rendezvous, seeders, workers: vec![], gateway })
    }

    /// Starts a rendezvous, then workers and gateway at the same moment.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn at_once(spec: SwarmSpec) -> anyhow::Result<Self> {
        let ground = Ground::of(spec)?;
        let rendezvous = ground.start("rendezvous", rendezvous_args(&ground.spec)).await?;
        let entry = rendezvous.quic_address()?;
        let workers = (0..ground.spec.total_shards).map(|shard| {
            let args = worker_args(&ground.spec, &shard.to_string(), &entry);
            let (ground, name) = (&ground, format!("worker-{shard}"));
            async move { ground.start(&name, args).await }
        });
        let gateway = ground.start("gateway", gateway_args(&ground.spec, &entry));
        let (workers, gateway) = try_join(try_join_all(workers), gateway).await?;
        Ok(Self { ground, rendezvous, seeders: vec![], workers, gateway })
    }

    /// Starts a swarm and waits until the gateway sees it ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn ready(spec: SwarmSpec) -> anyhow::Result<Self> {
        let swarm = Self::start(spec).await?;
        swarm.gateway.sees("swarm ready", |status| status.swarm_ready).await?;
        Ok(swarm)
    }

    /// One more worker that enters by `entry`; gives its place in `workers`.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn add_worker(&mut self, name: &str, shards: &str, entry: &str) -> anyhow::Result<usize> {
        let args = worker_args(&self.ground.spec, shards, entry);
        let worker = self.ground.start(name, args).await.context("a worker starts")?;
        self.workers.push(worker);
        Ok(self.workers.len() - 1)
    }

    /// One more node that gives the same files.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn add_seeder(&mut self, name: &str) -> anyhow::Result<()> {
        let args = share_args(&self.ground.spec, &self.rendezvous.quic_address()?);
        self.seeders.push(self.ground.start(name, args).await?);
        Ok(())
    }

    /// One more node that gives files, this one.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn add_seeder_of(&mut self, name: &str, file: PathBuf) -> anyhow::Result<()> {
        let spec = SwarmSpec { shared: vec![file], ..self.ground.spec.clone() };
        let args = share_args(&spec, &self.rendezvous.quic_address()?);
        self.seeders.push(self.ground.start(name, args).await?);
        Ok(())
    }

    /// Runs `llama-swarm pull`, for the process of this name, to its end.
    ///
    /// # Errors
    /// When it does not come to its end within the bound.
    pub async fn pull(&self, name: &str, model: &str) -> anyhow::Result<Output> {
        let (total, entry) = (self.ground.spec.total_shards, self.rendezvous.quic_address()?);
        let args = format!("pull {model} --total-shards {total} --rendezvous {entry} --offline");
        let mut command = Command::new(llama_swarm());
        command.args(words(&args)).args(words(&self.ground.listen())).stdin(Stdio::null());
        command.arg("--cache-dir").arg(self.cache(name)).arg("--secret-file").arg(self.secret());
        command.arg("--identity").arg(self.ground.dir.path().join(format!("{name}.pull.key")));
        let ended = timeout(BOUND, command.kill_on_drop(true).output()).await;
        Ok(ended.context("the pull does not end")??)
    }

    /// One more gateway into the same swarm.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn another_gateway(&self, name: &str, flags: &[&str]) -> anyhow::Result<Process> {
        let entry = self.rendezvous.quic_address()?;
        let flags = flags.iter().map(|flag| (*flag).to_owned());
        let args = gateway_args(&self.ground.spec, &entry).into_iter().chain(flags).collect();
        self.ground.start(name, args).await
    }

    /// A gateway into the same swarm, with another model.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn gateway_of(&self, name: &str, model: PathBuf) -> anyhow::Result<Process> {
        let spec = SwarmSpec { model, ..self.ground.spec.clone() };
        self.ground.start(name, gateway_args(&spec, &self.rendezvous.quic_address()?)).await
    }

    /// The folder in which the process of this name keeps what it fetches.
    #[must_use]
    pub fn cache(&self, name: &str) -> PathBuf {
        self.ground.cache(name)
    }

    /// The file with the swarm's secret.
    #[must_use]
    pub fn secret(&self) -> &Path {
        &self.ground.secret
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Process> {
        [&self.rendezvous, &self.gateway].into_iter().chain(&self.workers).chain(&self.seeders)
    }
}

/// Where the processes run.
#[derive(Debug)]
struct Ground {
    spec: SwarmSpec,
    dir: TempDir,
    /// The file with what makes them members.
    secret: PathBuf,
    /// The number of the next process's [`host`].
    hosts: AtomicU8,
}

impl Ground {
    fn of(spec: SwarmSpec) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("swarm-")?;
        let secret = dir.path().join("swarm.secret");
        Secret::generate().create(&secret)?;
        Ok(Self { spec, dir, secret, hosts: AtomicU8::new(1) })
    }

    fn cache(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.cache"))
    }

    /// Where the next process listens for peers.
    fn listen(&self) -> String {
        let host = host(self.hosts.fetch_add(1, Ordering::Relaxed));
        format!("--listen /ip4/{host}/udp/0/quic-v1 --listen /ip4/{host}/tcp/0")
    }

    /// `args` without where it listens.
    async fn start(&self, name: &str, mut args: Vec<String>) -> anyhow::Result<Process> {
        args.extend(words(&self.listen()).chain(words("--grpc-listen 127.0.0.1:0 --secret-file")));
        args.push(self.secret.display().to_string());
        // Who fetches finds nothing on this machine, and goes nowhere else.
        if args.iter().any(|arg| arg == "swarm:") {
            args.extend(words("--offline --cache-dir").chain([self.cache(name).display().to_string()]));
        }
        // Many prompts at once take a slow machine longer than a user should wait.
        let mut environment = vec![("LLAMA_SWARM_STEP_TIMEOUT".to_owned(), "600".to_owned())];
        environment.extend(self.spec.environment.clone());
        // Who has a hub to ask finds nothing on this machine either.
        if args.iter().any(|arg| arg.starts_with("hf:")) {
            args.extend(["--cache-dir".into(), self.cache(name).display().to_string()]);
            environment.push(("HF_HOME".into(), self.cache(name).join("hub").display().to_string()));
        }
        Process::start(ProcessSpec { name: name.into(), args, environment, dir: self.dir.path().into() })
            .await
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().map(str::to_owned)
}

fn rendezvous_args(spec: &SwarmSpec) -> Vec<String> {
    words(&format!("rendezvous --total-shards {}", spec.total_shards)).collect()
}

fn share_args(spec: &SwarmSpec, entry: &str) -> Vec<String> {
    let own = format!("share --total-shards {} --rendezvous {entry}", spec.total_shards);
    let files = spec.shared.iter().map(|file| file.display().to_string());
    words(&own).chain(files).chain(spec.share_args.clone()).collect()
}

fn member_args(spec: &SwarmSpec, entry: &str) -> Vec<String> {
    let member = format!("--total-shards {} --rendezvous {entry} --model", spec.total_shards);
    words(&member).chain([spec.model.display().to_string()]).collect()
}

fn gateway_args(spec: &SwarmSpec, entry: &str) -> Vec<String> {
    let own = words("gateway --http-listen 127.0.0.1:0");
    own.chain(member_args(spec, entry)).chain(spec.gateway_args.clone()).collect()
}

fn worker_args(spec: &SwarmSpec, shards: &str, entry: &str) -> Vec<String> {
    let own = format!("worker --shard-id {shards} --precision {} --threads 1", spec.precision);
    words(&own).chain(member_args(spec, entry)).chain(spec.worker_args.clone()).collect::<Vec<_>>()
}
