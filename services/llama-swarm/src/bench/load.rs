//! Requests to a gateway over gRPC, some at once, with the time of every token.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use swarm_proto::wire::{
    ChunkToken, GenerateRequest, Grammar, SamplingParams, TokenIds, generate_request::Input,
    generate_response::Event, inference_service_client::InferenceServiceClient,
};

use super::figures::{Timeline, hop_overhead_us};
use crate::node::Channel;

/// Every tokenizer has ordinary tokens from here on: below are control tokens and single bytes.
const FIRST_TOKEN: u32 = 40;
/// So many different tokens make prompts differ; a larger vocabulary is not needed.
const TOKENS: u32 = 200;

/// Requests that are sent at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// How many.
    pub requests: usize,
    /// Length of each prompt.
    pub prompt_tokens: u32,
    /// Length of each continuation, whatever the model would like.
    pub max_tokens: u32,
    /// No two requests with different seeds have the same prompt.
    pub seed: u64,
    /// Longest time for all of them.
    pub timeout: Duration,
}

/// How one request was answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered {
    /// When its tokens came.
    pub timeline: Timeline,
    /// Software overhead of each one-way trip, of each decode step, in µs.
    pub overheads_us: Vec<f64>,
    /// Hops of its route.
    pub hops: usize,
}

impl Load {
    /// Sends all requests at once and waits for all answers.
    ///
    /// # Errors
    /// When one is refused, is broken off, or is not complete in time.
    pub(crate) async fn run(self, channel: &Channel) -> Result<Vec<Answered>> {
        self.run_held_to(channel, None).await
    }

    /// The same; each answer is held to a grammar, if one is given.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) async fn run_held_to(
        self,
        channel: &Channel,
        grammar: Option<Grammar>,
    ) -> Result<Vec<Answered>> {
        let start = Instant::now();
        let requests = (0..self.requests).map(|place| {
            let request = GenerateRequest { grammar: grammar.clone(), ..self.request(place) };
            self.one(channel.clone(), request, start)
        });
        let all = tokio::time::timeout(self.timeout, try_join_all(requests)).await;
        all.with_context(|| format!("not answered within {} s (--timeout)", self.timeout.as_secs()))?
    }

    async fn one(self, channel: Channel, request: GenerateRequest, start: Instant) -> Result<Answered> {
        let mut client = InferenceServiceClient::new(channel);
        let mut answered = Answered::default();
        answered.timeline.sent = start.elapsed();
        let mut events = client.generate(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            let Some(Event::Chunk(chunk)) = event.event else { continue };
            let at = start.elapsed();
            for token in chunk.tokens {
                answered.on_token(&token, at);
            }
        }
        let tokens = answered.timeline.tokens.len();
        ensure!(tokens == self.max_tokens as usize, "{tokens} tokens came, not {}", self.max_tokens);
        Ok(answered)
    }

    fn request(self, place: usize) -> GenerateRequest {
        let ids = prompt(self.seed.wrapping_mul(1_000_003).wrapping_add(place as u64), self.prompt_tokens);
        GenerateRequest {
            input: Some(Input::PromptTokens(TokenIds { ids })),
            sampling: Some(SamplingParams { temperature: Some(0.0), ..SamplingParams::default() }),
            max_tokens: Some(self.max_tokens),
            ignore_eos: true,
            ..GenerateRequest::default()
        }
    }
}

impl Answered {
    /// The first token's round trip holds the prompt, whose chunks overlap on the hops, so it says nothing of hops.
    fn on_token(&mut self, token: &ChunkToken, at: Duration) {
        if !self.timeline.tokens.is_empty() {
            let hops: Vec<_> = token.hops.iter().map(|hop| (hop.queue_us, hop.compute_us)).collect();
            self.overheads_us.extend(hop_overhead_us(token.round_trip_us, &hops));
            self.hops = hops.len();
        }
        self.timeline.tokens.push(at);
    }
}

/// Different numbers for different seeds, by the SplitMix64 generator (<https://prng.di.unimi.it/splitmix64.c>).
pub(crate) fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Different tokens for different seeds.
pub(crate) fn prompt(seed: u64, tokens: u32) -> Vec<u32> {
    let mut next = random(seed);
    (0..tokens).map(|_| FIRST_TOKEN + (next() % u64::from(TOKENS)) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_requests_of_a_measurement_share_a_prompt() {
        let mut prompts: Vec<_> = (0..500).map(|seed| prompt(seed, 16)).collect();
        prompts.sort();
        prompts.dedup();
        assert_eq!(prompts.len(), 500);
        assert_eq!(prompt(7, 16), prompt(7, 16));
    }
}
