//! What a worker answers to those who do not keep to the protocol, and that it goes on serving those who do.
// What fails here fails a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use futures::stream;
use support::{
    CONTEXT, Collecting, Forwarding, HIDDEN, HopBelow, POSITION_BYTES, Scene, soon, step, step_below,
};
use swarm_proto::{
    FromBelow, HopFailure, Opened, RefusalCause, activations_to_bytes,
    wire::{self, forward_request::Message},
};
use swarm_types::ReplicaState::{Loading, Offline};
use tokio::time::timeout;
use tonic::{Request, client::Grpc};

/// Runs a session to its second token.
async fn answers_two_tokens(scene: &Scene, number: u32) {
    let (forwarding, mut collecting) = scene.session(number, 1).await;
    goes_on(&forwarding, &mut collecting, 0, &[5, 6]).await;
    goes_on(&forwarding, &mut collecting, 2, &[7]).await;
}

/// The session answers a step with a token.
async fn goes_on(forwarding: &Forwarding, collecting: &mut Collecting, position: u32, tokens: &[u32]) {
    forwarding.send(step(position, tokens)).await;
    let (next, token) = collecting.answer().await.expect("the session runs");
    assert_eq!((next, token.is_some()), (position + tokens.len() as u32, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_does_not_fit_is_refused_by_cause() {
    use RefusalCause::{InvalidArgument, Model, PermissionDenied, ProtocolVersion, Shards, UnknownSession};
    let scene = Scene::start("0", 1, &format!("--kv-memory {}", 2 * POSITION_BYTES * (CONTEXT - 1))).await;
    type Change = fn(&mut wire::OpenSession);
    let cases: [(&str, Change, RefusalCause, &str); 11] = [
        (
            "gateway",
            |o| o.gateway = "12D3KooWa".into(),
            PermissionDenied,
            "gateway: the session is opened by",
        ),
        ("version", |o| o.protocol_version = 2, ProtocolVersion, "protocol_version"),
        ("digest", |o| o.model_digest = "00".repeat(32), Model, "model"),
        ("precision", |o| o.precision = "exact".into(), Model, "model"),
        (
            "cut",
            |o| (o.total_shards, o.hops[0].end_shard, o.layer_ends) = (2, 2, vec![1, 2]),
            Shards,
            "hops: this worker serves shards 0 of 1",
        ),
        (
            "other cut",
            |o| o.layer_ends = vec![3],
            Shards,
            "layer_ends: this worker cuts the model differently",
        ),
        ("worker", |o| o.hops[0].worker = "12D3KooWa".into(), InvalidArgument, "hops: this is worker"),
        ("gap", |o| o.total_shards = 2, InvalidArgument, "hops"),
        ("context", |o| o.max_positions = CONTEXT + 1, InvalidArgument, "max_positions"),
        ("cache", |o| o.max_positions = CONTEXT, InvalidArgument, "max_positions"),
        ("no Collect", |_| {}, UnknownSession, "no gateway collects"),
    ];
    for (number, (name, change, cause, message)) in (1..).zip(cases) {
        let mut open = scene.opening(number, 1);
        change(&mut open);
        let HopFailure { worker, refusal } = scene.forward([Message::Open(open)]).await.failure().await;
        assert_eq!((refusal.cause, &worker), (cause, &scene.worker), "{name}: {refusal}");
        assert!(refusal.message.starts_with(message), "{name}: {refusal}");
    }
    let mut early = scene.forward([Message::Step(step(0, &[5]))]).await;
    let refusal = early.failure().await.refusal;
    assert!(refusal.cause == InvalidArgument && refusal.message.contains("must be open"), "{refusal}");
    assert_eq!(scene.refused(InvalidArgument).await, 5);
    assert_eq!(scene.refused(PermissionDenied).await, 1);
    answers_two_tokens(&scene, 99).await;
}

type StepChange = fn(&mut wire::Step);

/// What the session's step with this change is refused for.
async fn wrong_step(scene: &Scene, number: u32, mut step: wire::Step, change: StepChange) -> HopFailure {
    let (mut forwarding, _collecting) = scene.session(number, 1).await;
    change(&mut step);
    forwarding.send(step).await;
    forwarding.failure().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_step_to_the_first_hop_is_its_senders_fault() {
    let scene = Scene::start("0", 1, "").await;
    let cases: [(&str, StepChange); 10] = [
        ("tokens", |s| s.tokens.clear()),
        ("tokens", |s| s.tokens = vec![5; 5000]),
        ("tokens", |s| s.tokens = vec![u32::MAX]),
        ("position", |s| s.position = 1),
        ("position", |s| s.tokens = vec![5; 17]),
        ("scores", |s| s.scores = 3),
        ("scores: the token at 1 was not told", |s| s.scores = 1),
        ("samples", |s| s.samples = 3),
        ("kind", |s| s.kind = 0),
        ("tokens", |s| s.activations = vec![0; 4].into()),
    ];
    for (number, (field, change)) in (1..).zip(cases) {
        let HopFailure { worker, refusal } = wrong_step(&scene, number, step(0, &[5, 6]), change).await;
        assert_eq!((refusal.cause, &worker), (RefusalCause::InvalidArgument, &scene.worker), "{refusal}");
        assert!(refusal.message.starts_with(field), "{field}: {refusal}");
    }
    let (mut twice, _collecting) = scene.session(51, 1).await;
    twice.say(Message::Open(scene.opening(51, 1))).await;
    assert_eq!(twice.failure().await.refusal.cause, RefusalCause::InvalidArgument);
    answers_two_tokens(&scene, 99).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_step_further_down_is_refused_without_blaming_the_hop_above() {
    let scene = Scene::start("1", 2, "").await;
    let cases: [(&str, StepChange); 7] = [
        ("tokens: only the first hop", |s| *s = step(0, &[5, 6])),
        ("rows", |s| s.rows = 0),
        ("activations", |s| s.activations = s.activations.slice(..4 * HIDDEN)),
        ("activations", |s| s.activations = s.activations.slice(..7)),
        ("activations", |s| s.activations = activations_to_bytes(&[f32::NAN; 2 * HIDDEN])),
        ("activations", |s| s.activations = activations_to_bytes(&[f32::INFINITY; 2 * HIDDEN])),
        ("position", |s| s.position = 3),
    ];
    for (number, (field, change)) in (1..).zip(cases) {
        let HopFailure { worker, refusal } = wrong_step(&scene, number, step_below(0, 2), change).await;
        assert_eq!((refusal.cause, &worker), (RefusalCause::WrongStep, &scene.worker), "{refusal}");
        assert!(refusal.message.contains(field), "{field}: {refusal}");
    }
    assert_eq!(scene.refused(RefusalCause::WrongStep).await, 7);
    let (forwarding, mut collecting) = scene.session(99, 1).await;
    forwarding.send(step_below(0, 2)).await;
    assert!(matches!(collecting.answer().await, Some((2, Some(_)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hop_below_gets_activations_and_no_token() {
    let mut scene = Scene::with_hop_below("0", 2, "", HopBelow::Listens).await;
    let forwarding = scene.forward([Message::Open(scene.opening(1, 1))]).await;
    forwarding.send(wire::Step { samples: 1, scores: 1, ..step(0, &[5, 6, 7]) }).await;
    assert!(matches!(scene.heard().await.message, Some(Message::Open(_))));
    let Some(Message::Step(passed)) = scene.heard().await.message else { panic!("the step follows") };
    assert_eq!((passed.tokens.as_slice(), passed.rows, passed.samples, passed.scores), (&[][..], 3, 1, 1));
    assert_eq!(passed.activations.len(), 3 * HIDDEN * 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sampling_looks_at_is_told_to_the_last_hop_alone() {
    let scene = Scene::start("1", 2, "").await;
    let penalty = |number, tokens: &[u32]| {
        let sampling =
            wire::SamplingParams { repetition_penalty: Some(1.5), ..wire::SamplingParams::default() };
        wire::CollectRequest { sampling: Some(sampling), tokens: tokens.to_vec(), ..scene.wish(number, 1) }
    };
    let mut told = scene.collect_with(penalty(1, &[5, 6])).await;
    let forwarding = scene.forward([Message::Open(scene.opening(1, 1))]).await;
    for position in [0, 2, 3] {
        // Behind what was told it knows what it has sampled.
        forwarding.send(step_below(position, if position == 0 { 2 } else { 1 })).await;
        assert!(matches!(told.answer().await, Some((_, Some(_)))));
    }
    let refused: [(&[u32], &str); 3] = [
        (&[5], "samples: the token at 1"),
        (&[5; 17], "tokens: 17 were told, the session has 16"),
        (&[5, 9_999_999], "tokens: 9999999 is not in the vocabulary"),
    ];
    for (number, (tokens, message)) in (2..).zip(refused) {
        let _told = scene.collect_with(penalty(number, tokens)).await;
        let mut forwarding = scene.forward([Message::Open(scene.opening(number, 1))]).await;
        forwarding.send(step_below(0, 2)).await;
        let refusal = forwarding.failure().await.refusal;
        assert!(refusal.message.contains(message), "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_too_large_or_is_none_is_refused_first_and_later() {
    let scene = Scene::start("0", 1, "").await;
    let large = || wire::Step { activations: vec![0; 17 << 20].into(), ..step(0, &[5]) };
    let first = scene.forward([Message::Step(large())]).await.failure().await.refusal;
    let (mut forwarding, mut collecting) = scene.session(1, 1).await;
    goes_on(&forwarding, &mut collecting, 0, &[5, 6]).await;
    forwarding.send(large()).await;
    let later = forwarding.failure().await.refusal;
    assert_eq!(collecting.answer().await, None, "the session has ended");

    let mut grpc = Grpc::new(scene.channel().await);
    grpc.ready().await.unwrap();
    // Its first field is text where the worker expects a message.
    let nonsense = stream::iter([wire::Replica { worker: "nonsense".into(), ..wire::Replica::default() }]);
    let path = "/swarm.v1.ShardService/Forward".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<wire::Replica, wire::ForwardResponse>::default();
    let call = grpc.streaming(Request::new(nonsense), path, codec).await;
    let told = soon(call.unwrap().into_inner().message()).await.unwrap().unwrap();
    let FromBelow::Failed(none) = told.try_into().unwrap() else { panic!("it is no message") };
    let none = none.refusal;

    for refusal in [&first, &later, &none] {
        assert_eq!(refusal.cause, RefusalCause::InvalidArgument, "{refusal}");
        assert!(refusal.message.starts_with("message: "), "{refusal}");
    }
    assert_eq!(scene.refused(RefusalCause::InvalidArgument).await, 3);
    answers_two_tokens(&scene, 99).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_is_free_again_however_a_session_ends() {
    let scene = Scene::start("0", 1, &format!("--kv-memory {}", 2 * POSITION_BYTES * CONTEXT)).await;
    let whole = |number, attempt| {
        let open = scene.opening(number, attempt);
        wire::OpenSession { max_positions: CONTEXT, ..open }
    };
    for (number, end) in (1..).zip(["end", "half-close", "drop Forward", "drop Collect", "refusal"]) {
        let (forwarding, mut collecting) = scene.session_with(whole(number, 1), number).await;
        goes_on(&forwarding, &mut collecting, 0, &[5, 6]).await;
        scene.runs(1).await;
        let full = scene.session(100 + number, 1).await.0.failure().await.refusal;
        assert_eq!(full.cause, RefusalCause::Full, "{full}");
        match end {
            "end" => forwarding.end().await,
            "half-close" => forwarding.close().await,
            "drop Forward" => drop(forwarding),
            "drop Collect" => drop(collecting),
            _ => forwarding.send(step(0, &[])).await,
        }
        scene.runs(0).await;
    }
    let (mut first, mut collecting) = scene.session_with(whole(9, 1), 9).await;
    goes_on(&first, &mut collecting, 0, &[5, 6]).await;
    let (second, mut takes_over) = scene.session_with(whole(9, 2), 9).await;
    first.ended().await;
    assert_eq!(collecting.answer().await, None);
    second.send(step(0, &[5, 6])).await;
    assert!(takes_over.answer().await.is_some());
    let stale = scene.forward([Message::Open(whole(9, 1))]).await.failure().await.refusal;
    assert_eq!(stale.cause, RefusalCause::StaleAttempt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_stream_broke_goes_on_where_it_stood() {
    let scene = Scene::start("0", 1, "").await;
    let undisturbed = {
        let (forwarding, mut collecting) = scene.session(1, 1).await;
        goes_on(&forwarding, &mut collecting, 0, &[5, 6]).await;
        forwarding.send(step(2, &[7])).await;
        let answer = collecting.answer().await;
        forwarding.end().await;
        scene.runs(0).await;
        answer
    };
    scene.counts("kv_cache_bytes", 0).await;
    assert_eq!(scene.metric("rows_total").await, 3);

    let (mut forwarding, mut collecting) = scene.session(2, 1).await;
    assert_eq!(forwarding.opened().await, 0, "a session that is new");
    goes_on(&forwarding, &mut collecting, 0, &[5, 6]).await;
    drop((forwarding, collecting));
    scene.runs(0).await;
    assert!(scene.metric("kv_cache_bytes").await > 0, "its cache is kept");
    let (mut forwarding, mut collecting) = scene.session(2, 2).await;
    assert!(matches!(collecting.last, Some((2, Some(_)))), "its last answer too: {:?}", collecting.last);
    assert_eq!(forwarding.opened().await, 2);
    forwarding.send(step(2, &[7])).await;
    assert_eq!(collecting.answer().await, undisturbed);
    assert_eq!(scene.metric("rows_total").await, 6, "nothing was computed twice");
    // It may go back, but never ahead.
    forwarding.send(step(1, &[6, 7])).await;
    assert_eq!(collecting.answer().await, undisturbed);
    forwarding.send(step(4, &[8])).await;
    let refusal = forwarding.failure().await.refusal;
    assert!(refusal.message.contains("the session stands at 3"), "{refusal}");
    assert_eq!(scene.metric("sessions_taken_over_total").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_new_hop_below_lacks_is_sent_again_and_not_computed() {
    let mut scene = Scene::with_hop_below("0", 2, "", HopBelow::Stands(0)).await;
    let forwarding = scene.forward([Message::Open(scene.opening(1, 1))]).await;
    forwarding.send(step(0, &[5, 6])).await;
    forwarding.send(step(2, &[7])).await;
    assert!(matches!(scene.heard().await.message, Some(Message::Open(_))));
    let mut passed = vec![];
    for _ in 0..2 {
        let Some(Message::Step(step)) = scene.heard().await.message else { panic!("the steps follow") };
        passed.extend_from_slice(&step.activations);
    }
    drop(forwarding);
    scene.runs(0).await;
    // The next hop below stands at 0, as a new one does.
    let mut forwarding = scene.forward([Message::Open(scene.opening(1, 2))]).await;
    assert_eq!(forwarding.stands().await, Opened { positions: 3, below: 3, replays: 3 });
    assert!(matches!(scene.heard().await.message, Some(Message::Open(_))));
    let Some(Message::Step(again)) = scene.heard().await.message else { panic!("it is sent again") };
    assert_eq!((again.position, again.rows, again.rebuilds, again.samples), (0, 3, true, 0));
    assert_eq!(again.activations, passed, "to the bit");
    forwarding.send(step(3, &[8])).await;
    let Some(Message::Step(new)) = scene.heard().await.message else { panic!("and what is new") };
    assert_eq!((new.position, new.rebuilds, new.samples), (3, false, 1));
    assert_eq!((scene.metric("rows_total").await, scene.metric("rows_replayed_total").await), (4, 3));
    forwarding.end().await;
    scene.counts("kv_cache_bytes", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_hop_hands_on_only_what_those_below_lack_and_without_room_asks_for_all() {
    let mut scene = Scene::with_hop_below("0", 2, "--replay-memory 0", HopBelow::Stands(2)).await;
    let mut forwarding = scene.forward([Message::Open(scene.opening(1, 2))]).await;
    assert_eq!(forwarding.stands().await, Opened { positions: 0, below: 2, replays: 0 });
    let again =
        |position, tokens: &[u32]| wire::Step { samples: 0, rebuilds: true, ..step(position, tokens) };
    forwarding.send(again(0, &[5])).await;
    forwarding.send(again(1, &[6, 7])).await;
    assert!(matches!(scene.heard().await.message, Some(Message::Open(_))));
    let Some(Message::Step(handed_on)) = scene.heard().await.message else { panic!("one row") };
    assert_eq!((handed_on.position, handed_on.rows, handed_on.rebuilds), (2, 1, true));
    assert_eq!(handed_on.activations.len(), HIDDEN * 4);
    drop(forwarding);
    scene.runs(0).await;
    let mut forwarding = scene.forward([Message::Open(scene.opening(1, 3))]).await;
    assert_eq!(forwarding.stands().await, Opened { positions: 2, below: 2, replays: 0 }, "nothing was kept");
    let told = wire::Step { rebuilds: true, ..step(2, &[7]) };
    forwarding.send(told).await;
    let refusal = forwarding.failure().await.refusal;
    assert!(refusal.message.starts_with("rebuilds: "), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_hop_is_rebuilt_without_an_answer() {
    let scene = Scene::start("0", 1, "").await;
    let undisturbed = {
        let (forwarding, mut collecting) = scene.session(1, 1).await;
        goes_on(&forwarding, &mut collecting, 0, &[5, 6]).await;
        forwarding.send(step(2, &[7])).await;
        collecting.answer().await
    };
    let (forwarding, mut collecting) = scene.session(2, 1).await;
    forwarding.send(wire::Step { samples: 0, rebuilds: true, ..step(0, &[5, 6]) }).await;
    forwarding.send(step(2, &[7])).await;
    assert_eq!(collecting.answer().await, undisturbed, "the first answer is that of the step that asks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_used_in_another_way_begins_again_and_a_lease_ends() {
    let scene = Scene::start("0", 1, "--session-lease 0.05").await;
    let (forwarding, mut collecting) = scene.session(1, 1).await;
    goes_on(&forwarding, &mut collecting, 0, &[5, 6]).await;
    let longer = wire::OpenSession { max_positions: 17, ..scene.opening(1, 2) };
    let (mut second, _collecting) = scene.session_with(longer, 1).await;
    assert_eq!(second.opened().await, 0);
    drop(second);
    let freed = async {
        while scene.metric("kv_cache_bytes").await + scene.metric("sessions_leased").await > 0 {
            tokio::task::yield_now().await;
        }
    };
    soon(freed).await;
    let (mut third, _collecting) = scene.session(1, 3).await;
    assert_eq!(third.opened().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_sessions_than_allowed_are_told_that_it_is_full() {
    let scene = Scene::start("0", 1, "--max-sessions 1").await;
    let (forwarding, mut collecting) = scene.session(1, 1).await;
    goes_on(&forwarding, &mut collecting, 0, &[5, 6]).await;
    let refusal = scene.session(2, 1).await.0.failure().await.refusal;
    assert_eq!(refusal.cause, RefusalCause::Full, "{refusal}");
    goes_on(&forwarding, &mut collecting, 2, &[7]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_without_a_step_gives_its_place_back() {
    let scene = Scene::start("0", 1, "--max-sessions 1").await;
    let (mut idle, mut collecting) = scene.session(1, 1).await;
    let opened = Instant::now();
    let failure = timeout(Duration::from_secs(60), idle.failed()).await.expect("it is not for ever");
    assert_eq!(failure.refusal.cause, RefusalCause::Timeout, "{}", failure.refusal);
    assert!(opened.elapsed() > Duration::from_secs(25), "it had its time: {:?}", opened.elapsed());
    assert_eq!(collecting.answer().await, None);
    answers_two_tokens(&scene, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_below_is_told_with_its_own_cause_and_name() {
    let cases = [
        (HopBelow::Full, RefusalCause::Full),
        (HopBelow::Mumbles, RefusalCause::HopFailed),
        (HopBelow::Accuses, RefusalCause::HopFailed),
    ];
    for (below, cause) in cases {
        let scene = Scene::with_hop_below("0", 2, "", below).await;
        for number in 1..=20 {
            // The steps are under way while the hop below refuses, and none of them must hide why.
            let open = wire::OpenSession { max_positions: 100, ..scene.opening(number, 1) };
            let steps = (0..10).map(|n| Message::Step(step(2 * n, &[5, 6])));
            let mut forwarding = scene.forward([Message::Open(open)].into_iter().chain(steps)).await;
            let HopFailure { worker, refusal } = forwarding.failure().await;
            assert_eq!((refusal.cause, &worker), (cause, scene.peer.id()), "{refusal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hop_below_that_cannot_be_reached_is_the_one_that_is_named() {
    let scene = Scene::start("0", 2, "").await;
    let mut open = scene.opening(1, 1);
    let nobody = swarm_net::Identity::ephemeral().id().clone();
    open.hops[1].worker = nobody.to_string();
    let HopFailure { worker, refusal } = scene.forward([Message::Open(open)]).await.failure().await;
    assert_eq!((refusal.cause, worker), (RefusalCause::HopFailed, nobody), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_frees_its_session_while_the_hop_below_is_still_silent() {
    let scene = Scene::start("0", 2, "").await;
    let forwarding = scene.forward([Message::Open(scene.opening(1, 1))]).await;
    scene.runs(1).await;
    let left = Instant::now();
    drop(forwarding);
    scene.runs(0).await;
    assert!(left.elapsed() < Duration::from_secs(5), "long before the hop below counts as silent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_ends_lets_its_sessions_finish_and_takes_no_others() {
    let mut scene = Scene::start("0", 1, "").await;
    let (forwarding, mut collecting) = scene.session(1, 1).await;
    goes_on(&forwarding, &mut collecting, 0, &[5, 6]).await;
    scene.stop();
    let draining = scene.sees(|replica| replica.state == Loading).await;
    assert_eq!(draining.capabilities.loaded_percent, 100, "it is there, for those who use it");
    let refusal = scene.session(2, 1).await.0.failure().await.refusal;
    assert_eq!(refusal.cause, RefusalCause::NotReady, "{refusal}");
    goes_on(&forwarding, &mut collecting, 2, &[7]).await;
    goes_on(&forwarding, &mut collecting, 3, &[8]).await;
    drop(forwarding);
    scene.ended().await.unwrap();
    scene.sees(|replica| replica.state == Offline).await;
}
