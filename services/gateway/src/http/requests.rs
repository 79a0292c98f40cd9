//! Each request's id and its place in the caller's trace.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use swarm_process::trace;
use tonic::metadata::MetadataMap;
use tracing::{Instrument, field, info_span};
use uuid::Uuid;

use super::Api;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ids are replaced: they go into logs and traces.
const MAX_ID: usize = 128;

/// Takes the client's `x-request-id` or makes one, returns it, and puts the request into the client's trace.
pub(super) async fn identify(State(api): State<Api>, request: Request, next: Next) -> Response {
    let id = id(&request);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let span = info_span!(
        "request",
        otel.name = %format_args!("{} {route}", request.method()),
        otel.kind = "server",
        http.request.method = %request.method(),
        http.route = route,
        url.path = request.uri().path(),
        http.response.status_code = field::Empty,
        request_id = id.to_str().unwrap_or_default(),
    );
    trace::follow(&MetadataMap::from_headers(request.headers().clone()), &span);
    let mut response = next.run(request).instrument(span.clone()).await;
    let code = response.status().as_u16();
    span.record("http.response.status_code", code);
    api.metrics.answered(route, code);
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn id(request: &Request) -> HeaderValue {
    let given = request.headers().get(REQUEST_ID);
    let usable = |id: &&HeaderValue| {
        (1..=MAX_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    given.filter(usable).cloned().unwrap_or_else(|| {
        let id = Uuid::new_v4().to_string();
        HeaderValue::try_from(id).expect("a UUID is a header's value")
    })
}
