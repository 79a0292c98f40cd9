//! What answers have in common, and how they are streamed: server-sent events, as OpenAI's API has them.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use futures::{Stream, StreamExt};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{params::StreamUsage, usage::Usage};
use crate::text::ServedModel;

/// A comment this often keeps connections open while a long prompt is read.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The fields that every object of one answer has.
#[derive(Clone, Debug)]
pub(super) struct Envelope(Value);

impl Envelope {
    pub(super) fn new(prefix: &str, object: &str, model: &ServedModel) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let digest = model.digest().to_string();
        Self(json!({
            "id": format!("{prefix}-{}", Uuid::new_v4().simple()),
            "object": object,
            "created": now.as_secs(),
            "model": model.id(),
            // Same fingerprint and same seed, same text.
            "system_fingerprint": format!("fp_{}", &digest[..10]),
        }))
    }

    pub(super) fn with_choices(&self, choices: Vec<Value>) -> Value {
        let mut object = self.0.clone();
        object["choices"] = choices.into();
        object
    }

    /// An object of a stream, with the usage so far where it is wanted in all of them. Where it comes at the end, all
    /// others say that it is not there yet.
    pub(super) fn chunk(&self, choices: Vec<Value>, told: StreamUsage, so_far: Usage) -> Value {
        let mut object = self.with_choices(choices);
        match told {
            StreamUsage::Nothing => {}
            StreamUsage::AtTheEnd => object["usage"] = Value::Null,
            StreamUsage::Always => object["usage"] = so_far.json(),
        }
        object
    }

    /// The last object of a stream with usage.
    pub(super) fn last(&self, usage: Usage) -> Value {
        let mut object = self.with_choices(vec![]);
        object["usage"] = usage.json();
        object
    }
}

/// Streams the objects. A stream that was broken off ends with its error and without `[DONE]`.
pub(super) fn respond(objects: impl Stream<Item = Value> + Send + 'static) -> Response {
    let mut objects = objects.boxed();
    let events = async_stream::stream! {
        let mut failed = false;
        while let Some(object) = objects.next().await {
            failed = object.get("error").is_some();
            yield Ok(Event::default().data(object.to_string()));
        }
        if !failed {
            yield Ok::<_, Infallible>(Event::default().data("[DONE]"));
        }
    };
    with_keep_alive(events)
}

/// Streams the objects, each as an event with a name.
pub(super) fn named(events: impl Stream<Item = (&'static str, Value)> + Send + 'static) -> Response {
    with_keep_alive(events.map(|(name, object)| Ok(Event::default().event(name).data(object.to_string()))))
}

/// Streams events for as long as there are some.
pub(super) fn with_keep_alive(
    events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
) -> Response {
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    // Proxies must hand on every event at once.
    let headers = [("x-accel-buffering", "no"), ("cache-control", "no-cache")];
    (headers, Sse::new(events).keep_alive(keep_alive)).into_response()
}
