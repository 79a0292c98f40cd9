//! What a call may take: its message comes whole before the call begins, and calls that never end by themselves are
//! bounded in number.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::request::Parts,
    middleware::Next,
    response::Response,
};
use futures::{FutureExt, future::BoxFuture, stream};
use http_body::{Frame, SizeHint};
use tonic::Status;

use crate::{
    bodies::{Bodies, BodyError},
    listener::client_of,
    shares::{Share, Shares, Terms},
};

/// Bytes of a question about health, the swarm or the services: names, of which none is long.
pub const SMALL_MESSAGE: usize = 4 << 10;

/// gRPC's own bytes before a message.
const PREFIX: usize = 5;
/// How messages are packed that are.
const ENCODING: &str = "grpc-encoding";
/// Calls of it ask and are answered as long as the client likes.
const REFLECTION: &str = "/grpc.reflection.";
/// These answer for as long as the client likes, too.
const WATCHES: [&str; 2] = ["/grpc.health.v1.Health/Watch", "/swarm.v1.SwarmService/WatchStatus"];
/// Such calls at once. Whoever watches has one or two; when another comes, the one that has watched for longest is told
/// to call again.
const WATCHERS: usize = 256;
/// So that those who call again at once do not keep the port busy with nothing else.
const WATCHES_FOR: Duration = Duration::from_secs(1);

/// The bounds of one port's calls. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    bodies: Bodies,
    large: Vec<(&'static str, usize)>,
    watchers: Shares,
}

impl Calls {
    pub(super) fn new(bodies: Bodies, large: Vec<(&'static str, usize)>) -> Self {
        let terms = Terms { amount: WATCHERS, waiting: WATCHERS, spared: WATCHES_FOR, at_once: true };
        Self { bodies, large, watchers: Shares::new(terms) }
    }

    /// The call's message as it is, or unpacked, as whoever packed it meant it. What is packed in another way the
    /// service refuses, as the protocol says.
    async fn unpacked(&self, head: &mut Parts, message: Bytes, limit: usize) -> Result<Body, BodyError> {
        if head.headers.get(ENCODING).is_none_or(|encoding| encoding != "gzip") {
            return Ok(Body::from(message));
        }
        head.headers.remove(ENCODING);
        match message.split_first_chunk::<PREFIX>() {
            Some(([1, ..], packed)) => {
                let held = self.bodies.unpacked(&head.extensions, packed, limit - PREFIX).await?;
                let [a, b, c, d] = u32::try_from(held.len()).unwrap_or(u32::MAX).to_be_bytes();
                let parts = [Bytes::from_owner([0, a, b, c, d]), held].map(Ok::<_, Infallible>);
                Ok(Body::from_stream(stream::iter(parts)))
            }
            _ => Ok(Body::from(message)),
        }
    }

    /// What a message of the path's service may have, if that is a service with messages that are not small.
    fn large(&self, path: &str) -> Option<usize> {
        let service = path.strip_prefix('/')?.split('/').next()?;
        self.large.iter().find(|(name, _)| *name == service).map(|(_, bytes)| *bytes)
    }
}

/// Begins a call when its message is there.
pub(super) async fn bound(State(calls): State<Calls>, request: Request, next: Next) -> Response {
    let address = client_of(request.extensions());
    let path = request.uri().path();
    let (large, watches) = (calls.large(path), path.starts_with(REFLECTION) || WATCHES.contains(&path));
    let request = if path.starts_with(REFLECTION) {
        // Its bytes are bounded message by message.
        request
    } else {
        let (mut head, body) = request.into_parts();
        let limit = PREFIX + large.unwrap_or(SMALL_MESSAGE);
        let taken = calls.bodies.take_in(&head.extensions, body, limit).await;
        let whole = async { calls.unpacked(&mut head, taken?, limit).await };
        match whole.await {
            Ok(body) => Request::from_parts(head, body),
            Err(error) => return status(&error).into_http(),
        }
    };
    if !watches {
        return next.run(request).await;
    }
    let Ok(share) = calls.watchers.take(address, 1).await else {
        return Status::unavailable("too many calls at once, try again later").into_http();
    };
    next.run(request).await.map(|body| Body::new(Watched { body, over: over(share).boxed(), is_over: false }))
}

fn status(error: &BodyError) -> Status {
    match error {
        BodyError::TooLarge { limit } => {
            Status::out_of_range(format!("the message is larger than {} bytes", limit - PREFIX))
        }
        BodyError::TooSlow => Status::deadline_exceeded("the message did not arrive in time"),
        BodyError::Crowded(_) => Status::unavailable(error.to_string()),
        BodyError::Packed(_) => Status::invalid_argument(format!("the message: {error}")),
        BodyError::Broken(_) => Status::cancelled(error.to_string()),
    }
}

async fn over(share: Share) {
    share.dismissed().await;
}

/// An answer that ends when others want its place.
struct Watched {
    body: Body,
    over: BoxFuture<'static, ()>,
    is_over: bool,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending() && self.over.poll_unpin(context).is_ready() {
            self.is_over = true;
            let status = Status::unavailable("others want to watch too: call again");
            let mut trailers = http::HeaderMap::new();
            let _ = status.add_header(&mut trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
