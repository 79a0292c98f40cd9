//! What becomes of one request: told on its way by whoever works on it, logged as one line when its answer has ended.
//!
//! It goes with the request's task, so that nothing between the two has to hand it on.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use futures::Stream;
use swarm_process::trace;
use swarm_types::{Attempt, NodeId, Route};
use tracing::{Span, info};
use uuid::Uuid;

use crate::clients::Principal;

tokio::task_local! {
    static RECORD: Record;
}

/// The header, or metadata, with a request's id.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// Longer ids are replaced: they go into logs and traces.
const MAX_ID: usize = 128;
/// Letters of a peer id that tell nodes of one swarm apart: the last ones, because all begin alike.
const SHORT_ID: usize = 6;
/// How an answer ends whose client has left, or that was given up because another of the same request failed.
pub(crate) const CANCELLED: &str = "cancelled";
/// How an answer ends that the gateway has enough of: a stop string is there, or a call is complete.
pub(crate) const STOPPED: &str = "stop";
/// How an answer ends that was broken off.
pub(crate) const FAILED: &str = "error";

/// Whether requests are logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LogRequests {
    /// They are not.
    Off,
    /// One line each.
    #[default]
    On,
}

/// Whoever has shown no key and gets no answer could fill the log: so many such lines at once,
const STRANGERS_AT_ONCE: u64 = 10;
/// and one more after as long. The line after those that were left out tells how many they were.
const ONE_MORE_AFTER: Duration = Duration::from_secs(4);

/// Of the whole process, as the log is.
static STRANGERS: Mutex<Strangers> =
    Mutex::new(Strangers { left: STRANGERS_AT_ONCE, since: None, unlogged: 0 });

/// What is logged of requests that are refused to whoever has shown no key.
#[derive(Debug)]
struct Strangers {
    left: u64,
    since: Option<Instant>,
    unlogged: u64,
}

impl Strangers {
    /// Whether one more is logged; then, how many were not since the last.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = self.since.get_or_insert(now);
        let more = now.duration_since(*since).as_secs() / ONE_MORE_AFTER.as_secs();
        *since += Duration::from_secs(more * ONE_MORE_AFTER.as_secs());
        self.left = self.left.saturating_add(more).min(STRANGERS_AT_ONCE);
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.unlogged))
            }
            None => {
                self.unlogged += 1;
                None
            }
        }
    }
}

/// The record of one request. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Record(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    id: String,
    /// The pattern of its path, or the name of its method.
    path: String,
    logged: bool,
    span: Span,
    since: Instant,
    told: Mutex<Told>,
}

/// What was told so far.
#[derive(Debug, Default)]
struct Told {
    client: Option<String>,
    model: Option<String>,
    seeded: bool,
    /// Of HTTP.
    status: Option<u16>,
    /// Of gRPC.
    code: Option<i32>,
    cause: Option<&'static str>,
    generations: u32,
    prompt_tokens: u64,
    generated_tokens: u64,
    first_token: Option<Duration>,
    last_token: Option<Duration>,
    attempts: u32,
    route: Option<String>,
    finish: Option<&'static str>,
    /// Nothing more is wanted: the client has left, or one of its answers failed.
    given_up: bool,
    is_logged: bool,
}

/// The record of the request that is worked on.
pub(crate) fn current() -> Option<Record> {
    RECORD.try_with(Record::clone).ok()
}

/// The id that a client gave its request, if it can be used, or a new one: letters, digits and signs of ASCII.
pub(crate) fn request_id(given: Option<&str>) -> String {
    let usable =
        |id: &&str| (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    given.filter(usable).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

fn tell(change: impl FnOnce(&mut Told)) {
    // Nobody may want to know.
    let _ = RECORD.try_with(|record| change(&mut record.told()));
}

/// Who asks.
pub(crate) fn asks(principal: &Principal) {
    tell(|told| told.client = principal.name().map(str::to_owned));
}

/// The client has named the seed.
pub(crate) fn seeded() {
    tell(|told| told.seeded = true);
}

/// Why the request is refused, or its answer broken off. The first to say so knows best.
pub(crate) fn refused(cause: &'static str) {
    tell(|told| {
        told.cause.get_or_insert(cause);
    });
}

impl Record {
    /// Of a request that begins now. `span` is the one of its trace.
    pub(crate) fn new(id: &str, path: &str, span: &Span, log: LogRequests) -> Self {
        Self(Arc::new(Shared {
            id: id.into(),
            path: path.into(),
            logged: log == LogRequests::On,
            span: span.clone(),
            since: Instant::now(),
            told: Mutex::default(),
        }))
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the client has named the seed.
    pub(crate) fn is_seeded(&self) -> bool {
        self.told().seeded
    }

    /// HTTP's status of its answer.
    pub(crate) fn status(&self, status: u16) {
        self.told().status = Some(status);
    }

    /// gRPC's status of its answer, and why, where it is a refusal.
    pub(crate) fn code(&self, code: i32, cause: Option<&'static str>) {
        let mut told = self.told();
        told.code = Some(code);
        told.cause = told.cause.or(cause);
    }

    /// One of its generations is asked for.
    pub(crate) fn generates(&self, model: &str, prompt_tokens: usize) {
        let mut told = self.told();
        told.model.get_or_insert_with(|| model.into());
        told.generations += 1;
        told.prompt_tokens += prompt_tokens as u64;
    }

    /// An attempt of one of its generations begins.
    pub(crate) fn attempts(&self, attempt: Attempt, route: &Route) {
        let mut told = self.told();
        told.attempts = told.attempts.max(attempt.0);
        told.route = Some(short_route(route));
    }

    /// A token came.
    pub(crate) fn token(&self) {
        let since = self.0.since.elapsed();
        let mut told = self.told();
        told.generated_tokens += 1;
        told.first_token.get_or_insert(since);
        told.last_token = Some(since);
    }

    /// One of its generations ended.
    pub(crate) fn finished(&self, reason: &'static str, cause: Option<&'static str>) {
        let mut told = self.told();
        told.finish = Some(reason);
        told.given_up |= reason == FAILED;
        told.cause = told.cause.or(cause);
    }

    /// How a generation ends whose driver is not told why: the gateway has enough of it, or nobody wants any.
    pub(crate) fn end_of_dropped(&self) -> &'static str {
        if self.told().given_up { CANCELLED } else { STOPPED }
    }

    /// The request's client has left.
    pub(crate) fn left(&self) {
        self.told().given_up = true;
    }

    /// Works on the request. A request whose work is dropped was left by its client, and ends with that.
    pub(crate) fn follow<W>(&self, work: W) -> Followed<W> {
        Followed { record: self.clone(), work: Box::pin(work), is_done: false, ends: false }
    }

    /// Does something in the name of the request.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        RECORD.sync_scope(self.clone(), work)
    }

    /// Logs it. Only the first call counts.
    pub(crate) fn log(&self) {
        let mut told = self.told();
        if !self.0.logged || std::mem::replace(&mut told.is_logged, true) {
            return;
        }
        let outcome = told.outcome();
        let unlogged = match outcome == Outcome::Answered || told.client.is_some() {
            true => 0,
            false => {
                let mut strangers = STRANGERS.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(unlogged) = strangers.take(Instant::now()) else { return };
                unlogged
            }
        };
        info!(
            // What the span tells is told here in fewer words.
            parent: None,
            request_id = self.0.id,
            path = self.0.path,
            client = told.client,
            model = told.model,
            status = told.status,
            grpc_status = told.code,
            cause = told.cause,
            finish_reason = told.finish_reason(),
            generations = (told.generations > 1).then_some(told.generations),
            prompt_tokens = (told.generations > 0).then_some(told.prompt_tokens),
            generated_tokens = (told.generations > 0).then_some(told.generated_tokens),
            first_token_ms = told.first_token.map(whole_milliseconds),
            tokens_per_second = told.tokens_per_second(),
            trace_id = trace::id(&self.0.span),
            duration_ms = whole_milliseconds(self.0.since.elapsed()),
            attempts = (told.attempts > 0).then_some(told.attempts),
            route = told.route,
            unlogged = (unlogged > 0).then_some(unlogged),
            "request {outcome}"
        );
    }
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Answered,
    Refused,
    /// Its client left before there was an answer.
    GivenUp,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::GivenUp => "given up",
        })
    }
}

impl Told {
    fn outcome(&self) -> Outcome {
        match (self.status, self.code) {
            (Some(..400), _) | (None, Some(0)) => Outcome::Answered,
            (None, None) => Outcome::GivenUp,
            _ => Outcome::Refused,
        }
    }

    fn finish_reason(&self) -> Option<&'static str> {
        let dropped = if self.given_up { CANCELLED } else { STOPPED };
        let has_begun = self.attempts > 0 && self.cause.is_none();
        self.finish.or_else(|| (has_begun || self.given_up).then_some(dropped))
    }

    /// Of all its answers together, behind their first token; with one decimal.
    fn tokens_per_second(&self) -> Option<f64> {
        let seconds = self.last_token?.checked_sub(self.first_token?)?.as_secs_f64();
        let later = self.generated_tokens.checked_sub(1)?;
        (seconds > 0.0).then(|| (later as f64 / seconds * 10.0).round() / 10.0)
    }
}

fn whole_milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `0:AbCdEf>1-3:GhIjKl`: of each hop its shards and the end of its worker's id.
fn short_route(route: &Route) -> String {
    let hops = route.hops().iter().map(|hop| format!("{}:{}", hop.shards, short(&hop.worker)));
    hops.collect::<Vec<_>>().join(">")
}

fn short(node: &NodeId) -> &str {
    let id = node.as_str();
    id.get(id.len().saturating_sub(SHORT_ID)..).unwrap_or(id)
}

/// Work on a request: a future or a stream. With it the request is left, unless the work is done.
pub(crate) struct Followed<W> {
    record: Record,
    work: Pin<Box<W>>,
    is_done: bool,
    /// The request ends with this work.
    ends: bool,
}

impl<W> Followed<W> {
    /// The same work, with whose end the request ends and is logged.
    pub(crate) fn with_its_end(self) -> Self {
        let mut work = self;
        work.ends = true;
        work
    }
}

impl<W: Future> Future for Followed<W> {
    type Output = W::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<W::Output> {
        let Self { record, work, is_done, .. } = &mut *self;
        let polled = record.within(|| work.as_mut().poll(context));
        *is_done = polled.is_ready();
        polled
    }
}

impl<W: Stream> Stream for Followed<W> {
    type Item = W::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<W::Item>> {
        let Self { record, work, is_done, .. } = &mut *self;
        let polled = record.within(|| work.as_mut().poll_next(context));
        *is_done = matches!(polled, Poll::Ready(None));
        polled
    }
}

impl<W> Drop for Followed<W> {
    /// Before the work is dropped: what is dropped with it asks whether the client has left.
    fn drop(&mut self) {
        if !self.is_done {
            self.record.left();
        }
        if self.ends || !self.is_done {
            self.record.log();
        }
    }
}

#[cfg(test)]
mod tests;
