//! What goes over the wire is read back as it was, and what breaks a rule is refused by field.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use swarm_types::{SampledToken, StepInput, StepKind, TargetScore, TokenLogprob};

use super::*;
use crate::step::{MAX_STEP_ROWS, activations_from_bytes, activations_to_bytes};

fn open() -> OpenSession {
    let hop = |start, end| Hop {
        worker: "12D3KooWa".parse().expect("valid"),
        shards: ShardRange::new(start, end).expect("valid"),
    };
    OpenSession {
        session: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().expect("valid"),
        attempt: Attempt(2),
        gateway: "12D3KooWg".parse().expect("valid"),
        model_digest: ModelDigest([3; 32]),
        precision: Precision::Exact,
        cut: Cut::from_ends((1..=8).map(|end| 4 * end).collect()).expect("valid"),
        hop: hop(2, 4),
        below: vec![hop(4, 8)],
        prompt_tokens: 5,
        max_positions: 100,
    }
}

/// To the first hop.
fn step() -> Step {
    Step {
        kind: StepKind::Decode,
        position: 9,
        input: vec![TokenId(1), TokenId(2)].into(),
        samples: 2,
        scores: 1,
        pools: true,
        rebuilds: false,
        timings: vec![],
    }
}

/// To a hop further down.
fn step_below() -> Step {
    let values = vec![0.5, -1.0, f32::MIN_POSITIVE, 3e8];
    Step { input: StepInput::Activations { rows: 2, values }, ..step() }
}

fn collect(session: SessionId, attempt: u32) -> CollectSession {
    CollectSession {
        session,
        attempt: Attempt(attempt),
        sampling: SamplingParams { seed: 7, ..SamplingParams::greedy() },
        grammar: Some(Grammar::JsonSchema(r#"{"type": "object"}"#.into())),
        tokens: vec![TokenId(5), TokenId(u32::MAX)],
    }
}

#[test]
fn messages_along_a_route_are_read_back_as_sent() {
    let again = Step { samples: 0, scores: 0, pools: false, rebuilds: true, ..step_below() };
    let steps = [step(), step_below(), again].map(ToHop::Step);
    for message in steps.into_iter().chain([ToHop::Open(Box::new(open())), ToHop::End]) {
        assert_eq!(ToHop::try_from(wire::ForwardRequest::from(message.clone())), Ok(message));
    }
    let refusal = Refusal::new(RefusalCause::Full, "no room");
    let failed = HopFailure { worker: "12D3KooWa".parse().expect("valid"), refusal };
    let opened = Opened { positions: 7, below: 9, replays: 3 };
    for message in [FromBelow::Opened(opened), FromBelow::Failed(failed)] {
        assert_eq!(FromBelow::try_from(wire::ForwardResponse::from(message.clone())), Ok(message));
    }
}

#[test]
fn what_breaks_an_invariant_is_refused_by_field() {
    let refused = |change: fn(&mut wire::OpenSession)| {
        let mut wrong = wire::OpenSession::from(open());
        change(&mut wrong);
        OpenSession::try_from(wrong).expect_err("refused")
    };
    assert_eq!(refused(|o| o.protocol_version = PROTOCOL_VERSION - 1).cause, RefusalCause::ProtocolVersion);
    assert_eq!(refused(|o| o.protocol_version = PROTOCOL_VERSION + 1).cause, RefusalCause::ProtocolVersion);
    let named = [
        (refused(|o| o.session_id = "x".into()), "session_id"),
        (refused(|o| o.attempt = 0), "attempt"),
        (refused(|o| o.gateway.clear()), "gateway"),
        (refused(|o| o.model_digest.clear()), "model_digest"),
        (refused(|o| o.precision = "half".into()), "precision"),
        (refused(|o| o.hops.clear()), "hops"),
        (refused(|o| o.hops[1].first_shard = 5), "hops"),
        (refused(|o| o.total_shards = 9), "hops"),
        (refused(|o| o.layer_ends.clear()), "layer_ends"),
        (refused(|o| o.layer_ends.push(32)), "layer_ends"),
        (refused(|o| o.layer_ends[3] = 24), "layer_ends"),
        (refused(|o| o.max_positions = 4), "max_positions"),
    ];
    for (refusal, field) in named {
        assert_eq!(refusal.field.as_deref(), Some(field), "{refusal}");
    }
    let wish = wire::CollectRequest::from(collect(open().session, 1));
    let refused = |wish: wire::CollectRequest| CollectSession::try_from(wish).expect_err("refused").field;
    assert_eq!(refused(wire::CollectRequest { sampling: None, ..wish.clone() }).as_deref(), Some("sampling"));
    assert_eq!(
        refused(wire::CollectRequest { protocol_version: 2, ..wish }).as_deref(),
        Some("protocol_version")
    );
}

#[test]
fn a_step_has_tokens_or_activations_and_as_many_rows_as_it_says() {
    let refused = |of: fn() -> Step, change: fn(&mut wire::Step)| {
        let mut wrong = wire::Step::from(of());
        change(&mut wrong);
        Step::try_from(wrong).expect_err("refused").field
    };
    assert_eq!(refused(step, |s| s.tokens.clear()), "tokens");
    assert_eq!(refused(step, |s| s.tokens = vec![0; MAX_STEP_ROWS + 1]), "tokens");
    assert_eq!(refused(step, |s| s.activations = Bytes::from_static(b"abcd")), "tokens");
    assert_eq!(refused(step, |s| s.rows = 2), "tokens");
    assert_eq!(refused(step_below, |s| s.tokens = vec![1, 2]), "tokens");
    assert_eq!(refused(step_below, |s| s.rows = 0), "rows");
    assert_eq!(refused(step_below, |s| s.rows = MAX_STEP_ROWS as u32 + 1), "rows");
    assert_eq!(refused(step_below, |s| s.rows = 3), "activations");
    assert_eq!(refused(step_below, |s| s.activations = Bytes::new()), "activations");
    assert_eq!(refused(step_below, |s| s.activations = Bytes::from_static(b"abc")), "activations");
    for of in [step, step_below] {
        assert_eq!(refused(of, |s| s.scores = 3), "scores");
        assert_eq!(refused(of, |s| s.samples = 3), "samples");
        assert_eq!(refused(of, |s| s.kind = 0), "kind");
        assert_eq!(refused(of, |s| s.kind = 9), "kind");
    }
}

fn sampled() -> StepOutput {
    let likely = |token, logprob| TokenLogprob { token: TokenId(token), logprob };
    let first =
        SampledToken { token: TokenId(7), logprob: Some(-0.5), top: vec![likely(7, -0.5), likely(3, -2.0)] };
    let second = SampledToken { token: TokenId(8), logprob: None, top: vec![] };
    let scores = vec![TargetScore { target: likely(1, -3.0), top: vec![] }];
    StepOutput { position: 9, tokens: vec![first, second], scores, pooled: vec![0.5, -1.0], timings: vec![] }
}

#[test]
fn outputs_are_read_back_as_sent() {
    let progress = StepOutput { tokens: vec![], ..sampled() };
    let messages = [
        FromHop::Accepted(None),
        FromHop::Accepted(Some(sampled())),
        FromHop::Output(sampled()),
        FromHop::Output(progress),
    ];
    for message in messages {
        let wire = message.clone().into_wire(Attempt(3));
        assert_eq!(<(Attempt, FromHop)>::try_from(wire), Ok((Attempt(3), message)));
    }
}

#[test]
fn log_probabilities_that_cannot_be_are_refused_wherever_they_stand() {
    let read = |change: &dyn Fn(&mut wire::Output)| {
        let mut output = wire::Output::from(sampled());
        change(&mut output);
        let message = Some(wire::collect_response::Message::Output(output));
        <(Attempt, FromHop)>::try_from(wire::CollectResponse { attempt: 1, message })
    };
    for wrong in [f32::NAN, f32::INFINITY, 0.01] {
        let refused = [
            read(&|output| output.tokens[0].logprob = Some(wrong)),
            read(&|output| output.tokens[0].top[1].logprob = wrong),
            read(&|output| output.scores[0].target.as_mut().expect("there").logprob = wrong),
            read(&|output| output.scores[0].top = vec![wire::TokenLogprob { token: 1, logprob: wrong }]),
        ];
        assert!(refused.iter().all(|r| r.as_ref().is_err_and(|error| error.field == "logprob")));
    }
    let rounded = read(&|output| output.tokens[0].logprob = Some(1e-6));
    let (_, FromHop::Output(output)) = rounded.expect("rounding is forgiven") else { panic!("an output") };
    assert_eq!(output.tokens[0].logprob, Some(0.0));
}

proptest! {
    #[test]
    fn failures_and_wishes_are_read_back_as_sent(
        number in 0u128..u128::MAX,
        attempt in 1u32..,
        cause in 0..RefusalCause::ALL.len(),
        message in ".{0,40}",
        field in proptest::option::of(".{1,40}"),
    ) {
        let id = format!("{number:032x}");
        let session = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
        let collect = collect(session.parse().expect("a UUID"), attempt);
        prop_assert_eq!(CollectSession::try_from(wire::CollectRequest::from(collect.clone())), Ok(collect));
        let refusal = Refusal { cause: RefusalCause::ALL[cause], field, message };
        let failure = HopFailure { worker: "12D3KooWa".parse().expect("valid"), refusal };
        prop_assert_eq!(HopFailure::try_from(wire::HopFailed::from(failure.clone())), Ok(failure));
    }

    #[test]
    fn arbitrary_failures_and_wishes_are_refused_or_converted_but_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..128),
        text in ".{0,40}",
        numbers in any::<(u32, u32, i32)>(),
    ) {
        if let Ok(failed) = wire::HopFailed::decode(bytes.as_slice()) {
            let _ = HopFailure::try_from(failed);
        }
        if let Ok(collect) = wire::CollectRequest::decode(bytes.as_slice()) {
            let _ = CollectSession::try_from(collect);
        }
        let (protocol_version, attempt, code) = numbers;
        let session_id = text.clone();
        let collect = wire::CollectRequest { protocol_version, session_id, attempt, ..Default::default() };
        prop_assert!(CollectSession::try_from(collect).is_err(), "no UUID has these characters alone");
        let worker = "aa".into();
        let failed = wire::HopFailed { code, cause: text.clone(), message: text.clone(), worker, field: text };
        let failure = HopFailure::try_from(failed);
        prop_assert!(failure.is_ok(), "an unknown cause or code is the nearest known one");
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_converted_but_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..256),
    ) {
        if let Ok(request) = wire::ForwardRequest::decode(bytes.as_slice()) {
            let _ = ToHop::try_from(request);
        }
        if let Ok(response) = wire::ForwardResponse::decode(bytes.as_slice()) {
            let _ = FromBelow::try_from(response);
        }
        if let Ok(response) = wire::CollectResponse::decode(bytes.as_slice()) {
            let _ = <(Attempt, FromHop)>::try_from(response);
        }
    }

    #[test]
    fn a_damaged_message_never_panics(at in any::<usize>(), to in any::<u8>()) {
        let mut bytes = wire::ForwardRequest::from(ToHop::Open(Box::new(open()))).encode_to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(request) = wire::ForwardRequest::decode(bytes.as_slice()) {
            let _ = ToHop::try_from(request);
        }
    }

    #[test]
    fn activations_keep_every_bit(values in proptest::collection::vec(any::<u32>(), 0..64)) {
        let values: Vec<f32> = values.into_iter().map(f32::from_bits).collect();
        let back = activations_from_bytes(&activations_to_bytes(&values)).expect("whole numbers");
        let bits = |list: &[f32]| list.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&back), bits(&values));
    }
}
