//! What it costs to hold answers to a JSON Schema: the same load with and without it, in turns.

use std::time::Duration;

use anyhow::Result;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;
use swarm_proto::wire::{Grammar, grammar::Kind};
use swarm_types::visible;

use super::{
    figures::{Timeline, decode_rate, median},
    gateway::{Measurement, first_token_ms, model},
    load::Load,
    progress::progress_style,
    table::{number, table},
};
use crate::node::Channel;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    kind: &'static str,
    version: &'static str,
    model: String,
    context: u32,
    max_tokens: u32,
    rounds: u32,
    /// Of the very first request with the schema, in ms: it is made ready for the model's tokens.
    first_use_ms: Option<f64>,
    results: Vec<Line>,
}

/// At one number of requests at once. Medians of the rounds.
#[derive(Debug, Serialize)]
struct Line {
    requests: usize,
    plain_tokens_per_second: Option<f64>,
    structured_tokens_per_second: Option<f64>,
    /// Structured over plain, of each round.
    ratio: Option<f64>,
    plain_first_token_ms: Option<f64>,
    structured_first_token_ms: Option<f64>,
}

/// A document by it does not come to its end in any number of tokens that is measured.
fn schema() -> String {
    let name = json!({"type": "string", "minLength": 3, "maxLength": 24});
    let part = json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,4}$"});
    let row = json!({
        "type": "object",
        "properties": {
            "name": name,
            "part": part,
            "count": {"type": "integer", "minimum": 0, "maximum": 1000},
            "colour": {"enum": ["red", "green", "blue"]},
            "tags": {"type": "array", "items": name, "maxItems": 3},
        },
        "required": ["name", "part", "count", "colour", "tags"],
        "additionalProperties": false,
    });
    json!({"type": "array", "minItems": 100_000, "items": row}).to_string()
}

/// Measures, with progress on standard error.
///
/// # Errors
/// When the gateway refuses or breaks off a request.
pub(crate) async fn measure(measurement: &Measurement, channel: &Channel) -> Result<Report> {
    let model = model(channel).await?;
    let rounds = measurement.rounds;
    let progress = ProgressBar::new(measurement.concurrency.len() as u64 * u64::from(rounds) * 2);
    progress.set_style(progress_style());
    let mut run = Run { channel, measurement, seed: 0 };
    run.step(1, false).await?;
    let first_use = run.step(1, true).await?;
    let mut results = vec![];
    for requests in measurement.concurrency.iter().copied() {
        let mut sides = [Side::default(), Side::default()];
        for round in 0..rounds {
            // Whoever goes first has the cooler processor.
            for structured in [round % 2 == 1, round % 2 == 0] {
                progress.set_message(format!("{requests} at once, round {}", round + 1));
                let timelines = run.step(requests, structured).await?;
                sides[usize::from(structured)].add(&timelines);
                progress.inc(1);
            }
        }
        results.push(line(requests, &sides));
    }
    progress.finish_and_clear();
    Ok(Report {
        kind: "structured",
        version: env!("CARGO_PKG_VERSION"),
        model,
        context: measurement.context,
        max_tokens: measurement.max_tokens,
        rounds,
        first_use_ms: first_use.iter().find_map(first_token_ms),
        results,
    })
}

/// One way to answer, round after round.
#[derive(Default)]
struct Side {
    rates: Vec<f64>,
    first_ms: Vec<f64>,
}

impl Side {
    fn add(&mut self, timelines: &[Timeline]) {
        self.rates.extend(decode_rate(timelines));
        self.first_ms.extend(timelines.iter().filter_map(first_token_ms));
    }
}

fn line(requests: usize, [plain, structured]: &[Side; 2]) -> Line {
    let ratios: Vec<f64> =
        structured.rates.iter().zip(&plain.rates).map(|(with, without)| with / without).collect();
    Line {
        requests,
        plain_tokens_per_second: median(&plain.rates),
        structured_tokens_per_second: median(&structured.rates),
        ratio: median(&ratios),
        plain_first_token_ms: median(&plain.first_ms),
        structured_first_token_ms: median(&structured.first_ms),
    }
}

struct Run<'a> {
    channel: &'a Channel,
    measurement: &'a Measurement,
    seed: u64,
}

impl Run<'_> {
    async fn step(&mut self, requests: usize, structured: bool) -> Result<Vec<Timeline>> {
        self.seed += 1;
        let Measurement { context, max_tokens, timeout, .. } = *self.measurement;
        let timeout: Duration = timeout;
        let load = Load { requests, prompt_tokens: context, max_tokens, seed: self.seed, timeout };
        let grammar = structured.then(|| Grammar { kind: Some(Kind::JsonSchema(schema())) });
        let answers = load.run_held_to(self.channel, grammar).await?;
        Ok(answers.into_iter().map(|answer| answer.timeline).collect())
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let heads =
            ["requests", "plain tok/s", "structured tok/s", "ratio", "plain first token ms", "structured"];
        let row = |line: &Line| {
            let numbers = [
                line.plain_tokens_per_second,
                line.structured_tokens_per_second,
                line.ratio,
                line.plain_first_token_ms,
                line.structured_first_token_ms,
            ];
            [line.requests.to_string()].into_iter().chain(numbers.map(number)).collect()
        };
        let rows: Vec<_> = self.results.iter().map(row).collect();
        let model = visible::one_line(&self.model);
        writeln!(
            f,
            "{model}, {} tokens each behind {}, {} rounds",
            self.max_tokens, self.context, self.rounds
        )?;
        writeln!(f, "the schema's first use: first token after {} ms", number(self.first_use_ms))?;
        f.write_str(&table(&heads, &rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let plain = Side { rates: vec![100.0, 50.0, 10.0], first_ms: vec![1.0] };
        let structured = Side { rates: vec![90.0, 45.0, 9.5], first_ms: vec![2.0] };
        let line = line(8, &[plain, structured]);
        assert_eq!((line.ratio, line.plain_tokens_per_second), (Some(0.9), Some(50.0)));
        assert!(schema().starts_with('{'));
    }
}
