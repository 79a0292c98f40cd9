//! Measures the engine alone: all layers in this process, no network, no gateway.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use indicatif::ProgressBar;
use serde::Serialize;
use shard_engine::{Engine, EngineConfig, EngineError, Slot, SlotOptions, StepResult};
use swarm_types::{SamplingParams, ShardRange, Step, StepKind, TokenId};

use super::{
    figures::{median, rate},
    floor::{Floor, Memory, Readings},
    load::prompt,
    processor,
    progress::progress_style,
    table::{number, table},
};

/// Rows of one prefill call, spread over the sessions: as many as keep the products efficient.
const PREFILL_ROWS: usize = 512;
/// What comes before the measurement.
const WARM_UP: u32 = 16;

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    /// What to load; `shards` is all there are.
    pub engine: EngineConfig,
    /// Sessions in one batch, one line each.
    pub batches: Vec<usize>,
    /// Length of the prompts of the prefill measurement.
    pub prompt_tokens: u32,
    /// Positions before the continuations of the decode measurement.
    pub context: u32,
    /// Length of these continuations.
    pub max_tokens: u32,
    /// Repetitions.
    pub rounds: u32,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    kind: &'static str,
    version: &'static str,
    model: String,
    precision: String,
    device: String,
    /// What the processor has.
    processor: Vec<&'static str>,
    /// Which of it kernels use.
    instructions: &'static str,
    threads: usize,
    prompt_tokens: u32,
    context: u32,
    max_tokens: u32,
    rounds: u32,
    load_seconds: f64,
    weight_bytes: u64,
    floor: Floor,
    results: Vec<Line>,
}

/// With one number of sessions in a batch.
#[derive(Debug, Serialize)]
struct Line {
    batch: usize,
    /// Median of the rounds, all sessions together.
    prefill_tokens_per_second: Option<f64>,
    /// Median of the rounds, all sessions together.
    decode_tokens_per_second: Option<f64>,
}

impl Measurement {
    /// An engine of the whole model in `model`, one shard.
    ///
    /// # Errors
    /// Never for one shard; the range type says so.
    pub(crate) fn whole(model: PathBuf, config: &super::Config) -> Result<Self> {
        let engine = EngineConfig {
            model,
            shards: ShardRange::new(0, 1)?,
            total_shards: 1,
            shard_weights: None,
            precision: config.swarm.precision(),
            backend: config.swarm.backend(),
            device: config.swarm.device(),
            // The measurement itself bounds its sessions.
            kv_bytes: 1 << 40,
            kv_type: config.swarm.kv_type(),
            threads: config.swarm.threads(),
            threads_batch: config.swarm.threads_batch().map_or(config.swarm.threads(), usize::from),
        };
        Ok(Self {
            engine,
            batches: config.concurrency.clone(),
            prompt_tokens: config.prompt_tokens,
            context: config.context,
            max_tokens: config.max_tokens,
            rounds: config.rounds,
        })
    }

    /// Measures, with progress on standard error. Blocks for as long as it takes.
    ///
    /// # Errors
    /// When the model cannot be loaded or a step fails.
    pub(crate) fn run(self) -> Result<Report> {
        let progress = ProgressBar::new(100).with_style(progress_style()).with_message("loading");
        let started = Instant::now();
        let engine = Engine::load(self.engine.clone(), |percent| progress.set_position(percent.into()))?;
        let load_seconds = started.elapsed().as_secs_f64();
        progress.set_length(self.batches.len() as u64 * u64::from(self.rounds));
        progress.set_position(0);
        let memory = Memory::new(self.engine.threads);
        let mut run = Run { engine, sessions: 0, memory, readings: Readings::default() };
        run.round(1, WARM_UP, 4)?;
        let mut results = vec![];
        for batch in self.batches.iter().copied() {
            results.push(self.line(&mut run, batch, &progress)?);
        }
        progress.finish_and_clear();
        let info = run.engine.info();
        let cache_bytes = run.engine.cache_bytes(&slot_options(self.context, self.max_tokens / 2)?)?;
        Ok(Report {
            kind: "engine",
            version: env!("CARGO_PKG_VERSION"),
            model: info.name.clone(),
            precision: info.precision.to_string(),
            device: info.device.clone(),
            processor: processor::features(),
            instructions: info.instructions,
            threads: self.engine.threads,
            prompt_tokens: self.prompt_tokens,
            context: self.context,
            max_tokens: self.max_tokens,
            rounds: self.rounds,
            load_seconds,
            weight_bytes: info.weight_bytes,
            floor: run.readings.floor(info.bytes_per_token, cache_bytes),
            results,
        })
    }

    fn line(&self, run: &mut Run, batch: usize, progress: &ProgressBar) -> Result<Line> {
        let (mut prefill, mut decode) = (vec![], vec![]);
        for round in 1..=self.rounds {
            progress.set_message(format!("{batch} at once, round {round}"));
            let (prefilled, _) = run.round(batch, self.prompt_tokens, 1)?;
            prefill.extend(rate(batch as f64 * f64::from(self.prompt_tokens), prefilled));
            decode.extend(run.decode(batch, self.context, self.max_tokens)?);
            progress.inc(1);
        }
        Ok(Line {
            batch,
            prefill_tokens_per_second: median(&prefill),
            decode_tokens_per_second: median(&decode),
        })
    }
}

struct Run {
    engine: Engine,
    /// Opened so far: each has a prompt of its own.
    sessions: u64,
    memory: Memory,
    readings: Readings,
}

impl Run {
    /// Tokens per second of a batch of sessions behind so many positions, and how fast memory was before and after.
    fn decode(&mut self, batch: usize, context: u32, max_tokens: u32) -> Result<Option<f64>> {
        let before = self.readings.take(&self.memory);
        let (_, decoded) = self.round(batch, context, max_tokens)?;
        let after = self.readings.take(&self.memory);
        let rate = rate(batch as f64 * f64::from(max_tokens - 1), decoded);
        if let (1, Some(rate)) = (batch, rate) {
            let cache_bytes = self.engine.cache_bytes(&slot_options(context, max_tokens / 2)?)?;
            let bytes = self.engine.info().bytes_per_token + cache_bytes;
            self.readings.decoded(rate, bytes, [before, after]);
        }
        Ok(rate)
    }

    /// Prefills a batch of sessions, then decodes `max_tokens` for each; how long both took. The first token falls out
    /// of the prefill.
    fn round(&mut self, batch: usize, prompt_tokens: u32, max_tokens: u32) -> Result<(Duration, Duration)> {
        let sessions = self.open(batch, prompt_tokens, max_tokens)?;
        let started = Instant::now();
        let mut tokens = self.prefill(&sessions, prompt_tokens)?;
        let prefilled = started.elapsed();
        for position in prompt_tokens..prompt_tokens + max_tokens - 1 {
            let kind = StepKind::Decode;
            let step = |token: &TokenId| Step {
                kind,
                position,
                input: vec![*token].into(),
                samples: 1,
                ..Step::default()
            };
            let steps = sessions.iter().zip(&tokens).map(|((slot, _), token)| (*slot, step(token)));
            tokens = sampled(self.engine.run(&steps.collect::<Vec<_>>()))?;
        }
        let decoded = started.elapsed() - prefilled;
        for (slot, _) in &sessions {
            self.engine.close(*slot);
        }
        Ok((prefilled, decoded))
    }

    fn open(&mut self, batch: usize, prompt_tokens: u32, max_tokens: u32) -> Result<Vec<(Slot, Vec<u32>)>> {
        let open = |_| {
            self.sessions += 1;
            let slot = self.engine.open(slot_options(prompt_tokens, max_tokens)?)?;
            Ok((slot, prompt(self.sessions, prompt_tokens)))
        };
        (0..batch).map(open).collect()
    }

    /// Runs all prompts in chunks, those of all sessions together; gives each session's first token.
    fn prefill(&mut self, sessions: &[(Slot, Vec<u32>)], prompt_tokens: u32) -> Result<Vec<TokenId>> {
        let chunk = (PREFILL_ROWS / sessions.len()).max(1);
        let mut position = 0;
        loop {
            let step = |prompt: &[u32]| {
                let rows = prompt[position..].iter().take(chunk);
                Step {
                    position: position as u32,
                    input: rows.copied().map(TokenId).collect::<Vec<_>>().into(),
                    samples: u32::from(position + chunk >= prompt.len()),
                    ..Step::default()
                }
            };
            let steps: Vec<_> = sessions.iter().map(|(slot, prompt)| (*slot, step(prompt))).collect();
            let results = self.engine.run(&steps);
            position += chunk;
            if position >= prompt_tokens as usize {
                return sampled(results);
            }
            results.into_iter().collect::<Result<Vec<_>, _>>()?;
        }
    }
}

fn slot_options(prompt_tokens: u32, max_tokens: u32) -> Result<SlotOptions> {
    Ok(SlotOptions {
        shards: ShardRange::new(0, 1)?,
        prompt_tokens,
        max_positions: prompt_tokens.saturating_add(max_tokens),
        sampling: Some(SamplingParams::greedy()),
        grammar: None,
    })
}

fn sampled(results: Vec<Result<StepResult, EngineError>>) -> Result<Vec<TokenId>> {
    let token = |result: Result<_, EngineError>| match result {
        Ok(StepResult::Output(output)) => {
            output.tokens.first().map(|sampled| sampled.token).context("the engine sampled no token")
        }
        Ok(StepResult::Activations(_)) => Err(anyhow!("the engine did not reach the last layer")),
        Err(error) => Err(error.into()),
    };
    results.into_iter().map(token).collect()
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let row = |line: &Line| {
            let rates = [line.prefill_tokens_per_second, line.decode_tokens_per_second];
            [line.batch.to_string()].into_iter().chain(rates.map(number)).collect()
        };
        let rows: Vec<_> = self.results.iter().map(row).collect();
        let (threads, mib) = (self.threads, self.weight_bytes >> 20);
        writeln!(
            f,
            "{} ({}, {}), threads: {threads}, weights: {mib} MiB, loaded in {:.2} s",
            self.model, self.precision, self.device, self.load_seconds
        )?;
        writeln!(f, "processor: {}; kernels: {}", self.processor.join(", "), self.instructions)?;
        write!(f, "{}", self.floor)?;
        writeln!(
            f,
            "prefill: prompts of {} tokens; decode: {} tokens each behind {}",
            self.prompt_tokens, self.max_tokens, self.context
        )?;
        f.write_str(&table(&["batch", "prefill tok/s", "decode tok/s"], &rows))
    }
}
