//! Measures our gateway beside another server of OpenAI's API: the same prompts in turns, over the same protocol.

mod answer;
mod endpoint;
mod rates;
mod report;
mod words;

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use indicatif::ProgressBar;

use super::{gateway::Measurement, progress::progress_style};
use crate::credentials::Credentials;
use answer::Answer;
use endpoint::{Api, Endpoint, Hints};
use report::{Line, Ran};
use words::{Lengths, words};

pub(super) use report::Report;

/// Words of the two prompts by whose tokens the length of a word is found.
const TRIED: (u32, u32) = (16, 64);

/// Our gateway and the other server.
pub(super) struct Pair {
    ours: Endpoint,
    other: Endpoint,
    /// How our gateway counts.
    lengths: Lengths,
}

/// What the requests of one step are.
#[derive(Clone, Copy)]
struct Load {
    requests: usize,
    words: u32,
    max_tokens: u32,
    seed: u64,
    timeout: Duration,
}

impl Pair {
    /// Finds both servers: what they serve and what of the API both have.
    ///
    /// # Errors
    /// When one is not there, or has not what a measurement needs.
    pub(super) async fn find(config: &super::Config, url: &str) -> Result<Self> {
        let flags = Hints { address: "--url", key: "--api-key", model: "--url" };
        let ours = Endpoint::find(config.credentials.http()?, url, None, flags).await?;
        let against = &config.other;
        let flags = Hints { address: "--against", key: "--against-key", model: "--against-model" };
        let http = Credentials::with_key(against.against_key.clone()).http().context("--against-key")?;
        let url = against.against.as_deref().unwrap_or_default();
        let other = Endpoint::find(http, url, against.against_model.clone(), flags).await?;
        Self::settled(ours, other).await
    }

    /// Both are asked by the same API, and are warm then.
    async fn settled(mut ours: Endpoint, mut other: Endpoint) -> Result<Self> {
        if !(ours.settle(Api::Completions).await? && other.settle(Api::Completions).await?) {
            ours.settle(Api::Chat).await?;
            other.settle(Api::Chat).await?;
        }
        let tokens = async |count: u32| {
            let answer = ours.ask(&words(count.into(), count), 1, Instant::now()).await?;
            anyhow::Ok((count, answer.prompt_tokens))
        };
        let lengths = Lengths::of(tokens(TRIED.0).await?, tokens(TRIED.1).await?);
        let lengths = lengths.with_context(|| ours.url().to_owned())?;
        Ok(Self { ours, other, lengths })
    }

    /// Measures, with progress on standard error. Tokens of prompts are counted by our tokenizer.
    ///
    /// # Errors
    /// When a server refuses or breaks off a request, or is not in time.
    pub(super) async fn measure(&self, measurement: &Measurement) -> Result<Report> {
        let Measurement { concurrency, rounds, .. } = measurement;
        let progress = ProgressBar::new(concurrency.len() as u64 * u64::from(*rounds));
        progress.set_style(progress_style());
        // A server that was measured before must not know the prompts.
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut seed = now.as_nanos() as u64;
        let mut results = vec![];
        for requests in concurrency.iter().copied() {
            let mut line = Line::new(requests);
            for round in 1..=*rounds {
                progress.set_message(format!("{requests} at once, round {round}"));
                seed = seed.wrapping_add(2);
                let (ours, other) = self.round(measurement, requests, seed).await?;
                line.add(ours, other);
                progress.inc(1);
            }
            results.push(line.summary());
        }
        progress.finish_and_clear();
        Ok(Report::new(measurement, [&self.ours, &self.other], results))
    }

    /// One round of both servers. Who goes first changes with the seed, so that a drift favours nobody.
    async fn round(&self, measurement: &Measurement, requests: usize, seed: u64) -> Result<(Ran, Ran)> {
        let Measurement { prompt_tokens, context, max_tokens, timeout, .. } = *measurement;
        let words = self.lengths.words_for(prompt_tokens);
        let prefill = Load { requests, words, max_tokens: 1, seed, timeout };
        let words = self.lengths.words_for(context);
        let decode = Load { words, max_tokens, seed: seed.wrapping_add(1), ..prefill };
        let other_first = (seed / 2).is_multiple_of(2);
        let (mut ours, mut other) = (Ran::default(), Ran::default());
        for load in [prefill, decode] {
            for is_other in [other_first, !other_first] {
                let (endpoint, ran) =
                    if is_other { (&self.other, &mut other) } else { (&self.ours, &mut ours) };
                let answers = load.run(endpoint).await?;
                match load.max_tokens {
                    1 => ran.prefilled = answers,
                    _ => ran.decoded = answers,
                }
            }
        }
        Ok((ours, other))
    }
}

impl Load {
    /// Sends all requests at once and waits for all answers.
    async fn run(self, endpoint: &Endpoint) -> Result<Vec<Answer>> {
        let start = Instant::now();
        let one = async |place: usize| {
            let prompt = words(self.seed.wrapping_mul(1_000_003).wrapping_add(place as u64), self.words);
            endpoint.ask(&prompt, self.max_tokens, start).await
        };
        let all = tokio::time::timeout(self.timeout, try_join_all((0..self.requests).map(one))).await;
        let (url, bound) = (endpoint.url(), self.timeout.as_secs());
        let answers =
            all.with_context(|| format!("{url} has not answered within {bound} s (--timeout)"))??;
        let silent = answers.iter().any(|answer| answer.completion_tokens == 0);
        ensure!(!silent, "{url} answered without a token, so nothing can be measured");
        Ok(answers)
    }
}
