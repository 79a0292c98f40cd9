//! A connection over TCP that is closed at once when this node closes it.
//!
//! Yamux waits until all that was still to be sent is sent. To a machine that has vanished nothing is, for a quarter of
//! an hour, and until then libp2p takes its peer for connected; nor does yamux wake those who wait for a byte of its
//! streams meanwhile. The peer learns of the end as of any: its kernel tells it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};

/// The wrapped connection, until it is closed.
pub(crate) struct Abrupt<M>(Option<M>);

impl<M> Abrupt<M> {
    pub(crate) fn new(muxer: M) -> Self {
        Self(Some(muxer))
    }
}

impl<M: StreamMuxer + Unpin> Abrupt<M> {
    fn inner(&mut self) -> Option<Pin<&mut M>> {
        self.0.as_mut().map(Pin::new)
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Abrupt<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        self.inner().map_or(Poll::Pending, |muxer| muxer.poll_inbound(cx))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        self.inner().map_or(Poll::Pending, |muxer| muxer.poll_outbound(cx))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        self.inner().map_or(Poll::Pending, |muxer| muxer.poll(cx))
    }
}
