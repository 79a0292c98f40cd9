//! Generations against workers that speak the real protocol.

mod fake;
mod kept;
mod waiting;

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use clap::Parser;
use futures::StreamExt;
use swarm_process::metrics::Registry;
use swarm_proto::RefusalCause;
use swarm_types::{Attempt, ReplicaState, SamplingParams, TargetScore, TokenId};
use tokio::time::{Instant, timeout};
use tracing::Span;

use self::fake::{FakeSwarm, Fault, continuation, score, worker};
use super::*;
use crate::{
    clients::Principal,
    record::{LogRequests, Record},
};

/// Nothing here takes so long unless it hangs.
const BOUND: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    config: GenerationConfig,
}

fn config() -> GenerationConfig {
    Flags::parse_from(["gateway", "--prefill-chunk", "4"]).config
}

fn generator(fakes: &FakeSwarm, config: GenerationConfig) -> Generator {
    Generator::new(fakes.swarm(), config, GenerationMetrics::new(&Registry::default(), "model"))
}

fn prompt(length: u32) -> Vec<TokenId> {
    (0..length).map(TokenId).collect()
}

fn request(prompt_tokens: u32, max_tokens: u32) -> GenerationRequest {
    GenerationRequest {
        principal: Principal::at(Ipv4Addr::LOCALHOST.into()),
        operation: Operation::TextCompletion,
        prompt: prompt(prompt_tokens),
        sampling: SamplingParams::greedy(),
        grammar: None,
        max_tokens,
        end_tokens: vec![],
        score_prompt: None,
        pools: false,
    }
}

/// All that came out of a generation.
#[derive(Default, Debug)]
struct Outcome {
    scores: Vec<TargetScore>,
    pooled: f64,
    tokens: Vec<GeneratedToken>,
    end: Option<Result<FinishReason, GenerationError>>,
}

impl Outcome {
    fn ids(&self) -> Vec<TokenId> {
        self.tokens.iter().map(|token| token.token).collect()
    }

    fn error(self) -> GenerationError {
        self.end.expect("an end").expect_err("an error")
    }
}

/// Reads a stream to its end.
async fn finish(mut stream: GenerationStream) -> Outcome {
    let mut outcome = Outcome::default();
    while let Some(event) = timeout(BOUND, stream.next()).await.expect("does not hang") {
        assert_eq!(outcome.end, None, "nothing comes after the end");
        match event {
            Ok(GenerationEvent::PromptScores(scores)) => outcome.scores.extend(scores),
            Ok(GenerationEvent::Pooled(sum)) => outcome.pooled += sum[0],
            Ok(GenerationEvent::Token(token)) => outcome.tokens.push(token),
            Ok(GenerationEvent::Finished(reason)) => outcome.end = Some(Ok(reason)),
            Err(error) => outcome.end = Some(Err(error)),
        }
    }
    outcome
}

async fn run(fakes: &FakeSwarm, request: GenerationRequest) -> Outcome {
    run_with(fakes, config(), request).await
}

async fn run_with(fakes: &FakeSwarm, config: GenerationConfig, request: GenerationRequest) -> Outcome {
    match timeout(BOUND, generator(fakes, config).start(request)).await.expect("does not hang") {
        Ok(stream) => finish(stream).await,
        Err(error) => Outcome { end: Some(Err(error)), ..Outcome::default() },
    }
}

#[track_caller]
fn continued_to_the_end(outcome: &Outcome, prompt_tokens: u32, max_tokens: usize) {
    assert_eq!(outcome.ids(), continuation(&prompt(prompt_tokens), max_tokens));
    assert_eq!(outcome.end, Some(Ok(FinishReason::Length)));
}

#[tokio::test]
async fn a_prompt_goes_down_in_chunks_and_its_continuation_comes_up() {
    let fakes = FakeSwarm::start(&[&["a"], &["b"], &["b"]], []).await;
    let outcome = run(&fakes, request(10, 5)).await;
    continued_to_the_end(&outcome, 10, 5);
    assert!(outcome.tokens.iter().all(|token| token.hops.len() == 2 && token.logprob.is_none()));
    assert_eq!(fakes.steps(), [(0, 4), (4, 4), (8, 2), (10, 1), (11, 1), (12, 1), (13, 1)]);

    let [open] = fakes.opened().try_into().expect("one attempt");
    assert_eq!((open.attempt, open.prompt_tokens, open.max_positions), (Attempt::FIRST, 10, 15));
    assert_eq!((open.hop.worker, open.cut.total_shards()), (worker("a"), 3));
    assert_eq!(open.below.len(), 1, "two shards on one worker are one hop");
    let mut left = fakes.open_sessions();
    timeout(BOUND, left.wait_for(|open| *open == 0)).await.expect("closed").expect("fakes live");
}

#[tokio::test]
async fn an_end_token_ends_the_generation_and_is_not_reported() {
    let fakes = FakeSwarm::start(&[&["a"]], []).await;
    let expected = continuation(&prompt(3), 4);
    let outcome = run(&fakes, GenerationRequest { end_tokens: vec![expected[3]], ..request(3, 50) }).await;
    assert_eq!(outcome.ids(), expected[..3]);
    assert_eq!(outcome.end, Some(Ok(FinishReason::End)));
}

#[tokio::test]
async fn prompt_tokens_are_scored_once_each_also_over_a_lost_hop() {
    let breaks = Fault::Breaks { at: 12 };
    for faults in [vec![], vec![breaks]] {
        let fakes = FakeSwarm::start(&[&["a", "b"]], faults).await;
        let sampling = SamplingParams { top_logprobs: Some(1), ..SamplingParams::greedy() };
        let outcome =
            run(&fakes, GenerationRequest { score_prompt: Some(3), sampling, ..request(14, 2) }).await;
        let targets: Vec<_> = outcome.scores.iter().map(|score| score.target.token).collect();
        assert_eq!(targets, prompt(14)[1..]);
        assert!(outcome.scores.iter().all(|s| s.top.len() == 3 && s.target.logprob == score(s.target.token)));
        assert!(outcome.tokens.iter().all(|t| t.top.len() == 1 && t.logprob == Some(score(t.token))));
        continued_to_the_end(&outcome, 14, 2);
    }
}

#[tokio::test]
async fn scoring_alone_generates_nothing() {
    let fakes = FakeSwarm::start(&[&["a"]], []).await;
    let outcome = run(&fakes, GenerationRequest { score_prompt: Some(0), ..request(6, 0) }).await;
    assert_eq!((outcome.scores.len(), outcome.tokens.len()), (5, 0));
    assert_eq!(outcome.end, Some(Ok(FinishReason::Length)));
}

#[tokio::test]
async fn four_chunks_are_under_way_at_once_and_not_more() {
    let fakes = FakeSwarm::start(&[&["a"]], [Fault::HoldsBack { steps: 4 }]).await;
    let outcome = run(&fakes, request(40, 2)).await;
    continued_to_the_end(&outcome, 40, 2);
    assert_eq!(fakes.most_held_back(), 4);
}

#[tokio::test]
async fn a_lost_hop_is_replaced_and_the_continuation_is_the_same() {
    let failing = Fault::HopFails { worker: worker("b1"), cause: RefusalCause::HopFailed, at: 9 };
    let cases = [
        (failing, ["a", "b2"]),
        (Fault::WrongPosition { at: 9 }, ["a", "b2"]),
        // When nobody is named, the hop whose stream ended is left alone for a moment.
        (Fault::Breaks { at: 9 }, ["a", "b1"]),
    ];
    for (fault, route) in cases {
        let fakes = FakeSwarm::start(&[&["a"], &["b1", "b2"]], [fault]).await;
        let outcome = run(&fakes, request(6, 8)).await;
        continued_to_the_end(&outcome, 6, 8);
        let [first, second] = fakes.opened().try_into().expect("two attempts");
        assert_eq!((first.attempt, second.attempt), (Attempt(1), Attempt(2)));
        assert_eq!(first.session, second.session);
        assert_eq!((second.prompt_tokens, second.max_positions), (6, 14));
        assert_eq!([second.hop.worker, second.below[0].worker.clone()], route.map(worker));
    }
}

#[tokio::test]
async fn a_hop_can_push_out_nobody_but_itself() {
    let named = |name: &str, cause| Fault::HopFails { worker: worker(name), cause, at: 9 };
    let cases = [
        // What it says of the hop above may be true or not.
        (named("b1", RefusalCause::WrongStep), ["a2", "b2"]),
        // Who is not on the route has not failed; whoever says so has.
        (named("c", RefusalCause::HopFailed), ["a2", "b1"]),
    ];
    for (fault, route) in cases {
        let fakes = FakeSwarm::start(&[&["a1", "a2"], &["b1", "b2"]], [fault]).await;
        continued_to_the_end(&run(&fakes, request(6, 8)).await, 6, 8);
        let [first, second] = fakes.opened().try_into().expect("two attempts");
        assert_eq!([first.hop.worker, first.below[0].worker.clone()], ["a1", "b1"].map(worker));
        assert_eq!([second.hop.worker, second.below[0].worker.clone()], route.map(worker));
        assert_eq!(first.gateway, fakes.swarm().id());
    }
}

#[tokio::test]
async fn the_last_hop_is_told_tokens_only_where_it_looks_at_them() {
    let penalty = SamplingParams { presence_penalty: 0.5, ..SamplingParams::greedy() };
    let cases = [
        (GenerationRequest { ..request(6, 8) }, 0, 0),
        (GenerationRequest { sampling: penalty, ..request(6, 8) }, 6, 9),
        // What was scored already is not scored again.
        (GenerationRequest { score_prompt: Some(1), ..request(6, 8) }, 6, 0),
    ];
    for (request, first, second) in cases {
        let fakes = FakeSwarm::start(&[&["a"], &["b"]], [Fault::Breaks { at: 9 }]).await;
        continued_to_the_end(&run(&fakes, request).await, 6, 8);
        let all = [prompt(6), continuation(&prompt(6), 8)].concat();
        let told: Vec<_> = fakes.told().into_iter().map(|wish| wish.tokens).collect();
        assert_eq!(told, [&all[..first], &all[..second]]);
    }
}

#[tokio::test]
async fn a_hop_that_goes_offline_is_left_at_once() {
    let fakes = FakeSwarm::start(&[&["a"], &["b1", "b2"]], [Fault::Silent { at: 9 }]).await;
    let mut stream = generator(&fakes, config()).start(request(6, 8)).await.expect("starts");
    for _ in 0..3 {
        assert!(matches!(stream.next().await, Some(Ok(GenerationEvent::Token(_)))));
    }
    fakes.set_state("b1", ReplicaState::Offline);
    let rest = finish(stream).await;
    assert_eq!(rest.ids(), continuation(&prompt(6), 8)[3..]);
    assert_eq!(rest.end, Some(Ok(FinishReason::Length)));
}

#[tokio::test]
async fn a_session_waits_for_a_replacement_to_load() {
    let lost = Fault::HopFails { worker: worker("b1"), cause: RefusalCause::HopFailed, at: 9 };
    let fakes = FakeSwarm::start(&[&["a"], &["b1", "b2"]], [lost]).await;
    fakes.set_state("b2", ReplicaState::Loading);
    let mut stream = generator(&fakes, config()).start(request(6, 8)).await.expect("starts");
    for _ in 0..2 {
        assert!(matches!(stream.next().await, Some(Ok(GenerationEvent::Token(_)))));
    }
    fakes.set_state("b1", ReplicaState::Offline);
    fakes.set_state("b2", ReplicaState::Loaded);
    let rest = finish(stream).await;
    assert_eq!(rest.ids(), continuation(&prompt(6), 8)[2..]);
    assert_eq!(rest.end, Some(Ok(FinishReason::Length)));
}

#[tokio::test]
async fn without_a_replacement_the_generation_ends_with_an_error() {
    let fakes = FakeSwarm::start(&[&["a"], &["b"]], [Fault::Silent { at: 9 }]).await;
    let config = GenerationConfig { recovery_timeout: Duration::from_millis(300), ..config() };
    let mut stream = generator(&fakes, config).start(request(6, 8)).await.expect("starts");
    assert!(matches!(stream.next().await, Some(Ok(GenerationEvent::Token(_)))));
    fakes.set_state("b", ReplicaState::Offline);
    let error = finish(stream).await.error();
    let GenerationError::HopFailed { worker: lost, message } = error else { panic!("{error}") };
    assert_eq!(lost, worker("b"));
    assert!(message.contains("shard 1 has no worker"), "{message}");
}

#[tokio::test]
async fn a_session_that_never_gets_further_is_given_up() {
    let fails = Fault::HopFails { worker: worker("a"), cause: RefusalCause::Internal, at: 1 };
    let fakes = FakeSwarm::start(&[&["a"]], vec![fails; 20]).await;
    let config = GenerationConfig { recovery_timeout: Duration::from_secs(1), ..config() };
    let error = run_with(&fakes, config, request(6, 8)).await.error();
    assert!(matches!(error, GenerationError::HopFailed { .. }), "{error}");
    let attempts = fakes.opened().len();
    assert!((2..5).contains(&attempts), "each after a longer time: {attempts}");
}

#[tokio::test]
async fn a_session_whose_only_worker_comes_and_goes_gets_on_when_it_stays() {
    // A piece of the prompt is answered each time.
    let fails = Fault::HopFails { worker: worker("a"), cause: RefusalCause::HopFailed, at: 5 };
    let fakes = FakeSwarm::start(&[&["a"]], vec![fails; 5]).await;
    let outcome = run(&fakes, request(6, 8)).await;
    continued_to_the_end(&outcome, 6, 8);
    assert_eq!(fakes.opened().len(), 6);
}

#[tokio::test]
async fn a_route_that_does_not_answer_is_left_after_the_step_timeout() {
    let fakes = FakeSwarm::start(&[&["a1", "a2"]], [Fault::Silent { at: 9 }]).await;
    let config = GenerationConfig { step_timeout: Duration::from_millis(200), ..config() };
    let outcome = run_with(&fakes, config.clone(), request(6, 8)).await;
    continued_to_the_end(&outcome, 6, 8);
    let hops: Vec<_> = fakes.opened().into_iter().map(|open| open.hop.worker).collect();
    assert_eq!(hops, [worker("a1"), worker("a2")]);

    let config = GenerationConfig { recovery_timeout: Duration::from_millis(100), ..config };
    let silent = FakeSwarm::start(&[&["a"]], vec![Fault::Silent { at: 9 }; 9]).await;
    let error = run_with(&silent, config, request(6, 8)).await.error();
    assert!(matches!(error, GenerationError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn answers_of_an_older_attempt_are_dropped() {
    let fakes = FakeSwarm::start(&[&["a", "b"]], [Fault::Breaks { at: 8 }, Fault::Stale]).await;
    continued_to_the_end(&run(&fakes, request(6, 8)).await, 6, 8);
}

#[tokio::test]
async fn a_dropped_stream_ends_the_session_on_its_hops() {
    let fakes = FakeSwarm::start(&[&["a"]], [Fault::Silent { at: 9 }]).await;
    let generator = generator(&fakes, GenerationConfig { max_generations: 1, max_queued: 0, ..config() });
    let mut stream = generator.start(request(6, 8)).await.expect("starts");
    assert!(matches!(stream.next().await, Some(Ok(GenerationEvent::Token(_)))));
    let full = generator.start(request(6, 8)).await.err();
    assert!(matches!(full, Some(GenerationError::Full { .. })), "{full:?}");
    let mut open = fakes.open_sessions();
    assert_eq!(*open.borrow_and_update(), 1);
    drop(stream);
    timeout(BOUND, open.wait_for(|open| *open == 0)).await.expect("closed").expect("fakes live");
    generator.drain(BOUND).await;
    let closed = generator.start(request(6, 8)).await.err();
    assert!(matches!(closed, Some(GenerationError::NotReady { .. })), "{closed:?}");
}

#[tokio::test]
async fn a_full_worker_is_gone_around_or_said_to_be_full() {
    let full = Fault::Refuses { cause: RefusalCause::Full, message: "no room" };
    let two = FakeSwarm::start(&[&["a", "b"]], [full.clone()]).await;
    continued_to_the_end(&run(&two, request(6, 3)).await, 6, 3);
    let one = FakeSwarm::start(&[&["a"]], [full]).await;
    let started = Instant::now();
    let error = run(&one, request(6, 3)).await.error();
    assert!(matches!(error, GenerationError::Full { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "at once, not after the recovery timeout");
}

#[tokio::test]
async fn what_a_retry_cannot_cure_is_not_retried() {
    let invalid = Fault::HopFails { worker: worker("a"), cause: RefusalCause::InvalidArgument, at: 1 };
    let fakes = FakeSwarm::start(&[&["a", "b"]], [invalid]).await;
    let error = run(&fakes, request(6, 3)).await.error();
    assert_eq!(error, GenerationError::invalid("prompt_tokens", "as the test has it"));
    assert_eq!(fakes.opened().len(), 1);
}

#[tokio::test]
async fn generations_are_measured_by_opentelemetrys_conventions_however_they_end() {
    let fails = Fault::HopFails { worker: worker("a"), cause: RefusalCause::Internal, at: 7 };
    let fakes = FakeSwarm::start(&[&["a"]], [fails]).await;
    let registry = Registry::default();
    let config = GenerationConfig { recovery_timeout: Duration::ZERO, ..config() };
    let generator = Generator::new(fakes.swarm(), config, GenerationMetrics::new(&registry, "model"));
    let shown = |what: &str, label: &str, value: &str| {
        let labels = "gen_ai_operation_name=\"text_completion\",gen_ai_provider_name=\"llama-swarm\",\
                      gen_ai_request_model=\"model\"";
        let (line, all) = (format!("gen_ai_{what}{{{labels}{label}}} {value}\n"), registry.encode());
        assert!(all.contains(&line), "no {line} in:\n{all}");
    };
    let start = |tokens| timeout(BOUND, generator.start(request(6, tokens)));

    finish(start(3).await.expect("in time").expect("begins")).await.error();
    shown("server_request_duration_seconds_count", ",error_type=\"hop_failed\"", "1");
    shown("client_token_usage_sum", ",gen_ai_token_type=\"output\"", "1.0");

    start(1000).await.expect("in time").err().expect("refused");
    shown("server_request_duration_seconds_count", ",error_type=\"context_length\"", "1");
    shown("client_token_usage_count", ",gen_ai_token_type=\"input\"", "1");

    continued_to_the_end(&finish(start(3).await.expect("in time").expect("begins")).await, 6, 3);
    shown("server_request_duration_seconds_count", ",error_type=\"\"", "1");
    shown("server_time_to_first_token_seconds_count", "", "1");
    shown("server_time_per_output_token_seconds_count", "", "1");
    shown("client_token_usage_sum", ",gen_ai_token_type=\"input\"", "12.0");
    shown("client_token_usage_sum", ",gen_ai_token_type=\"output\"", "4.0");

    // As at a stop string: nobody wants more of it.
    drop(start(300).await.expect("in time").expect("begins"));
    generator.drain(BOUND).await;
    shown("server_request_duration_seconds_count", ",error_type=\"\"", "2");
}

#[tokio::test]
async fn an_answer_ends_with_what_the_gateway_wanted_or_because_its_client_left() {
    let fakes = FakeSwarm::start(&[&["a"]], []).await;
    for (leaves, reason) in [(false, "stop"), (true, "cancelled")] {
        let registry = Registry::default();
        let generator = Generator::new(fakes.swarm(), config(), GenerationMetrics::new(&registry, "model"));
        let record = Record::new("r", "/", &Span::none(), LogRequests::Off);
        let begins = record.follow(timeout(BOUND, generator.start(request(6, 300)))).await;
        let mut stream = begins.expect("in time").expect("begins");
        stream.next().await.expect("a token").expect("fine");
        if leaves {
            record.left();
        }
        drop(stream);
        generator.drain(BOUND).await;
        let line = format!("llama_swarm_gateway_finished_total{{reason=\"{reason}\"}} 1\n");
        assert!(registry.encode().contains(&line), "no {line} in:\n{}", registry.encode());
    }
}

#[tokio::test]
async fn what_cannot_start_is_refused_by_cause() {
    let fakes = FakeSwarm::start(&[&["a"], &["b"]], []).await;
    fakes.set_state("b", ReplicaState::Loading);
    let generator = Arc::new(generator(&fakes, config()));
    let refusal = |request| {
        let generator = generator.clone();
        async move { generator.start(request).await.err().expect("refused") }
    };
    let not_ready = refusal(request(6, 8)).await;
    assert_eq!(not_ready.to_string(), "the swarm is not ready: shard 1 has only workers that are leaving");
    let cases = [
        (request(0, 8), "invalid", "prompt"),
        (request(399, 2), "context_length", "400"),
        (request(2, u32::MAX), "context_length", "400"),
        (GenerationRequest { score_prompt: Some(21), ..request(2, 1) }, "invalid", "score_prompt"),
        (
            GenerationRequest {
                sampling: SamplingParams { top_p: 0.0, ..SamplingParams::greedy() },
                ..request(2, 1)
            },
            "invalid",
            "top_p",
        ),
    ];
    for (request, cause, named) in cases {
        let error = refusal(request).await;
        assert_eq!(error.cause(), cause);
        assert!(error.to_string().contains(named), "{error}");
    }
}
