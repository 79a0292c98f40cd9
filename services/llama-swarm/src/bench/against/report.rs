//! The figures of two servers side by side.

use serde::Serialize;
use swarm_types::visible;

use super::{
    super::{
        figures::{Spread, median},
        gateway::Measurement,
        table::{number, table},
    },
    answer::Answer,
    endpoint::Endpoint,
    rates,
};

/// What was measured.
#[derive(Debug, Serialize)]
pub(in crate::bench) struct Report {
    kind: &'static str,
    version: &'static str,
    ours: Server,
    other: Server,
    prompt_tokens: u32,
    context: u32,
    max_tokens: u32,
    rounds: u32,
    results: Vec<Summary>,
}

#[derive(Debug, Serialize)]
struct Server {
    url: String,
    model: String,
}

/// A server's answers in one round.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// To prompts whose prefill is measured: one token each.
    pub prefilled: Vec<Answer>,
    /// Whose decoding is measured.
    pub decoded: Vec<Answer>,
}

/// With one number of requests at once, round by round.
#[derive(Debug)]
pub(super) struct Line {
    requests: usize,
    ours: Rounds,
    other: Rounds,
}

/// The figures of one server, a number for each round or each answer.
#[derive(Debug, Default)]
struct Rounds {
    prefill: Vec<Option<f64>>,
    decode: Vec<Option<f64>>,
    all: Vec<Option<f64>>,
    first_token_ms: Vec<Vec<f64>>,
    prompt_tokens: Vec<f64>,
    cached_tokens: u64,
    answer_tokens: Vec<f64>,
}

/// With one number of requests at once.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    requests: usize,
    ours: Figures,
    other: Figures,
    ratios: Ratios,
}

/// Of one server. Rates are medians of the rounds, all requests together.
#[derive(Debug, Serialize)]
struct Figures {
    prefill_tokens_per_second: Option<f64>,
    decode_tokens_per_second: Option<f64>,
    /// Answered tokens over the whole time of the decode step, its prompts included.
    all_tokens_per_second: Option<f64>,
    /// Of the prompts whose prefill is measured, all of all rounds.
    time_to_first_token_ms: Option<Spread>,
    /// Median length of these prompts, by the server's own count.
    prompt_tokens: Option<f64>,
    /// How many tokens of prompts it took from a cache in all, by its own count.
    cached_tokens: u64,
    /// Median length of the answers whose decoding is measured.
    answer_tokens: Option<f64>,
}

/// Ours to the other's: medians of the rounds' ratios.
#[derive(Debug, Serialize)]
struct Ratios {
    prefill: Option<f64>,
    decode: Option<f64>,
    all: Option<f64>,
    /// Of the medians of a round; below 1 where we are faster.
    first_token: Option<f64>,
}

impl Line {
    /// No round yet.
    pub(super) fn new(requests: usize) -> Self {
        Self { requests, ours: Rounds::default(), other: Rounds::default() }
    }

    /// One round of both.
    pub(super) fn add(&mut self, ours: Ran, other: Ran) {
        self.ours.add(&ours);
        self.other.add(&other);
    }

    /// The figures of all rounds.
    pub(super) fn summary(&self) -> Summary {
        let (ours, other) = (&self.ours, &self.other);
        let ratios = Ratios {
            prefill: ratio(&ours.prefill, &other.prefill),
            decode: ratio(&ours.decode, &other.decode),
            all: ratio(&ours.all, &other.all),
            first_token: ratio(&ours.first_tokens(), &other.first_tokens()),
        };
        Summary { requests: self.requests, ours: ours.figures(), other: other.figures(), ratios }
    }
}

impl Rounds {
    fn add(&mut self, ran: &Ran) {
        let first_ms = |answer: &Answer| (answer.first_token() - answer.sent).as_secs_f64() * 1e3;
        self.prefill.push(rates::prefill(&ran.prefilled));
        self.first_token_ms.push(ran.prefilled.iter().map(first_ms).collect());
        self.prompt_tokens.extend(ran.prefilled.iter().map(|answer| f64::from(answer.prompt_tokens)));
        self.decode.push(rates::decode(&ran.decoded));
        self.all.push(rates::all(&ran.decoded));
        self.answer_tokens.extend(ran.decoded.iter().map(|answer| f64::from(answer.completion_tokens)));
        let all = ran.prefilled.iter().chain(&ran.decoded);
        self.cached_tokens += all.map(|answer| u64::from(answer.cached_tokens)).sum::<u64>();
    }

    /// Median of each round.
    fn first_tokens(&self) -> Vec<Option<f64>> {
        self.first_token_ms.iter().map(|round| median(round)).collect()
    }

    fn figures(&self) -> Figures {
        Figures {
            prefill_tokens_per_second: known(&self.prefill),
            decode_tokens_per_second: known(&self.decode),
            all_tokens_per_second: known(&self.all),
            time_to_first_token_ms: Spread::of(&self.first_token_ms.concat()),
            prompt_tokens: median(&self.prompt_tokens),
            cached_tokens: self.cached_tokens,
            answer_tokens: median(&self.answer_tokens),
        }
    }
}

/// Median of the rounds in which there was such a number.
fn known(rounds: &[Option<f64>]) -> Option<f64> {
    median(&rounds.iter().flatten().copied().collect::<Vec<_>>())
}

/// Median of the ratios of the rounds in which both have a number.
fn ratio(ours: &[Option<f64>], other: &[Option<f64>]) -> Option<f64> {
    let ratios: Vec<_> = ours.iter().zip(other).map(|(ours, other)| Some((*ours)? / (*other)?)).collect();
    known(&ratios)
}

impl Report {
    /// What a measurement came to.
    pub(super) fn new(
        measurement: &Measurement,
        [ours, other]: [&Endpoint; 2],
        results: Vec<Summary>,
    ) -> Self {
        let server = |endpoint: &Endpoint| Server {
            url: endpoint.url().to_owned(),
            model: endpoint.model().to_owned(),
        };
        Self {
            kind: "against",
            version: env!("CARGO_PKG_VERSION"),
            ours: server(ours),
            other: server(other),
            prompt_tokens: measurement.prompt_tokens,
            context: measurement.context,
            max_tokens: measurement.max_tokens,
            rounds: measurement.rounds,
            results,
        }
    }

    /// What makes the figures of a server other than they seem.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = vec![];
        for (name, figures) in [
            ("our gateway", self.results.iter().map(|line| &line.ours).collect::<Vec<_>>()),
            ("the other server", self.results.iter().map(|line| &line.other).collect()),
        ] {
            let cached: u64 = figures.iter().map(|figures| figures.cached_tokens).sum();
            if cached > 0 {
                remarks.push(format!("{name} took {cached} tokens of prompts from a cache"));
            }
            let asked = f64::from(self.max_tokens);
            if figures.iter().any(|figures| figures.answer_tokens.is_some_and(|tokens| tokens != asked)) {
                remarks.push(format!("{name} did not give as many tokens as it was asked for"));
            }
        }
        remarks
    }
}

impl Summary {
    /// Ours, the other's, the ratio.
    fn rows(&self) -> [Vec<String>; 3] {
        let row = |name: &str, figures: &Figures| {
            let first = figures.time_to_first_token_ms;
            let numbers = [
                figures.prefill_tokens_per_second,
                figures.decode_tokens_per_second,
                figures.all_tokens_per_second,
                first.map(|spread| spread.p50),
                first.map(|spread| spread.p99),
                figures.prompt_tokens,
                figures.answer_tokens,
            ];
            [self.requests.to_string(), name.into()].into_iter().chain(numbers.map(number)).collect()
        };
        let Ratios { prefill, decode, all, first_token } = self.ratios;
        let ratio = |ratio: Option<f64>| ratio.map_or("–".into(), |ratio| format!("{ratio:.2} ×"));
        let ratios = [prefill, decode, all, first_token].map(ratio);
        let ratios = [String::new(), "ratio".into()].into_iter().chain(ratios).collect();
        [row("ours", &self.ours), row("other", &self.other), ratios]
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let heads = [
            "requests",
            "",
            "prefill tok/s",
            "decode tok/s",
            "all tok/s",
            "first token ms p50",
            "p99",
            "prompt tokens",
            "answer tokens",
        ];
        for (name, server) in [("ours", &self.ours), ("other", &self.other)] {
            let (url, model) = (visible::one_line(&server.url), visible::one_line(&server.model));
            writeln!(f, "{name}: {model} at {url}")?;
        }
        writeln!(
            f,
            "{} rounds in turns; prefill: prompts of {} tokens; decode: {} tokens each behind {}",
            self.rounds, self.prompt_tokens, self.max_tokens, self.context
        )?;
        let rows: Vec<_> = self.results.iter().flat_map(Summary::rows).collect();
        f.write_str(&table(&heads, &rows))?;
        self.remarks().iter().try_for_each(|remark| write!(f, "\n{remark}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Two tokens, so many milliseconds apart.
    fn answer(apart: u64) -> Answer {
        Answer {
            pieces: vec![Duration::from_millis(apart), Duration::from_millis(2 * apart)],
            ended: Duration::from_millis(2 * apart),
            prompt_tokens: 100,
            completion_tokens: 2,
            ..Answer::default()
        }
    }

    fn ran(apart: u64) -> Ran {
        Ran { prefilled: vec![answer(apart)], decoded: vec![answer(apart)] }
    }

    #[test]
    fn ratios_are_those_of_rounds_and_not_of_medians() {
        let mut line = Line::new(1);
        for (ours, other) in [(10, 20), (100, 100), (30, 90)] {
            line.add(ran(ours), ran(other));
        }
        let summary = line.summary();
        assert_eq!(summary.ratios.decode, Some(2.0), "of 2, 1 and 3");
        assert_eq!(summary.ratios.first_token, Some(0.5));
        let median = summary.ours.decode_tokens_per_second.expect("there is one");
        assert!((median - 1000.0 / 30.0).abs() < 1e-9, "{median}");
        assert_eq!((summary.ours.prompt_tokens, summary.ours.answer_tokens), (Some(100.0), Some(2.0)));
    }

    #[test]
    fn a_round_that_has_no_number_counts_for_neither() {
        assert_eq!(ratio(&[Some(4.0), None, Some(9.0)], &[Some(2.0), Some(5.0), None]), Some(2.0));
        assert_eq!(ratio(&[None], &[Some(1.0)]), None);
    }
}
