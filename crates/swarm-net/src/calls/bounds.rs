//! What peers' messages can make this node hold before they are whole.
//!
//! tonic keeps what has come of a message until all of it is there, for every call. Here a message is looked at before
//! it is read, by the length that it begins with ([gRPC over HTTP/2]): one that is longer than its method takes ends
//! the call, a large one is read only when its peer has room for it, and one that does not come whole ends the call
//! after a while. What is not read waits in HTTP/2's windows, and these are bounded too.
//!
//! [gRPC over HTTP/2]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use swarm_types::NodeId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::PollSemaphore;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::stream::PeerInfo;

/// A request of a method that is not listed: it says at most who wants what.
const SMALL_REQUEST: usize = 4 << 10;
/// Messages up to this size are read at once, so that a token does not wait behind a prompt.
const READ_AT_ONCE: usize = 64 << 10;
/// Bytes of larger messages of one peer that are read at the same time: one of the largest there are. The others wait.
const READ_FROM_PEER: usize = LARGEST;
/// No method may take more.
const LARGEST: usize = 16 << 20;
/// The unit of that room.
const UNIT: usize = 1 << 10;
/// How long is waited in a body.
const PATIENCE: Patience = Patience {
    head: Duration::from_secs(10),
    message: Duration::from_secs(30),
    room: Duration::from_secs(60),
};

/// What is waited for in a body, and how long.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// The first message, which comes with the call, and the end of a call that has only one.
    head: Duration,
    /// The rest of a message. The largest takes this long at 600 KB/s.
    message: Duration,
    /// The messages that are read before it. What waits longer comes too late for whoever wants its result.
    room: Duration,
}

/// How large a method's messages may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MethodLimit {
    /// As in a request's path: `/package.Service/Method`.
    pub path: &'static str,
    /// Bytes of a call's first message.
    pub first: usize,
    /// Bytes of those that follow it, at most 16 MiB. Where it is 0 there must be none.
    pub later: usize,
}

/// Puts [`Bounded`] around the bodies of requests. Clones share what peers have of room.
#[derive(Clone, Debug)]
pub struct BoundsLayer {
    limits: &'static [MethodLimit],
    rooms: Rooms,
}

/// Each peer's room for messages that are being read, as long as it has calls.
type Rooms = Arc<Mutex<HashMap<NodeId, Weak<Semaphore>>>>;

impl BoundsLayer {
    /// Methods that are not in the list have requests of 4 KiB and one message.
    pub(crate) fn new(limits: &'static [MethodLimit]) -> Self {
        Self { limits, rooms: Rooms::default() }
    }

    fn limit(&self, path: &str) -> MethodLimit {
        let small = MethodLimit { path: "", first: SMALL_REQUEST, later: 0 };
        self.limits.iter().find(|limit| limit.path == path).copied().unwrap_or(small)
    }

    fn room(&self, peer: &NodeId) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(peer).and_then(Weak::upgrade) {
            return room;
        }
        rooms.retain(|_, room| room.strong_count() > 0);
        let room = Arc::new(Semaphore::new(READ_FROM_PEER.div_ceil(UNIT)));
        rooms.insert(peer.clone(), Arc::downgrade(&room));
        room
    }
}

impl<S> Layer<S> for BoundsLayer {
    type Service = BoundsService<S>;

    fn layer(&self, inner: S) -> BoundsService<S> {
        BoundsService { inner, layer: self.clone() }
    }
}

/// A service whose requests are bounded.
#[derive(Clone, Debug)]
pub struct BoundsService<S> {
    inner: S,
    layer: BoundsLayer,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for BoundsService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let limit = self.layer.limit(request.uri().path());
        // Without a peer nothing is served; the services say so.
        let Some(peer) = request.extensions().get::<PeerInfo>() else { return self.inner.call(request) };
        let room = self.layer.room(&peer.node);
        self.inner.call(request.map(|body| Body::new(Bounded::new(body, limit, room))))
    }
}

/// A request's body, read within bounds.
struct Bounded {
    inner: Body,
    frames: Frames,
    patience: Patience,
    room: PollSemaphore,
    /// Held while a large message is read.
    permit: Option<OwnedSemaphorePermit>,
    /// Set while something is waited for that must come.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Bounded {
    fn new(inner: Body, limit: MethodLimit, room: Arc<Semaphore>) -> Self {
        let frames = Frames::new(limit);
        Self {
            inner,
            frames,
            patience: PATIENCE,
            room: PollSemaphore::new(room),
            permit: None,
            deadline: None,
        }
    }

    /// Ready when the message that has begun may be read on.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wanted = self.frames.size().filter(|size| *size > READ_AT_ONCE);
        match wanted {
            None => self.permit = None,
            Some(size) if self.permit.is_none() => {
                let units = u32::try_from(size.min(READ_FROM_PEER).div_ceil(UNIT)).unwrap_or(u32::MAX);
                self.permit = ready!(self.room.poll_acquire_many(cx, units));
                self.deadline = None;
            }
            Some(_) => {}
        }
        Poll::Ready(())
    }

    /// Ready when it has taken too long.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, patience: Option<Duration>) -> Poll<Status> {
        let Some(patience) = patience else {
            self.deadline = None;
            return Poll::Pending;
        };
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Status::deadline_exceeded(format!("a message did not come whole within {patience:?}")))
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.poll_room(cx).is_pending() {
            return this.poll_deadline(cx, Some(this.patience.room)).map(|late| Some(Err(late)));
        }
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            let patience = this.frames.patience(&this.patience);
            return this.poll_deadline(cx, patience).map(|late| Some(Err(late)));
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let messages = this.frames.whole;
            if let Err(refused) = this.frames.read(data) {
                return Poll::Ready(Some(Err(refused)));
            }
            if this.frames.whole > messages {
                (this.permit, this.deadline) = (None, None);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Where messages begin and end in a body: each follows a byte of flags and four of its length.
#[derive(Debug)]
struct Frames {
    limit: MethodLimit,
    /// What has come of a head.
    head: [u8; 5],
    head_bytes: usize,
    /// Size of the message that is being read, and what is missing of it.
    message: Option<(usize, usize)>,
    /// Messages that have come whole.
    whole: u64,
}

impl Frames {
    fn new(limit: MethodLimit) -> Self {
        Self { limit, head: [0; 5], head_bytes: 0, message: None, whole: 0 }
    }

    /// Size of the message that has begun.
    fn size(&self) -> Option<usize> {
        self.message.map(|(size, _)| size)
    }

    /// How long what is missing now may take; none where nothing need come.
    fn patience(&self, patience: &Patience) -> Option<Duration> {
        if self.message.is_some() || self.head_bytes > 0 {
            return Some(patience.message);
        }
        (self.whole == 0 || self.limit.later == 0).then_some(patience.head)
    }

    /// Takes note of bytes that came.
    fn read(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            let (size, missing) = match self.message {
                Some(message) => message,
                None => {
                    let taken = data.len().min(self.head.len() - self.head_bytes);
                    self.head[self.head_bytes..self.head_bytes + taken].copy_from_slice(&data[..taken]);
                    self.head_bytes += taken;
                    data = &data[taken..];
                    if self.head_bytes < self.head.len() {
                        return Ok(());
                    }
                    let [_, length @ ..] = self.head;
                    let size = self.check(u32::from_be_bytes(length) as usize)?;
                    self.head_bytes = 0;
                    (size, size)
                }
            };
            let taken = missing.min(data.len());
            data = &data[taken..];
            self.message = Some((size, missing - taken)).filter(|(_, missing)| *missing > 0);
            self.whole += u64::from(self.message.is_none());
        }
        Ok(())
    }

    fn check(&self, size: usize) -> Result<usize, Status> {
        let most = if self.whole == 0 { self.limit.first } else { self.limit.later };
        if self.whole > 0 && self.limit.later == 0 {
            return Err(Status::out_of_range("a second message where there must be one"));
        }
        if size > most.min(LARGEST) {
            let what = format!("{size} bytes are too many, at most {most} may come here");
            return Err(Status::out_of_range(what));
        }
        Ok(size)
    }
}

#[cfg(test)]
mod tests;
