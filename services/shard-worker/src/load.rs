//! The way from a model's file to a running engine.

use std::{path::PathBuf, time::Instant};

use shard_engine::{Engine, EngineConfig, EngineError, SlotOptions};
use swarm_process::grpc::Health;
use swarm_types::{SamplingParams, Step, StepInput, TokenId};
use tokio::sync::{oneshot, watch};

use crate::{
    Config, WorkerError, engine_thread::EngineHandle, metrics::Metrics, offer::Loading, shard_service,
};

/// The way from a file to a running engine.
pub(crate) struct Load {
    pub(crate) config: Config,
    pub(crate) model: PathBuf,
    pub(crate) metrics: Metrics,
}

impl Load {
    /// Loads and starts the engine; the result resolves when it stops.
    pub(crate) async fn run(
        self,
        loading: &watch::Sender<Loading>,
        engine: &watch::Sender<Option<EngineHandle>>,
        health: &Health,
    ) -> Result<oneshot::Receiver<()>, WorkerError> {
        let config = EngineConfig {
            model: self.model,
            shards: self.config.shard_id,
            total_shards: self.config.net.total_shards,
            shard_weights: self.config.shard_weights.clone(),
            precision: self.config.precision,
            backend: self.config.backend,
            device: self.config.device,
            kv_bytes: self.config.kv_memory.0,
            kv_type: self.config.kv_type,
            threads: self.config.thread_count(),
        };
        let progress = loading.clone();
        let load = move || {
            let mut loaded = Engine::load(config, |percent| {
                progress.send_if_modified(|now| {
                    let new = Loading::Percent(percent);
                    std::mem::replace(now, new) != new
                });
            })?;
            let speed = measure_speed(&mut loaded)?;
            Ok::<_, EngineError>((loaded, speed))
        };
        let (loaded, tokens_per_second) = on_own_thread(load).await??;
        let info = loaded.info().clone();
        self.metrics.weight_bytes.set(info.weight_bytes);
        let (handle, ended) = EngineHandle::start(loaded, self.config.batch_tokens as usize, self.metrics);
        engine.send_replace(Some(handle));
        health.set(shard_service::NAME, true).await;
        loading.send_replace(Loading::Done { tokens_per_second, weight_bytes: info.weight_bytes });
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
