//! Each request's id, its place in the caller's trace, and its line in the log.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, header, uri::Authority},
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use swarm_process::trace;
use tonic::metadata::MetadataMap;
use tracing::{Instrument, Span, field::Empty, info_span};

use super::metrics::HttpMetrics;
use crate::record::{self, LogRequests, Record};

const REQUEST_ID: HeaderName = HeaderName::from_static(record::REQUEST_ID);

/// Paths that machines ask every few seconds; as traces they would only bury the others.
const NOT_TRACED: [&str; 4] = ["/metrics", "/healthz", "/readyz", "/health"];

/// What is told of each request.
#[derive(Clone)]
pub(super) struct Identify {
    pub(super) metrics: HttpMetrics,
    /// For the trace only.
    pub(super) scheme: &'static str,
    /// Whether a request for something to be done has its line.
    pub(super) log: LogRequests,
}

/// Takes the client's `x-request-id` or makes one, returns it, and puts the request into the client's trace.
pub(super) async fn identify(State(told): State<Identify>, request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = record::request_id(given);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let span = if NOT_TRACED.contains(&route) {
        Span::none()
    } else {
        request_span(&request, route, &id, told.scheme)
    };
    trace::follow(&MetadataMap::from_headers(request.headers().clone()), &span);
    // Who only looks asks by GET, and often.
    let log = if request.method() == Method::POST { told.log } else { LogRequests::Off };
    let record = Record::new(&id, route, &span, log);
    let mut response = record.follow(next.run(request).instrument(span.clone())).await;
    let code = response.status();
    record.status(code.as_u16());
    span.record("http.response.status_code", i64::from(code.as_u16()));
    if code.is_server_error() {
        span.record("otel.status_code", "ERROR").record("error.type", code.as_str());
    }
    told.metrics.answered(route, code.as_u16());
    let id = HeaderValue::try_from(id).expect("letters, digits and signs of ASCII are a header's value");
    response.headers_mut().insert(REQUEST_ID, id);
    response.map(|body| Body::new(InSpan { body, span, record, is_over: false }))
}

/// By OpenTelemetry's conventions for HTTP servers.
fn request_span(request: &Request, route: &str, id: &str, scheme: &str) -> Span {
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
        request_id = id,
    )
}

/// A body that is part of its request's span and record: a streamed answer is made while it is read.
struct InSpan {
    body: Body,
    span: Span,
    record: Record,
    is_over: bool,
}

impl http_body::Body for InSpan {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, span, record, is_over } = &mut *self;
        let polled = record.within(|| span.in_scope(|| Pin::new(body).poll_frame(context)));
        *is_over = matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for InSpan {
    /// Before the body is dropped, with which a generation that still runs is.
    fn drop(&mut self) {
        if !self.is_over && !http_body::Body::is_end_stream(&self.body) {
            self.record.left();
        }
        self.record.log();
    }
}
