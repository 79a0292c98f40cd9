//! The swarm's status, and what load balancers ask: `/v1/swarm`, `/healthz`, `/readyz`.

use std::convert::Infallible;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response, sse::Event},
};
use futures::StreamExt;
use serde_json::json;
use tokio_stream::wrappers::WatchStream;

use super::{Api, sse};

/// The swarm as this node sees it; to who accepts `text/event-stream`, again on every change.
pub(super) async fn swarm(State(api): State<Api>, headers: HeaderMap) -> Response {
    let status = api.generator.status();
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if !accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        let status = status.borrow().clone();
        return Json(&*status).into_response();
    }
    let event = |status: std::sync::Arc<swarm_types::SwarmStatus>| {
        let json = serde_json::to_string(&*status).unwrap_or_default();
        Ok::<_, Infallible>(Event::default().event("status").data(json))
    };
    sse::with_keep_alive(WatchStream::new(status).map(event))
}

/// The process answers.
pub(super) async fn healthy() -> &'static str {
    "ok\n"
}

/// A generation could start now, or why not.
pub(super) async fn ready(State(api): State<Api>) -> Response {
    match api.generator.readiness() {
        Ok(()) => Json(json!({"ready": true})).into_response(),
        Err(reason) => {
            let body = Json(json!({"ready": false, "reason": reason}));
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], body).into_response()
        }
    }
}
