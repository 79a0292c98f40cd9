//! Attempts after the first: what hops have kept is not computed again, and nothing is told twice.

use swarm_types::ReplicaState;

use super::{
    fake::{FakeSwarm, Fault, continuation, worker},
    *,
};

#[tokio::test]
async fn what_the_hops_have_kept_is_not_computed_again() {
    // Prompt of six, chunks of four: the step that reaches nine is the fourth token's.
    let first = [(0, 4), (4, 2), (6, 1), (7, 1)];
    let cases = [
        (Fault::Breaks { at: 9 }, 400, &[(8, 1), (9, 1), (10, 1), (11, 1), (12, 1)][..]),
        (Fault::Breaks { at: 9 }, 5, &[(5, 4), (9, 1), (10, 1), (11, 1), (12, 1)]),
        (Fault::Breaks { at: 9 }, 0, &[(0, 4), (4, 4), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1)]),
        // It was computed, and its answer comes with the next attempt.
        (Fault::LosesAnswer { at: 9 }, 400, &[(8, 1), (9, 1), (10, 1), (11, 1), (12, 1)]),
    ];
    for (fault, keep, then) in cases {
        let fakes = FakeSwarm::start(&[&["a"]], [fault.clone()]).await;
        fakes.keep(keep);
        let outcome = run(&fakes, request(6, 8)).await;
        continued_to_the_end(&outcome, 6, 8);
        assert_eq!(fakes.steps(), [&first[..], then].concat(), "{fault:?}, {keep} kept");
        assert_eq!(fakes.opened().len(), 2);
    }
}

#[tokio::test]
async fn what_the_first_hop_alone_has_lost_is_given_to_it_alone() {
    let first = [(0, 4), (4, 2), (6, 1), (7, 1)];
    let cases = [
        // Steps that rebuild end where the others stand; behind them each is answered.
        (0, 8, &[(0, 4), (4, 4), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1)][..]),
        (0, 7, &[(0, 4), (4, 3), (7, 2), (9, 1), (10, 1), (11, 1), (12, 1)]),
        (5, 400, &[(5, 3), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1)]),
    ];
    for (kept, below, then) in cases {
        let fakes = FakeSwarm::start(&[&["a"], &["b"]], [Fault::Breaks { at: 9 }]).await;
        fakes.keep_below(kept, below);
        let outcome = run(&fakes, request(6, 8)).await;
        continued_to_the_end(&outcome, 6, 8);
        assert_eq!(fakes.steps(), [&first[..], then].concat(), "{kept} kept, {below} below");
        let asked = GenerationRequest { score_prompt: Some(1), ..request(13, 4) };
        let fakes = FakeSwarm::start(&[&["a"], &["b"]], [Fault::Breaks { at: 9 }]).await;
        fakes.keep_below(kept, below);
        let outcome = run(&fakes, asked).await;
        continued_to_the_end(&outcome, 13, 4);
        assert_eq!(outcome.scores.len(), 12, "{kept} kept, {below} below");
    }
}

#[tokio::test]
async fn scores_are_reported_once_whatever_the_hops_have_kept() {
    for keep in [0, 3, 6, 11, 400] {
        let faults = [Fault::Breaks { at: 9 }, Fault::LosesAnswer { at: 12 }, Fault::LosesAnswer { at: 14 }];
        let fakes = FakeSwarm::start(&[&["a"]], faults).await;
        fakes.keep(keep);
        let outcome = run(&fakes, GenerationRequest { score_prompt: Some(1), ..request(13, 4) }).await;
        continued_to_the_end(&outcome, 13, 4);
        let targets: Vec<_> = outcome.scores.iter().map(|score| score.target.token).collect();
        assert_eq!(targets, prompt(13)[1..], "{keep} kept");
    }
}

#[tokio::test]
async fn each_position_is_pooled_once_whatever_the_hops_have_kept() {
    for keep in [0, 3, 6, 11, 400] {
        let faults = [Fault::Breaks { at: 8 }, Fault::LosesAnswer { at: 12 }, Fault::LosesAnswer { at: 12 }];
        let fakes = FakeSwarm::start(&[&["a"]], faults).await;
        fakes.keep(keep);
        let outcome = run(&fakes, GenerationRequest { pools: true, ..request(13, 0) }).await;
        assert_eq!(outcome.end, Some(Ok(FinishReason::Length)), "{keep} kept");
        assert_eq!(outcome.pooled, f64::from(13 * 14 / 2), "{keep} kept");
    }
}

#[tokio::test]
async fn a_session_moves_away_from_a_hop_that_leaves() {
    let fakes = FakeSwarm::start(&[&["a", "b"], &["c", "d"]], []).await;
    fakes.keep(400);
    let generator = generator(&fakes, config());
    let mut stream = generator.start(request(6, 40)).await.expect("it begins");
    let mut ids = vec![];
    while ids.len() < 3 {
        if let GenerationEvent::Token(token) = stream.next().await.expect("goes on").expect("no error") {
            ids.push(token.token);
        }
    }
    // Of both shards the first by name was taken; the other worker of each has fewer sessions from now on.
    fakes.set_state("a", ReplicaState::Loading);
    let outcome = finish(stream).await;
    assert_eq!(outcome.end, Some(Ok(FinishReason::Length)));
    ids.extend(outcome.ids());
    assert_eq!(ids, continuation(&prompt(6), 40));
    let routes: Vec<Vec<_>> = fakes
        .opened()
        .iter()
        .map(|open| std::iter::once(&open.hop).chain(&open.below).map(|hop| hop.worker.clone()).collect())
        .collect();
    assert_eq!(
        routes,
        [["a", "c"], ["b", "c"]].map(|route| route.map(worker).to_vec()),
        "and keeps the others"
    );
}
