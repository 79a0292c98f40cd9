//! Whose turn it is to go on with a request: ours, or the client's, which sends the rest of it or reads the answer.

use std::{
    mem::{discriminant, replace},
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, Version, header};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::Status;

use super::places::{Place, Turn};
use crate::shares::{Crowded, Share};

/// What asks whether the process is alive and ready, over HTTP and gRPC. These need no place.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/grpc.health.v1.Health/Check"];
/// Seconds.
const RETRY_AFTER: &str = "1";

/// Counts a request of the connection from its head until the end of its answer is handed to the connection, which
/// then writes what it has not written yet.
pub(super) async fn hold(Extension(place): Extension<Place>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().remove::<Place>();
    let turns = Turns::begin(place, request.version());
    if turns.0.id > 0 {
        // A client that has sent many requests at once gets one answer after all others that wait have got theirs.
        tokio::task::yield_now().await;
    }
    let is_probe = PROBES.contains(&request.uri().path());
    if !is_probe && turns.settle().await.is_err() {
        return busy(request.headers());
    }
    let arriving = |body| Body::new(Arriving { body, waits: false, turns: turns.clone() });
    let response = next.run(request.map(arriving)).await;
    turns.are(Turn::Answer(Instant::now()));
    response.map(|body| Body::new(Answer { body, turns }))
}

/// All places have something in hand.
fn busy(headers: &HeaderMap) -> Response {
    let message = "too many requests at once, try again later";
    let kind = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        return Status::unavailable(message).into_http();
    }
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, RETRY_AFTER)], message).into_response()
}

/// A request in hand, until the last clone is dropped.
#[derive(Clone)]
struct Turns(Arc<InHand>);

struct InHand {
    place: Place,
    id: u64,
    turn: Mutex<Turn>,
    share: OnceLock<Share>,
}

impl Turns {
    fn begin(place: Place, version: Version) -> Self {
        let id = place.begin(version);
        Self(Arc::new(InHand { place, id, turn: Mutex::new(Turn::Ours), share: OnceLock::new() }))
    }

    async fn settle(&self) -> Result<(), Crowded> {
        let share = self.0.place.settle().await?;
        self.0.share.get_or_init(|| share);
        Ok(())
    }

    fn are(&self, turn: Turn) {
        let mut before = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = replace(&mut *before, turn);
        if discriminant(&before) == discriminant(&turn) {
            return;
        }
        self.0.place.turn(self.0.id, turn);
        if let Some(share) = self.0.share.get() {
            share.may_go((turn != Turn::Ours).then(|| self.0.place.stalls_at()));
        }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.place.end(self.id);
    }
}

/// What is still to come of a request.
struct Arriving {
    body: Body,
    waits: bool,
    turns: Turns,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.waits = frame.is_pending();
        self.turns.are(if self.waits { Turn::Rest(Instant::now()) } else { Turn::Ours });
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if self.waits {
            self.turns.are(Turn::Ours);
        }
    }
}

/// An answer on its way.
struct Answer {
    body: Body,
    turns: Turns,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.turns.are(if frame.is_pending() { Turn::Ours } else { Turn::Answer(Instant::now()) });
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
