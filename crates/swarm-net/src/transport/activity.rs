//! When something last came in over a TCP connection, whatever it was.
//!
//! Counted below encryption and multiplexing, because there nothing waits its turn: while a large step fills a slow
//! link, answers to pings are late, but bytes keep coming. Connections are told apart by the peer's socket.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncWrite};

/// All TCP connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Activity {
    start: Instant,
    /// Milliseconds from `start` to what came last.
    heard: Arc<Mutex<HashMap<SocketAddr, Arc<AtomicU64>>>>,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), heard: Arc::default() }
    }

    /// Notes what comes in over a connection to this socket.
    pub(crate) fn watch<T>(&self, io: T, peer: Option<SocketAddr>) -> Noted<T> {
        let heard = peer.map(|peer| Arc::clone(self.heard().entry(peer).or_default()));
        Noted { io, peer, heard, activity: self.clone() }
    }

    /// When something last came from there; nothing when there is no connection.
    pub(crate) fn last(&self, peer: SocketAddr) -> Option<Instant> {
        let millis = self.heard().get(&peer)?.load(Ordering::Relaxed);
        Some(self.start + Duration::from_millis(millis))
    }

    fn heard(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<AtomicU64>>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection of which it is known when it last brought something.
pub(crate) struct Noted<T> {
    io: T,
    peer: Option<SocketAddr>,
    heard: Option<Arc<AtomicU64>>,
    activity: Activity,
}

impl<T> Drop for Noted<T> {
    fn drop(&mut self) {
        let Some(peer) = self.peer else { return };
        let mut heard = self.activity.heard();
        // The table's and this one's: no other connection has the same socket at its end.
        if heard.get(&peer).is_some_and(|last| Arc::strong_count(last) <= 2) {
            heard.remove(&peer);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Noted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if let Some(heard) = self.heard.as_ref().filter(|_| count > 0) {
            let millis = self.activity.start.elapsed().as_millis();
            heard.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        Poll::Ready(Ok(count))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Noted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, FutureExt, io::Cursor};

    use super::*;

    #[test]
    fn what_comes_in_is_noted_for_as_long_as_there_is_a_connection() {
        let start = Instant::now() - Duration::from_secs(5);
        let (activity, peer) = (Activity { start, ..Activity::new() }, "10.0.0.1:4001".parse().unwrap());
        assert_eq!(activity.last(peer), None);
        let mut first = activity.watch(Cursor::new(b"bytes"), Some(peer));
        let second = activity.watch(Cursor::new(b""), Some(peer));
        let mut buffer = [0; 16];
        assert_eq!(first.read(&mut buffer).now_or_never().unwrap().unwrap(), 5);
        assert!(activity.last(peer).unwrap() >= start + Duration::from_secs(5));
        first.heard.as_ref().unwrap().store(1, Ordering::Relaxed);
        assert_eq!(first.read(&mut buffer).now_or_never().unwrap().unwrap(), 0);
        let noted = Some(start + Duration::from_millis(1));
        assert_eq!(activity.last(peer), noted, "its end brings nothing");
        drop(first);
        assert!(activity.last(peer).is_some());
        drop(second);
        assert_eq!(activity.last(peer), None);
    }
}
