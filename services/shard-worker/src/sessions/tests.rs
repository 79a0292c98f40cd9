//! Attempts one after the other, at once, and late; leases within their bounds.

use std::sync::LazyLock;

use prometheus_client::metrics::gauge::Gauge;
use swarm_types::{Hop, ModelDigest, Precision, SampledToken, SamplingParams, ShardRange, TokenId, fixture};

use super::{table::TOKENS_WAITING, *};
use crate::{
    fixture::{options, slots},
    replays::{Replays, Sent},
};

/// Of all slots here.
static SENT: LazyLock<Sent> = LazyLock::new(|| Replays::new(0, Gauge::default()).begin());

const LEASE: Duration = Duration::from_secs(10);

fn session(number: u32) -> SessionId {
    format!("00000000-0000-4000-8000-{number:012}").parse().expect("a UUID")
}

fn table(sessions: usize) -> Sessions {
    Sessions::new(Bounds { sessions, kv_bytes: 8000, lease: LEASE })
}

fn held(slot: Slot) -> Held {
    Held { slot, options: options(), last: None, sent: SENT.clone() }
}

fn gateway(name: &str) -> NodeId {
    format!("12D3{name}").parse().expect("valid")
}

fn open(number: u32, attempt: u32) -> OpenSession {
    let shards = ShardRange::new(0, 1).expect("valid");
    OpenSession {
        session: session(number),
        attempt: Attempt(attempt),
        gateway: gateway("a"),
        model_digest: ModelDigest([0; 32]),
        precision: Precision::Exact,
        cut: fixture::cut(1),
        hop: Hop { worker: gateway("w"), shards },
        below: vec![],
        prompt_tokens: 0,
        max_positions: 1,
    }
}

fn wish(number: u32, attempt: u32) -> CollectSession {
    let sampling = SamplingParams::greedy();
    CollectSession {
        session: session(number),
        attempt: Attempt(attempt),
        sampling,
        grammar: None,
        tokens: vec![],
    }
}

/// A stream that runs with this slot.
fn runs(sessions: &Sessions, number: u32, attempt: u32, slot: Slot) -> Place {
    let place = sessions.enter(&open(number, attempt)).expect("there is room").place;
    assert!(place.hold(held(slot)), "nobody else has it");
    place
}

fn counts(sessions: &Sessions) -> (usize, usize) {
    (*sessions.running().borrow(), *sessions.leased().borrow())
}

fn output(token: u32) -> StepOutput {
    let sampled = SampledToken { token: TokenId(token), logprob: None, top: vec![] };
    StepOutput { position: 3, tokens: vec![sampled], scores: vec![], pooled: vec![], timings: vec![] }
}

fn cause<T: std::fmt::Debug>(refused: Result<T, Refusal>) -> RefusalCause {
    refused.expect_err("refused").cause
}

#[test]
fn a_newer_attempt_takes_over_and_an_older_one_is_refused() {
    let (sessions, slots) = (table(1), slots(1));
    let first = runs(&sessions, 1, 1, slots[0]);
    assert_eq!(cause(sessions.enter(&open(2, 1))), RefusalCause::Full);
    let second = sessions.enter(&open(1, 2)).expect("newer");
    assert!(first.superseded.is_cancelled() && !second.place.superseded.is_cancelled());
    assert_eq!(second.inherited, Some(held(slots[0])), "with what it had");
    assert!(!first.hold(held(slots[0])), "the older holds nothing any more");
    for stale in [1, 2] {
        assert_eq!(cause(sessions.enter(&open(1, stale))), RefusalCause::StaleAttempt);
    }
    drop(first);
    assert_eq!(counts(&sessions), (1, 0), "the newer attempt keeps its place");
    second.place.end();
    assert_eq!(counts(&sessions), (0, 0));
}

#[test]
fn a_stream_that_breaks_leaves_its_cache_and_one_that_ends_gives_it_back() {
    let (sessions, slots) = (table(2), slots(2));
    drop(runs(&sessions, 1, 1, slots[0]));
    let ended = runs(&sessions, 2, 1, slots[1]);
    assert_eq!(counts(&sessions), (1, 1));
    ended.end();
    let again = sessions.enter(&open(1, 2)).expect("newer");
    assert_eq!(again.inherited, Some(held(slots[0])));
    assert_eq!(counts(&sessions), (1, 0));
    assert_eq!(sessions.enter(&open(2, 1)).expect("nothing is known of it").inherited, None);
}

#[tokio::test]
async fn a_lease_ends_by_time_by_number_or_when_its_memory_is_wanted() {
    let (sessions, slots) = (table(2), slots(4));
    for (number, slot) in (1..).zip(&slots[..3]) {
        drop(runs(&sessions, number, 1, *slot));
    }
    let (over, next) = sessions.let_go(Instant::now());
    assert_eq!(over, [slots[0]], "three are one too many");
    let next = next.expect("two are left").duration_since(Instant::now());
    assert!(next > LEASE / 2 && next <= LEASE, "{next:?}");
    assert_eq!(sessions.evict(), Some(slots[1]), "the one that was left first");
    assert_eq!(sessions.let_go(Instant::now() + LEASE).0, [slots[2]]);
    assert_eq!((counts(&sessions), sessions.evict()), ((0, 0), None));
    let busy = runs(&sessions, 4, 1, slots[3]);
    assert_eq!(sessions.let_go(Instant::now() + 10 * LEASE), (vec![], None), "who runs is left alone");
    drop(busy);
}

#[test]
fn a_lease_makes_room_for_those_of_gateways_that_have_fewer() {
    let (sessions, slots) = (table(3), slots(4));
    let theirs = sessions.enter(&OpenSession { gateway: gateway("b"), ..open(1, 1) }).expect("room").place;
    assert!(theirs.hold(held(slots[0])));
    drop(theirs);
    (2..5).zip(&slots[1..]).for_each(|(number, slot)| drop(runs(&sessions, number, 1, *slot)));
    assert_eq!(
        sessions.let_go(Instant::now()).0,
        [slots[1]],
        "four are one too many, and one has three of them"
    );
    assert_eq!([sessions.evict(), sessions.evict()], [Some(slots[2]), Some(slots[0])], "then the oldest");
}

#[tokio::test]
async fn whoever_waits_for_what_is_to_be_let_go_hears_of_a_new_lease() {
    let (sessions, slots) = (table(1), slots(1));
    let place = runs(&sessions, 1, 1, slots[0]);
    let (_, next) = sessions.let_go(Instant::now());
    assert_eq!(next, None);
    sessions.changed().await;
    let waiting = tokio::spawn({
        let sessions = sessions.clone();
        async move { sessions.changed().await }
    });
    drop(place);
    waiting.await.expect("it is told");
    assert!(sessions.let_go(Instant::now()).1.is_some());
}

#[tokio::test]
async fn a_gateway_whose_session_does_not_come_is_let_go() {
    let sessions = table(1);
    let mut collecting = sessions.collect(wish(1, 1), &gateway("a")).expect("there is room");
    let (_, next) = sessions.let_go(Instant::now());
    sessions.let_go(next.expect("it does not wait for ever"));
    assert!(collecting.answers.recv().await.is_none(), "its stream ends");
    assert!(sessions.collect(wish(1, 1), &gateway("a")).is_ok(), "nothing is left of it");
}

#[tokio::test]
async fn only_the_newest_attempt_is_waited_for_and_not_by_too_many() {
    let sessions = table(1);
    let mut first = sessions.collect(wish(1, 1), &gateway("a")).expect("there is room");
    assert_eq!(cause(sessions.collect(wish(1, 1), &gateway("a"))), RefusalCause::StaleAttempt);
    let _other = sessions.collect(wish(2, 1), &gateway("a")).expect("twice as many as may run");
    assert_eq!(cause(sessions.collect(wish(3, 1), &gateway("a"))), RefusalCause::Full);
    let _second =
        sessions.collect(wish(1, 2), &gateway("a")).expect("newer, it takes the place of the older");
    assert!(first.answers.recv().await.is_none(), "the older attempt's stream ends");
    assert_eq!(cause(sessions.enter(&open(1, 1))), RefusalCause::StaleAttempt);
    let entered = sessions.enter(&open(1, 2)).expect("it is waited for");
    assert!(entered.collector.is_some());
}

#[test]
fn a_gateway_that_has_left_takes_no_place() {
    let sessions = table(1);
    for number in 1..10 {
        drop(sessions.collect(wish(number, 1), &gateway("a")).expect("the others have left"));
    }
}

#[test]
fn a_gateway_that_comes_back_gets_the_answer_that_may_have_been_lost() {
    let (sessions, slots) = (table(1), slots(1));
    let place = runs(&sessions, 1, 1, slots[0]);
    place.answers(&output(7));
    place.answers(&output(8));
    let collecting = sessions.collect(wish(1, 2), &gateway("a")).expect("newer");
    assert!(place.superseded.is_cancelled(), "the older attempt is over, although its stream has not broken");
    assert_eq!(collecting.last, Some(output(8)));
    place.answers(&output(9));
    drop(place);
    let entered = sessions.enter(&open(1, 2)).expect("it follows");
    assert_eq!(entered.inherited.and_then(|held| held.last), Some(output(8)), "late answers do not count");
}

#[test]
fn the_tokens_of_an_answer_that_may_have_been_lost_count_as_told() {
    let (sessions, slots) = (table(1), slots(1));
    // It stands at 3, where its token is.
    runs(&sessions, 1, 1, slots[0]).answers(&output(9));
    let ids = |tokens: &[u32]| tokens.iter().map(|id| TokenId(*id)).collect::<Vec<_>>();
    let cases: [(&[u32], &[u32]); 5] = [
        (&[5, 6, 7], &[5, 6, 7, 9]),
        (&[5, 6, 7, 8], &[5, 6, 7, 8]),
        (&[5; 5], &[5; 5]),
        (&[5, 6], &[5, 6]),
        (&[], &[]),
    ];
    for (attempt, (told, known)) in (2..).zip(cases) {
        let _collecting =
            sessions.collect(CollectSession { tokens: ids(told), ..wish(1, attempt) }, &gateway("a"));
        let entered = sessions.enter(&open(1, attempt)).expect("newer");
        assert!(entered.place.hold(entered.inherited.expect("it stays")));
        assert_eq!(entered.collector.expect("it waits").tokens, ids(known), "{told:?}");
    }
}

#[test]
fn a_session_stays_that_of_the_gateway_which_came_first() {
    use RefusalCause::PermissionDenied;
    let (sessions, slots) = (table(4), slots(1));
    let theirs = |number, attempt| OpenSession { gateway: gateway("b"), ..open(number, attempt) };
    let _collecting = sessions.collect(wish(1, 1), &gateway("a")).expect("there is room");
    assert_eq!(cause(sessions.enter(&theirs(1, 1))), PermissionDenied);
    assert!(sessions.enter(&open(1, 1)).expect("its own").collector.is_some(), "the other has taken nothing");

    let _place = runs(&sessions, 2, 1, slots[0]);
    for attempt in [1, 2] {
        let refused = sessions.collect(wish(2, attempt), &gateway("b"));
        assert_eq!(cause(refused.map(drop)), PermissionDenied);
        assert_eq!(cause(sessions.enter(&theirs(2, attempt)).map(drop)), PermissionDenied);
    }
    assert!(sessions.collect(wish(2, 1), &gateway("a")).is_ok(), "nor ended what runs");
}

#[test]
fn no_gateway_takes_all_places_bytes_or_waiting_rooms_from_another() {
    use RefusalCause::Full;
    let (sessions, slots) = (table(8), slots(9));
    let theirs = |number| OpenSession { gateway: gateway("b"), ..open(number, 1) };
    let mut places: Vec<_> =
        (0..8).map(|number| runs(&sessions, number, 1, slots[number as usize])).collect();
    assert_eq!(cause(sessions.enter(&open(8, 1))), Full, "alone it gets all and no more");
    let newcomer = sessions.enter(&theirs(9)).expect("its first").place;
    assert_eq!(cause(sessions.enter(&theirs(10))), Full);

    places.iter().take(7).try_for_each(|place| place.meter().charge(1000)).expect("all but what is kept");
    let refused = places[7].meter().charge(1000).expect_err("that is for others");
    assert_eq!((refused.cause, refused.field.as_deref()), (Full, Some("max_positions")));
    newcomer.meter().charge(1000).expect("its first");
    places.drain(..4).for_each(Place::end);
    let _equal: Vec<_> = (10..13).map(|number| sessions.enter(&theirs(number)).expect("its share")).collect();
    assert_eq!(counts(&sessions).0, 8);
    assert_eq!([cause(sessions.enter(&theirs(13))), cause(sessions.enter(&open(14, 1)))], [Full; 2]);

    let collect = |number, name| sessions.collect(wish(number, 1), &gateway(name));
    let waiting: Vec<_> = (20..36).map(|number| collect(number, "a").expect("alone")).collect();
    assert_eq!(cause(collect(36, "a")), Full);
    let _first = collect(37, "b").expect("its first");
    drop(waiting);
    let told = |number, tokens| CollectSession { tokens: vec![TokenId(0); tokens], ..wish(number, 1) };
    let most = TOKENS_WAITING as usize / 8 * 7;
    let _large = sessions.collect(told(40, most), &gateway("a")).expect("nobody holds any");
    assert_eq!(cause(sessions.collect(told(41, 1), &gateway("a"))), Full);
    let _other = sessions.collect(told(42, most / 7), &gateway("b")).expect("its first");
}

#[test]
fn while_draining_nobody_enters() {
    let sessions = table(1);
    sessions.drain();
    assert_eq!(cause(sessions.enter(&open(1, 1))), RefusalCause::NotReady);
}
