//! Measures a running swarm through its gateway.

use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde::Serialize;
use swarm_proto::wire::{ListModelsRequest, inference_service_client::InferenceServiceClient};
use swarm_types::visible;

use super::{
    figures::{Spread, Timeline, decode_rate, median, prefill_rate},
    load::{Answered, Load},
    progress::progress_style,
    table::{number, table},
};
use crate::node::Channel;

/// Prompt and answer of the request that comes before the measurement, in tokens.
const WARM_UP: (u32, u32) = (16, 8);

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    /// Requests at once, one line each.
    pub concurrency: Vec<usize>,
    /// Length of the prompts of the prefill measurement.
    pub prompt_tokens: u32,
    /// Positions before the continuations of the decode measurement.
    pub context: u32,
    /// Length of these continuations.
    pub max_tokens: u32,
    /// Repetitions.
    pub rounds: u32,
    /// Longest time for the requests of one step.
    pub timeout: Duration,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    kind: &'static str,
    version: &'static str,
    model: String,
    hops: usize,
    prompt_tokens: u32,
    context: u32,
    max_tokens: u32,
    rounds: u32,
    results: Vec<Line>,
}

/// At one number of requests at once.
#[derive(Debug, Serialize)]
struct Line {
    requests: usize,
    /// Median of the rounds, all requests together.
    prefill_tokens_per_second: Option<f64>,
    /// Median of the rounds, all requests together.
    decode_tokens_per_second: Option<f64>,
    /// Of all requests of all rounds.
    time_to_first_token_ms: Option<Spread>,
    /// Of all decode steps of all rounds.
    hop_overhead_us: Option<Spread>,
}

impl Measurement {
    /// Measures, with progress on standard error.
    ///
    /// # Errors
    /// When the gateway refuses or breaks off a request.
    pub(crate) async fn run(&self, channel: &Channel) -> Result<Report> {
        let model = model(channel).await?;
        let steps = self.concurrency.len() as u64 * u64::from(self.rounds) * 2 + 1;
        let progress = ProgressBar::new(steps).with_message("warming up");
        progress.set_style(progress_style());
        let mut run = Run { channel, measurement: self, progress, seed: 0 };
        run.step(1, WARM_UP.0, WARM_UP.1).await?;
        let (mut results, mut hops) = (vec![], 0);
        for requests in self.concurrency.iter().copied() {
            let (line, hops_seen) = run.line(requests).await?;
            results.push(line);
            hops = hops.max(hops_seen);
        }
        run.progress.finish_and_clear();
        Ok(Report {
            kind: "gateway",
            version: env!("CARGO_PKG_VERSION"),
            model,
            hops,
            prompt_tokens: self.prompt_tokens,
            context: self.context,
            max_tokens: self.max_tokens,
            rounds: self.rounds,
            results,
        })
    }
}

/// The name of the model that the gateway serves.
pub(super) async fn model(channel: &Channel) -> Result<String> {
    let answer = InferenceServiceClient::new(channel.clone()).list_models(ListModelsRequest {}).await?;
    let model = answer.into_inner().models.into_iter().next().context("the gateway serves no model yet")?;
    Ok(model.id)
}

struct Run<'a> {
    channel: &'a Channel,
    measurement: &'a Measurement,
    progress: ProgressBar,
    seed: u64,
}

impl Run<'_> {
    async fn line(&mut self, requests: usize) -> Result<(Line, usize)> {
        let (mut prefill, mut decode) = (vec![], vec![]);
        let (mut first_ms, mut overheads, mut hops) = (vec![], vec![], 0);
        let Measurement { prompt_tokens, context, max_tokens, .. } = *self.measurement;
        for round in 1..=self.measurement.rounds {
            self.progress.set_message(format!("{requests} at once, round {round}: prefill"));
            let timelines = timelines(self.step(requests, prompt_tokens, 1).await?);
            prefill.extend(prefill_rate(&timelines, prompt_tokens));
            first_ms.extend(timelines.iter().filter_map(first_token_ms));

            self.progress.set_message(format!("{requests} at once, round {round}: decode"));
            let answers = self.step(requests, context, max_tokens).await?;
            overheads.extend(answers.iter().flat_map(|answer| answer.overheads_us.iter().copied()));
            hops = answers.iter().map(|answer| answer.hops).max().unwrap_or(hops);
            decode.extend(decode_rate(&self::timelines(answers)));
        }
        let line = Line {
            requests,
            prefill_tokens_per_second: median(&prefill),
            decode_tokens_per_second: median(&decode),
            time_to_first_token_ms: Spread::of(&first_ms),
            hop_overhead_us: Spread::of(&overheads),
        };
        Ok((line, hops))
    }

    async fn step(&mut self, requests: usize, prompt_tokens: u32, max_tokens: u32) -> Result<Vec<Answered>> {
        self.seed += 1;
        let timeout = self.measurement.timeout;
        let load = Load { requests, prompt_tokens, max_tokens, seed: self.seed, timeout };
        let answers = load.run(self.channel).await;
        self.progress.inc(1);
        answers
    }
}

fn timelines(answers: Vec<Answered>) -> Vec<Timeline> {
    answers.into_iter().map(|answer| answer.timeline).collect()
}

pub(super) fn first_token_ms(timeline: &Timeline) -> Option<f64> {
    let first = *timeline.tokens.first()?;
    Some((first - timeline.sent).as_secs_f64() * 1e3)
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let heads = [
            "requests",
            "prefill tok/s",
            "decode tok/s",
            "first token ms p50",
            "p99",
            "overhead µs/hop p50",
            "p99",
        ];
        let row = |line: &Line| {
            let (first, overhead) = (line.time_to_first_token_ms, line.hop_overhead_us);
            let numbers = [
                line.prefill_tokens_per_second,
                line.decode_tokens_per_second,
                first.map(|spread| spread.p50),
                first.map(|spread| spread.p99),
                overhead.map(|spread| spread.p50),
                overhead.map(|spread| spread.p99),
            ];
            [line.requests.to_string()].into_iter().chain(numbers.map(number)).collect()
        };
        let rows: Vec<_> = self.results.iter().map(row).collect();
        let model = visible::one_line(&self.model);
        writeln!(f, "{model} over {} hops, {} rounds", self.hops, self.rounds)?;
        writeln!(
            f,
            "prefill: prompts of {} tokens; decode: {} tokens each behind {}",
            self.prompt_tokens, self.max_tokens, self.context
        )?;
        f.write_str(&table(&heads, &rows))
    }
}
