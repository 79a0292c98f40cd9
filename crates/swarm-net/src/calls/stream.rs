//! A byte stream from or to a peer, as tonic and all others who read and write take it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::Stream;
use swarm_types::NodeId;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use tonic::transport::server::Connected;

use super::last::Last;
use crate::{Role, metrics::Metrics};

/// Who is at the other end of a call: authenticated by the transport, in the role that it has proven. In the
/// extensions of every request that comes in through a [`PeerListener`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    /// Who.
    pub node: NodeId,
    /// What kind of node it is.
    pub role: Role,
}

/// A place among the streams that a peer has opened, shared by all of its streams of one protocol: when anything last
/// came by one of them.
pub(crate) type Place = Last;

/// A byte stream to a peer: encrypted, and authenticated by peer id.
#[derive(Debug)]
pub struct PeerStream {
    peer: PeerInfo,
    io: Compat<libp2p::Stream>,
    metrics: Metrics,
    /// Where the peer has opened it.
    place: Option<Arc<Place>>,
}

impl PeerStream {
    pub(crate) fn new(peer: PeerInfo, stream: libp2p::Stream, metrics: Metrics) -> Self {
        Self { peer, io: stream.compat(), metrics, place: None }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// The stream has a place as long as it lives.
    pub(crate) fn in_place(self, place: Arc<Place>) -> Self {
        Self { place: Some(place), ..self }
    }
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        let came = buffer.filled().len() - before;
        self.metrics.received.inc_by(came as u64);
        if let Some(place) = self.place.as_ref().filter(|_| came > 0) {
            place.note();
        }
        polled
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.metrics.sent.inc_by(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The streams of one protocol that peers open to this node: those for gRPC are for tonic's `serve_with_incoming`. Ends
/// when the node leaves.
#[derive(Debug)]
pub struct PeerListener(mpsc::Receiver<PeerStream>);

impl PeerListener {
    pub(crate) fn new(queue: mpsc::Receiver<PeerStream>) -> Self {
        Self(queue)
    }
}

impl Stream for PeerListener {
    type Item = io::Result<PeerStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|stream| stream.map(Ok))
    }
}
