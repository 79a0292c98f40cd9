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
    load::prompt,
    progress::progress_style,
    table::{number, table},
};

/// Rows of one prefill call, spread over the sessions: as many as keep the products efficient.
const PREFILL_ROWS: usize = 512;
/// Decoding is measured after a prompt so short that it does not count.
const SHORT_PROMPT: u32 = 16;

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    /// What to load; `shards` is all there are.
    pub engine: EngineConfig,
    /// Sessions in one batch, one line each.
    pub batches: Vec<usize>,
    /// Length of the prompts of the prefill measurement.
    pub prompt_tokens: u32,
    /// Length of the continuations of the decode measurement.
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
    threads: usize,
    prompt_tokens: u32,
    max_tokens: u32,
    rounds: u32,
    load_seconds: f64,
    weight_bytes: u64,
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
        };
        Ok(Self {
            engine,
            batches: config.concurrency.clone(),
            prompt_tokens: config.prompt_tokens,
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
        let mut run = Run { engine, sessions: 0 };
        run.round(1, SHORT_PROMPT, 4)?;
        let mut results = vec![];
        for batch in self.batches.iter().copied() {
            results.push(self.line(&mut run, batch, &progress)?);
        }
        progress.finish_and_clear();
        let info = run.engine.info();
        Ok(Report {
            kind: "engine",
            version: env!("CARGO_PKG_VERSION"),
            model: info.name.clone(),
            precision: info.precision.to_string(),
            device: info.device.clone(),
            threads: self.engine.threads,
            prompt_tokens: self.prompt_tokens,
            max_tokens: self.max_tokens,
            rounds: self.rounds,
            load_seconds,
            weight_bytes: info.weight_bytes,
            results,
        })
    }

    fn line(&self, run: &mut Run, batch: usize, progress: &ProgressBar) -> Result<Line> {
        let (mut prefill, mut decode) = (vec![], vec![]);
        for round in 1..=self.rounds {
            progress.set_message(format!("{batch} at once, round {round}"));
            let (prefilled, _) = run.round(batch, self.prompt_tokens, 1)?;
            prefill.extend(rate(batch as f64 * f64::from(self.prompt_tokens), prefilled));
            let (_, decoded) = run.round(batch, SHORT_PROMPT, self.max_tokens)?;
            decode.extend(rate(batch as f64 * f64::from(self.max_tokens - 1), decoded));
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
}

impl Run {
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
            let options = SlotOptions {
                shards: ShardRange::new(0, 1)?,
                prompt_tokens,
                max_positions: prompt_tokens + max_tokens,
                sampling: Some(SamplingParams::greedy()),
            };
            let slot = self.engine.open(options)?;
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
            "{} ({}, {}), threads: {threads}, weights: {mib} MiB",
            self.model, self.precision, self.device
        )?;
        writeln!(
            f,
            "prefill: prompts of {} tokens; decode: {} tokens each",
            self.prompt_tokens, self.max_tokens
        )?;
        f.write_str(&table(&["batch", "prefill tok/s", "decode tok/s"], &rows))
    }
}
