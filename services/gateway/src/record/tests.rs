//! What a request's line says, however the request ends.

use std::future::{pending, ready};

use futures::{FutureExt, StreamExt, stream};
use swarm_types::{Hop, ShardRange};

use super::*;

fn record() -> Record {
    Record::new("r-1", "/v1/completions", &Span::none(), LogRequests::On)
}

fn route() -> Route {
    let hop = |worker: &str, shards: &str| Hop {
        worker: worker.parse().expect("an id"),
        shards: shards.parse::<ShardRange>().expect("shards"),
    };
    Route::new(vec![hop("12D3KooWaaaaaa", "0"), hop("12D3KooWbbbbbb", "1-3")], 4).expect("a route")
}

fn finish(record: &Record) -> Option<&'static str> {
    record.told().finish_reason()
}

fn begun() -> Record {
    let record = record();
    record.generates("model", 3);
    record.attempts(Attempt(2), &route());
    record
}

#[test]
fn a_route_is_told_by_shards_and_the_ends_of_ids() {
    let record = begun();
    assert_eq!(record.told().route.as_deref(), Some("0:aaaaaa>1-3:bbbbbb"));
    assert_eq!(record.told().attempts, 2);
}

#[test]
fn an_answer_ends_as_its_generation_did_or_as_the_gateway_wanted() {
    assert_eq!(finish(&record()), None, "nothing was generated");
    assert_eq!(finish(&begun()), Some(STOPPED), "the gateway had enough of it");
    let whole = begun();
    whole.finished("length", None);
    assert_eq!(finish(&whole), Some("length"));
    let broken = begun();
    broken.finished(FAILED, Some("hop_failed"));
    assert_eq!((finish(&broken), broken.told().cause), (Some(FAILED), Some("hop_failed")));
    assert_eq!(broken.end_of_dropped(), CANCELLED, "its other answers were given up");
}

#[test]
fn who_drops_the_work_before_its_end_has_left() {
    let done = begun();
    assert_eq!(done.follow(ready(1)).now_or_never(), Some(1));
    assert_eq!((finish(&done), done.end_of_dropped()), (Some(STOPPED), STOPPED));
    let left = begun();
    assert_eq!(left.follow(pending::<()>()).now_or_never(), None);
    assert_eq!((finish(&left), left.end_of_dropped()), (Some(CANCELLED), CANCELLED));
    assert!(left.told().is_logged);
}

#[tokio::test]
async fn a_stream_is_logged_with_its_end_and_its_work_knows_the_record() {
    let record = begun();
    let tokens = stream::iter(0..3).map(|_| {
        refused("late");
        current().expect("the request's").token();
    });
    let answer = record.follow(tokens).with_its_end();
    assert!(!record.told().is_logged);
    assert_eq!(answer.count().await, 3);
    let told = record.told();
    assert!(told.is_logged && !told.given_up);
    assert_eq!((told.generated_tokens, told.cause), (3, Some("late")));
    assert!(told.first_token <= told.last_token);
}

#[test]
fn a_refusal_has_the_first_cause_that_was_told() {
    let record = record();
    record.within(|| {
        refused("full");
        refused("rate_limit_exceeded");
    });
    record.status(429);
    let told = record.told();
    assert_eq!((told.cause, told.outcome(), told.finish_reason()), (Some("full"), Outcome::Refused, None));
}

#[test]
fn who_shows_no_key_and_gets_no_answer_cannot_fill_the_log() {
    let mut strangers = Strangers { left: STRANGERS_AT_ONCE, since: None, unlogged: 0 };
    let now = Instant::now();
    let logged = (0..1000).filter(|_| strangers.take(now).is_some()).count();
    assert_eq!(logged as u64, STRANGERS_AT_ONCE);
    assert_eq!(strangers.take(now + ONE_MORE_AFTER), Some(1000 - STRANGERS_AT_ONCE));
    assert_eq!(strangers.take(now + ONE_MORE_AFTER), None);
    let later = (0..1000).filter(|_| strangers.take(now + 100 * ONE_MORE_AFTER).is_some()).count();
    assert_eq!(later as u64, STRANGERS_AT_ONCE);
}
