//! Whether a client that sends no more still reads.
//!
//! A client may close its sending side once it has asked, and wait for the answer. One that has left looks the same
//! until something is sent to it: then its system resets the connection. So whoever closes before its answer has begun
//! is sent the interim response that every client of HTTP/1.1 reads over.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::server::TlsStream;

use super::places::Place;

/// RFC 9110, section 15.2: a client must be able to read it even when it did not expect any.
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How soon a reset is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What lies below a connection.
pub(super) trait Socket {
    /// Whether the other end has reset it.
    fn is_reset(&self) -> bool;
}

impl Socket for TcpStream {
    fn is_reset(&self) -> bool {
        !matches!(self.take_error(), Ok(None))
    }
}

impl<S: Socket> Socket for TlsStream<S> {
    fn is_reset(&self) -> bool {
        self.get_ref().0.is_reset()
    }
}

/// A stream that does not end for its reader while a client waits for an answer.
pub(super) struct HalfOpen<S> {
    stream: S,
    place: Place,
    reading: Reading,
    /// Something was written after what was read last.
    answered: bool,
    /// Of the interim response.
    unsent: &'static [u8],
}

/// How far the client has come with sending.
enum Reading {
    Open,
    /// It has just closed; what it asked before may not have begun yet.
    Closing,
    Closed(Pin<Box<Sleep>>),
}

impl<S> HalfOpen<S> {
    pub(super) fn new(stream: S, place: Place) -> Self {
        Self { stream, place, reading: Reading::Open, answered: false, unsent: &[] }
    }
}

impl<S: AsyncWrite + Unpin> HalfOpen<S> {
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, self.unsent))?;
            self.unsent = &self.unsent[written..];
            if self.unsent.is_empty() {
                return Pin::new(&mut self.stream).poll_flush(context);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Socket + Unpin> AsyncRead for HalfOpen<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.reading {
                Reading::Open => {
                    let (filled, room) = (buffer.filled().len(), buffer.remaining());
                    ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
                    if buffer.filled().len() > filled || room == 0 {
                        this.answered = false;
                        return Poll::Ready(Ok(()));
                    }
                    this.reading = Reading::Closing;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Reading::Closing => {
                    this.reading = Reading::Closed(Box::pin(sleep(LOOK_EVERY)));
                    if this.place.awaits_answers() && !this.answered {
                        this.unsent = INTERIM;
                    }
                }
                Reading::Closed(look) => {
                    if !this.place.awaits_answers() || this.stream.is_reset() {
                        return Poll::Ready(Ok(()));
                    }
                    let looked = look.as_mut().poll(context);
                    if looked.is_ready() {
                        look.as_mut().reset(Instant::now() + LOOK_EVERY);
                    }
                    if let Poll::Ready(Err(_)) = this.poll_interim(context) {
                        return Poll::Ready(Ok(()));
                    }
                    if looked.is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HalfOpen<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(context))?;
        self.answered = true;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(context))?;
        self.answered = true;
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
