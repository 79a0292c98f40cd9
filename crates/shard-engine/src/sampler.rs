//! From logits to a token.

use std::collections::{BTreeMap, btree_map::Entry};

use swarm_types::{SamplingParams, TokenId, TokenLogprob};

use crate::kernels::math::double::{exp, ln};

/// The tokens seen, as far as penalties look at them: position after position, so that the last can be unseen.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// In order, and whether it was generated.
    tokens: Vec<(TokenId, bool)>,
    /// How often a token was seen, and how often of these generated. Never (0, 0).
    counts: BTreeMap<TokenId, (u32, u32)>,
}

impl History {
    /// How many tokens were seen.
    pub(crate) fn len(&self) -> u32 {
        self.tokens.len() as u32
    }

    pub(crate) fn add(&mut self, token: TokenId, generated: bool) {
        let (seen, made) = self.counts.entry(token).or_default();
        *seen += 1;
        *made += u32::from(generated);
        self.tokens.push((token, generated));
    }

    /// Unsees what came after the first `count` tokens.
    pub(crate) fn truncate(&mut self, count: u32) {
        while self.len() > count {
            let Some((token, generated)) = self.tokens.pop() else { return };
            let Entry::Occupied(mut entry) = self.counts.entry(token) else { continue };
            let (seen, made) = entry.get_mut();
            *seen -= 1;
            *made -= u32::from(generated);
            if *seen == 0 {
                entry.remove();
            }
        }
    }
}

/// What a token is sampled for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Of the token.
    pub position: u32,
    /// Fewer tokens than `min_tokens` are before it.
    pub is_early: bool,
}

/// Picks the token for a place. A pure function of its arguments; the logits are finite.
///
/// In f64, where no bias, penalty or temperature that is allowed makes anything of a finite f32 overflow.
pub(crate) fn sample(logits: &[f32], params: &SamplingParams, history: &History, place: Place) -> TokenId {
    let draw = Draw { share: uniform(params.seed, place.position), ends: !place.is_early };
    pick(logits, params, history, draw, &|_| true).unwrap_or(TokenId(0))
}

/// The same among the tokens that are allowed, with other randomness. None when there is none.
pub(crate) fn sample_among(
    logits: &[f32],
    params: &SamplingParams,
    history: &History,
    place: Place,
    allowed: &dyn Fn(TokenId) -> bool,
) -> Option<TokenId> {
    let share = uniform(mix(params.seed), place.position);
    let among = |ends| pick(logits, params, history, Draw { share, ends }, allowed);
    // A text that can only end does so, however short it is.
    let longer = if place.is_early { among(false) } else { None };
    longer.or_else(|| among(true))
}

/// How a token is drawn.
#[derive(Clone, Copy)]
struct Draw {
    /// Uniform in [0, 1).
    share: f64,
    /// Whether the tokens that end a text may be.
    ends: bool,
}

fn pick(
    logits: &[f32],
    params: &SamplingParams,
    history: &History,
    draw: Draw,
    allowed: &dyn Fn(TokenId) -> bool,
) -> Option<TokenId> {
    let mut logits: Vec<f64> = logits.iter().copied().map(f64::from).collect();
    adjust(&mut logits, params, history);
    let ends = if draw.ends { &[][..] } else { &params.end_tokens };
    for end in ends {
        if let Some(logit) = logits.get_mut(end.0 as usize) {
            *logit = f64::NEG_INFINITY;
        }
    }
    let may_be = |(token, logit): &(TokenId, f64)| *logit > f64::NEG_INFINITY && allowed(*token);
    let numbered = (0u32..).map(TokenId).zip(logits).filter(may_be);
    if params.temperature == 0.0 {
        return likeliest(numbered);
    }
    let candidates = candidates(numbered.collect(), params);
    let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
    let mut left = draw.share * total;
    for (token, weight) in &candidates {
        left -= weight;
        if left < 0.0 {
            return Some(*token);
        }
    }
    // Rounding may leave a little over.
    candidates.last().map(|(token, _)| *token)
}

fn adjust(logits: &mut [f64], params: &SamplingParams, history: &History) {
    for (token, bias) in &params.logit_bias {
        if let Some(logit) = logits.get_mut(token.0 as usize) {
            *logit += f64::from(*bias);
        }
    }
    if !params.uses_history() {
        return;
    }
    let repetition = f64::from(params.repetition_penalty);
    let (frequency, presence) = (f64::from(params.frequency_penalty), f64::from(params.presence_penalty));
    for (token, (_, generated)) in &history.counts {
        let Some(logit) = logits.get_mut(token.0 as usize) else { continue };
        *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
        if *generated > 0 {
            *logit -= f64::from(*generated) * frequency + presence;
        }
    }
}

/// The largest logit's token; of equals the first.
fn likeliest(logits: impl Iterator<Item = (TokenId, f64)>) -> Option<TokenId> {
    let mut best: Option<(TokenId, f64)> = None;
    for (token, logit) in logits {
        if best.is_none_or(|(_, most)| logit > most) {
            best = Some((token, logit));
        }
    }
    best.map(|(token, _)| token)
}

/// The tokens that may be picked with their weights; by falling weight when any filter is on.
fn candidates(mut list: Vec<(TokenId, f64)>, params: &SamplingParams) -> Vec<(TokenId, f64)> {
    let falling = |a: &(TokenId, f64), b: &(TokenId, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let keep = params.top_k as usize;
    if keep > 0 && keep < list.len() {
        list.select_nth_unstable_by(keep - 1, falling);
        list.truncate(keep);
    }
    if keep > 0 || params.top_p < 1.0 || params.min_p > 0.0 {
        list.sort_unstable_by(falling);
    }
    let largest = list.iter().map(|(_, logit)| *logit).fold(f64::NEG_INFINITY, f64::max);
    // The difference first: a logit divided by a tiny temperature is infinite, and all of those are equal.
    let temperature = f64::from(params.temperature);
    list.iter_mut().for_each(|(_, logit)| *logit = exp((*logit - largest) / temperature));
    if params.top_p < 1.0 {
        keep_share(&mut list, f64::from(params.top_p));
    }
    if params.min_p > 0.0 {
        list.retain(|(_, weight)| *weight >= f64::from(params.min_p));
    }
    list
}

/// Keeps the first of a list by falling weight that together have this share of the whole.
fn keep_share(list: &mut Vec<(TokenId, f64)>, share: f64) {
    let total: f64 = list.iter().map(|(_, weight)| weight).sum();
    let mut sum = 0.0;
    let enough = list.iter().position(|(_, weight)| {
        sum += weight;
        sum >= total * share
    });
    list.truncate(enough.map_or(list.len(), |place| place + 1));
}

/// Uniform in [0, 1), from seed and position alone: SplitMix64's output function (Steele, Lea, Flood, "Fast splittable
/// pseudorandom number generators", 2014), applied twice so that neighbouring positions and seeds share nothing.
fn uniform(seed: u64, position: u32) -> f64 {
    let state = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let bits = mix(state.wrapping_add(u64::from(position).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Log-probabilities under the model itself, before bias, penalties and temperature.
#[derive(Debug)]
pub(crate) struct Logprobs<'a> {
    logits: &'a [f32],
    normalizer: f64,
}

impl<'a> Logprobs<'a> {
    pub(crate) fn new(logits: &'a [f32]) -> Self {
        let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|logit| exp(f64::from(*logit) - largest)).sum();
        Self { logits, normalizer: largest + ln(sum) }
    }

    pub(crate) fn of(&self, token: TokenId) -> f32 {
        let logit = self.logits.get(token.0 as usize).copied().unwrap_or(f32::NEG_INFINITY);
        (f64::from(logit) - self.normalizer) as f32
    }

    /// The likeliest tokens, likeliest first.
    pub(crate) fn top(&self, count: usize) -> Vec<TokenLogprob> {
        let falling =
            |a: &u32, b: &u32| self.logits[*b as usize].total_cmp(&self.logits[*a as usize]).then(a.cmp(b));
        let mut ids: Vec<u32> = (0..self.logits.len() as u32).collect();
        let count = count.min(ids.len());
        if count > 0 && count < ids.len() {
            ids.select_nth_unstable_by(count - 1, falling);
        }
        ids.truncate(count);
        ids.sort_unstable_by(falling);
        ids.into_iter().map(|id| TokenLogprob { token: TokenId(id), logprob: self.of(TokenId(id)) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, -1.0];

    fn at(position: u32) -> Place {
        Place { position, is_early: false }
    }

    fn picked(params: &SamplingParams, history: &History) -> Vec<u32> {
        let mut ids: Vec<u32> =
            (0..2000).map(|position| sample(&LOGITS, params, history, at(position)).0).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn params() -> SamplingParams {
        SamplingParams { seed: 11, ..SamplingParams::default() }
    }

    #[test]
    fn tokens_come_as_often_as_the_model_has_them() {
        let count = 20_000;
        let mut seen = [0u32; 4];
        for position in 0..count {
            seen[sample(&LOGITS, &params(), &History::default(), at(position)).0 as usize] += 1;
        }
        let logprobs = Logprobs::new(&LOGITS);
        for (id, seen) in seen.into_iter().enumerate() {
            let expected = f64::from(logprobs.of(TokenId(id as u32))).exp();
            let got = f64::from(seen) / f64::from(count);
            assert!((got - expected).abs() < 0.015, "token {id}: {got} for {expected}");
        }
    }

    #[test]
    fn what_is_drawn_again_comes_as_often_as_if_nothing_else_had_been_there() {
        let (count, none) = (20_000, History::default());
        let allowed = |token: TokenId| token.0.is_multiple_of(2);
        let mut seen = [0u32; 4];
        for position in 0..count {
            let liked = sample(&LOGITS, &params(), &none, at(position));
            let drawn = || sample_among(&LOGITS, &params(), &none, at(position), &allowed);
            let token = if allowed(liked) { Some(liked) } else { drawn() };
            seen[token.expect("some are allowed").0 as usize] += 1;
        }
        let expected = 1.0 / (1.0 + (1.0_f64 - 2.0).exp());
        let got = f64::from(seen[2]) / f64::from(count);
        assert!((got - expected).abs() < 0.015 && seen[1] + seen[3] == 0, "{got} for {expected}: {seen:?}");
        assert_eq!(sample_among(&LOGITS, &params(), &none, at(0), &|_| false), None);
    }

    #[test]
    fn a_text_does_not_end_before_its_least_length_unless_it_can_only_end() {
        let none = History::default();
        let params = SamplingParams { end_tokens: vec![TokenId(1)], ..SamplingParams::greedy() };
        let early = Place { position: 0, is_early: true };
        assert_eq!(sample(&LOGITS, &params, &none, early), TokenId(2));
        assert_eq!(sample(&LOGITS, &params, &none, at(0)), TokenId(1));
        let among = |allowed: &dyn Fn(TokenId) -> bool| sample_among(&LOGITS, &params, &none, early, allowed);
        assert_eq!(among(&|token| token.0 < 2), Some(TokenId(0)));
        assert_eq!(among(&|token| token.0 == 1), Some(TokenId(1)));
    }

    #[test]
    fn filters_keep_the_likeliest_only() {
        let none = History::default();
        assert_eq!(picked(&params(), &none), [0, 1, 2, 3]);
        assert_eq!(picked(&SamplingParams { top_k: 2, ..params() }, &none), [1, 2]);
        assert_eq!(picked(&SamplingParams { top_p: 0.7, ..params() }, &none), [1, 2]);
        assert_eq!(picked(&SamplingParams { top_p: 0.1, ..params() }, &none), [1]);
        assert_eq!(picked(&SamplingParams { min_p: 0.1, ..params() }, &none), [0, 1, 2]);
        assert_eq!(picked(&SamplingParams { temperature: 0.0, ..params() }, &none), [1]);
    }

    #[test]
    fn penalties_and_bias_change_the_greedy_choice() {
        let mut history = History::default();
        history.add(TokenId(1), false);
        let greedy = |change: fn(&mut SamplingParams), history: &History| {
            let mut params = SamplingParams::greedy();
            change(&mut params);
            sample(&LOGITS, &params, history, at(0)).0
        };
        assert_eq!(greedy(|p| p.repetition_penalty = 2.0, &history), 2, "3 / 2 is below 2");
        assert_eq!(greedy(|p| p.presence_penalty = 1.5, &history), 1, "a prompt's token is not generated");
        history.add(TokenId(1), true);
        assert_eq!(greedy(|p| p.presence_penalty = 1.5, &history), 2);
        assert_eq!(greedy(|p| p.frequency_penalty = 0.6, &history), 1, "once is not enough");
        history.add(TokenId(1), true);
        assert_eq!(greedy(|p| p.frequency_penalty = 0.6, &history), 2);
        assert_eq!(greedy(|p| p.logit_bias = BTreeMap::from([(TokenId(3), 50.0)]), &history), 3);
        assert_eq!(greedy(|p| p.logit_bias = BTreeMap::from([(TokenId(99), 50.0)]), &history), 1);
    }

    #[test]
    fn a_history_that_goes_back_is_as_if_the_rest_had_never_been() {
        let seen = |tokens: &[u32]| {
            let mut history = History::default();
            (0..).zip(tokens).for_each(|(place, token)| history.add(TokenId(*token), place >= 2));
            history
        };
        let mut history = seen(&[1, 2, 1, 3, 3, 2]);
        for (count, left) in [(6, &[1, 2, 1, 3, 3, 2][..]), (4, &[1, 2, 1, 3]), (2, &[1, 2]), (0, &[])] {
            history.truncate(count);
            assert_eq!((history.len(), &history.counts), (count, &seen(left).counts));
        }
    }

    #[test]
    fn the_smallest_temperature_and_penalty_still_follow_the_logits() {
        let none = History::default();
        for temperature in [1e-38, f32::MIN_POSITIVE, 1e-45, 1e-3] {
            assert_eq!(picked(&SamplingParams { temperature, ..params() }, &none), [1], "{temperature}");
        }
        let mut history = History::default();
        history.add(TokenId(0), true);
        let penalty = SamplingParams { repetition_penalty: 0.01, ..SamplingParams::greedy() };
        let large = [f32::MAX / 2.0, f32::MAX, 0.0, -f32::MAX];
        assert_eq!(sample(&LOGITS, &penalty, &history, at(0)), TokenId(0), "1 / 0.01 is above 3");
        assert_eq!(sample(&large, &penalty, &history, at(0)), TokenId(0));
        let warm = SamplingParams { temperature: 1.0, ..penalty };
        assert_eq!(sample(&large, &warm, &history, at(0)), TokenId(0));
    }

    #[test]
    fn the_same_seed_and_position_give_the_same_token() {
        let run = |seed| {
            let params = SamplingParams { seed, ..SamplingParams::default() };
            (0..64)
                .map(|position| sample(&LOGITS, &params, &History::default(), at(position)).0)
                .collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }

    #[test]
    fn logprobs_sum_to_one_and_come_likeliest_first() {
        let logprobs = Logprobs::new(&LOGITS);
        let top = logprobs.top(9);
        assert_eq!(top.iter().map(|t| t.token.0).collect::<Vec<_>>(), [1, 2, 0, 3]);
        let sum: f64 = top.iter().map(|t| f64::from(t.logprob).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert!(logprobs.top(0).is_empty());
    }
}
