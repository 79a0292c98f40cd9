//! Each request's id and its place in the caller's trace.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, header, uri::Authority},
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use swarm_process::trace;
use tonic::metadata::MetadataMap;
use tracing::{Instrument, Span, field::Empty, info_span};
use uuid::Uuid;

use super::metrics::HttpMetrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ids are replaced: they go into logs and traces.
const MAX_ID: usize = 128;

/// Paths that machines ask every few seconds; as traces they would only bury the others.
const NOT_TRACED: [&str; 4] = ["/metrics", "/healthz", "/readyz", "/health"];

/// What is told of each request.
#[derive(Clone)]
pub(super) struct Identify {
    pub(super) metrics: HttpMetrics,
    /// For the trace only.
    pub(super) scheme: &'static str,
}

/// Takes the client's `x-request-id` or makes one, returns it, and puts the request into the client's trace.
pub(super) async fn identify(State(told): State<Identify>, request: Request, next: Next) -> Response {
    let id = id(&request);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let span = if NOT_TRACED.contains(&route) {
        Span::none()
    } else {
        request_span(&request, route, &id, told.scheme)
    };
    trace::follow(&MetadataMap::from_headers(request.headers().clone()), &span);
    let mut response = next.run(request).instrument(span.clone()).await;
    let code = response.status();
    span.record("http.response.status_code", i64::from(code.as_u16()));
    if code.is_server_error() {
        span.record("otel.status_code", "ERROR").record("error.type", code.as_str());
    }
    told.metrics.answered(route, code.as_u16());
    response.headers_mut().insert(REQUEST_ID, id);
    response.map(|body| Body::new(InSpan { body, span }))
}

/// By OpenTelemetry's conventions for HTTP servers.
fn request_span(request: &Request, route: &str, id: &HeaderValue, scheme: &str) -> Span {
    let text = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(header::HOST).and_then(|host| host.parse::<Authority>().ok());
    let server = request.uri().authority().or(host.as_ref());
    info_span!(
        "request",
        otel.name = %format_args!("{} {route}", request.method()),
        otel.kind = "server",
        otel.status_code = Empty,
        error.type = Empty,
        http.request.method = %request.method(),
        http.route = route,
        http.response.status_code = Empty,
        url.path = request.uri().path(),
        url.scheme = scheme,
        server.address = server.map(Authority::host),
        server.port = server.and_then(Authority::port_u16).map(i64::from),
        user_agent.original = text(header::USER_AGENT),
        request_id = id.to_str().unwrap_or_default(),
    )
}

/// A body that is part of its request's span: a streamed answer is made while it is read.
struct InSpan {
    body: Body,
    span: Span,
}

impl http_body::Body for InSpan {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, span } = &mut *self;
        span.in_scope(|| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
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
