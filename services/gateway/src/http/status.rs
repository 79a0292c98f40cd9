//! The swarm's status, and what load balancers ask: `/v1/swarm`, `/healthz`, `/readyz`.

use axum::{
    Json,
    extract::State,
    http::{Extensions, HeaderMap, StatusCode, header},
    response::{IntoResponse, Response, sse::Event},
};
use futures::StreamExt;
use serde::Serialize;
use serde_json::json;
use swarm_process::listener::client_of;
use tokio_stream::wrappers::WatchStream;

use super::{Api, busy::BusyMeter, error::ApiError, sse};
use crate::generation::NO_MODEL;

/// The swarm as this node sees it; to a client that accepts `text/event-stream`, again on every change, and each second
/// how busy this gateway is.
pub(super) async fn swarm(
    State(api): State<Api>,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, ApiError> {
    let status = api.generator.status();
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if !accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        let status = status.borrow().clone();
        return Ok(Json(&*status).into_response());
    }
    let watcher = api.watchers.take(client_of(&extensions), 1).await;
    let watcher = watcher.map_err(|_| ApiError::too_many_requests())?;
    let mut busy = BusyMeter::new(api.generator);
    let events = async_stream::stream! {
        let mut statuses = WatchStream::new(status);
        loop {
            let next = tokio::select! {
                status = statuses.next() => status.map(|status| event("status", &*status)),
                busy = busy.next() => Some(event("load", &busy)),
                () = watcher.dismissed() => None,
            };
            match next {
                Some(event) => yield Ok(event),
                None => return,
            }
        }
    };
    Ok(sse::with_keep_alive(events))
}

fn event(name: &str, content: &impl Serialize) -> Event {
    Event::default().event(name).data(serde_json::to_string(content).unwrap_or_default())
}

/// Which version answers.
pub(super) async fn version() -> Json<serde_json::Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// The process answers.
pub(super) async fn healthy() -> &'static str {
    "ok\n"
}

/// No generation can start before the model is here.
pub(super) async fn waiting() -> Response {
    not_ready(&format!("waiting for the model: {NO_MODEL}"))
}

/// A generation could start now, or why not.
pub(super) async fn ready(State(api): State<Api>) -> Response {
    match api.generator.readiness() {
        Ok(()) => Json(json!({"ready": true})).into_response(),
        Err(reason) => not_ready(&reason),
    }
}

fn not_ready(reason: &str) -> Response {
    let body = Json(json!({"ready": false, "reason": reason}));
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], body).into_response()
}
