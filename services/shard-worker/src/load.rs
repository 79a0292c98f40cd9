//! The way from a model's file to a running engine.

use std::time::{Duration, Instant};

use gguf::Header;
use model_files::{Progress, SwarmModel};
use shard_engine::{Engine, EngineConfig, EngineError, SlotOptions, places};
use swarm_process::grpc::Health;
use swarm_types::{SamplingParams, Step, StepInput, TokenId, status_words};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use crate::{
    Config, WorkerError, engine_thread::EngineHandle, metrics::Metrics, model::Known, offer::Loading,
    shard_service,
};

/// The way from a file to a running engine.
pub(crate) struct Load {
    pub(crate) config: Config,
    pub(crate) model: Known,
    pub(crate) metrics: Metrics,
}

/// How far a fetch is gets into the log so often.
const LOGGED_EVERY: Duration = Duration::from_secs(2);
const LOGGED_AT_LEAST: Duration = Duration::from_secs(30);
/// Of all loading, how much fetching is, in percent. What comes from others takes longer than reading it.
const FETCHING: u64 = 80;

impl Load {
    /// Fetches what the shards need of a model that other nodes hold.
    pub(crate) async fn fetch(
        &self,
        model: &SwarmModel,
        loading: &watch::Sender<Loading>,
    ) -> Result<(), WorkerError> {
        let failed = |error| WorkerError::of_cut(model.path(), error);
        let header = Header::read_without_arrays(model.path()).map_err(|error| failed(error.into()))?;
        let places = places(&header, &self.model.cut, self.config.shard_id).map_err(failed)?;
        let mut progress = model.progress();
        let telling = async {
            let mut logged = Instant::now();
            // Also when nothing moves: then the log says so now and then.
            while !matches!(timeout(LOGGED_AT_LEAST, progress.changed()).await, Ok(Err(_))) {
                let now = *progress.borrow_and_update();
                let (percent, from) = (fetched_percent(now), now.fetching());
                tell(loading, Loading::Fetching { percent, from });
                if logged.elapsed() >= LOGGED_EVERY {
                    logged = Instant::now();
                    tracing::info!(
                        banner = status_words::loading_here(self.config.shard_id, percent, Some(from)),
                        shard = %self.config.shard_id,
                        state = "LOADING",
                        percent,
                        peers = from.peers,
                        bytes_per_second = from.bytes_per_second,
                        "fetching"
                    );
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            fetched = model.need(places) => fetched?,
            () = telling => {}
        }
        tell(loading, Loading::Percent(fetched_percent(*model.progress().borrow())));
        Ok(())
    }

    /// Loads and starts the engine; the result resolves when it stops.
    pub(crate) async fn run(
        self,
        loading: &watch::Sender<Loading>,
        engine: &watch::Sender<Option<EngineHandle>>,
        health: &Health,
    ) -> Result<oneshot::Receiver<()>, WorkerError> {
        let config = EngineConfig {
            model: self.model.path,
            shards: self.config.shard_id,
            total_shards: self.config.net.total_shards,
            shard_weights: self.config.shard_weights.clone(),
            precision: self.config.precision,
            backend: self.config.backend,
            device: self.config.device,
            kv_bytes: self.config.kv_memory.0,
            kv_type: self.config.kv_type,
            threads: self.config.thread_count(),
            threads_batch: self.config.batch_thread_count(),
        };
        let progress = loading.clone();
        // What was fetched stays told.
        let begun = match *loading.borrow() {
            Loading::Percent(percent) => percent,
            _ => 0,
        };
        let load = move || {
            let mut loaded =
                Engine::load(config, |percent| tell(&progress, Loading::Percent(begun.max(percent))))?;
            let speed = measure_speed(&mut loaded)?;
            Ok::<_, EngineError>((loaded, speed))
        };
        let (loaded, tokens_per_second) = on_own_thread(load).await??;
        let info = loaded.info().clone();
        self.metrics.weight_bytes.set(info.weight_bytes);
        let (handle, ended) = EngineHandle::start(loaded, self.config.batch_tokens as usize, self.metrics);
        engine.send_replace(Some(handle));
        health.set(shard_service::NAME, true).await;
        let weight_bytes = info.weight_bytes;
        loading.send_replace(Loading::Done { tokens_per_second, weight_bytes, is_stalled: false });
        tracing::info!(
            layers = %info.layers,
            weight_mib = info.weight_bytes >> 20,
            read_mib = info.bytes_read >> 20,
            tokens_per_second,
            "shards loaded"
        );
        Ok(ended)
    }
}

/// Runs long work on a thread that nobody waits for: the runtime would wait for its own before the process can end.
async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WorkerError> {
    let (answer, done) = oneshot::channel();
    // Nobody is interested any more when the worker ends meanwhile.
    let run = move || drop(answer.send(work()));
    std::thread::Builder::new().name("load".into()).spawn(run)?;
    done.await.map_err(|_| WorkerError::EngineStopped)
}

/// Tokens per second of one session through the engine, by a short run of its own.
fn measure_speed(engine: &mut Engine) -> Result<f32, EngineError> {
    const STEPS: u32 = 8;
    let info = engine.info().clone();
    let options = SlotOptions {
        shards: info.shards,
        prompt_tokens: 0,
        max_positions: STEPS.min(info.context_length),
        sampling: Some(SamplingParams::greedy()),
        grammar: None,
    };
    let slot = engine.open(options)?;
    let embeds = info.shards.start() == 0;
    let started = Instant::now();
    let mut steps = 0u32;
    for position in 0..STEPS.min(info.context_length) {
        let input = match embeds {
            true => vec![TokenId(0)].into(),
            false => StepInput::Activations { rows: 1, values: vec![0.1; info.hidden] },
        };
        let step = Step { position, input, samples: 1, ..Step::default() };
        for result in engine.run(&[(slot, step)]) {
            result?;
        }
        steps += 1;
    }
    let elapsed = started.elapsed().as_secs_f32();
    engine.close(slot);
    Ok(if elapsed > 0.0 { steps as f32 / elapsed } else { 0.0 })
}

/// Only news are told.
fn tell(loading: &watch::Sender<Loading>, new: Loading) {
    loading.send_if_modified(|now| std::mem::replace(now, new) != new);
}

fn fetched_percent(progress: Progress) -> u8 {
    let share = (progress.bytes_here * FETCHING).checked_div(progress.bytes_wanted);
    share.unwrap_or(0).min(FETCHING) as u8
}
