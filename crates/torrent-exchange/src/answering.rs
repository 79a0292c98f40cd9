//! Gives the answers that are due on one stream, and the news. Reading from disk is on blocking threads, in bounded
//! number, and each frame yields to the process's main work.

use std::sync::Arc;

use bytes::Bytes;
use model_torrent::{PieceIndex, PieceSet, TorrentError};
use tokio::{
    io::AsyncWrite,
    sync::{AcquireError, Semaphore},
    task::{spawn_blocking, yield_now},
};
use tracing::warn;

use crate::{
    causes::Refusal,
    error::ExchangeError,
    frames::FrameWriter,
    limits::SeedLimits,
    metrics::Metrics,
    pace::Pace,
    queue::{Answer, Queue},
    seats::Seat,
    shelf::{Changes, Served},
    wire::{DATA_LIMIT, Tell},
};

/// So many bytes are read at once: the shortest piece of most torrents.
const READ: usize = DATA_LIMIT;
/// With more news than that, all that is here is told again: for most torrents that is shorter.
const NEWS: u32 = 64;

/// What all streams share.
#[derive(Debug)]
pub(crate) struct Means {
    pub(crate) pace: Pace,
    reads: Arc<Semaphore>,
    /// Each is for as many bytes as are read at once.
    in_flight: Semaphore,
    pub(crate) metrics: Metrics,
}

impl Means {
    pub(crate) fn new(limits: &SeedLimits, metrics: Metrics) -> Self {
        Self {
            pace: Pace::new(limits),
            reads: Arc::new(Semaphore::new(limits.reads.max(1))),
            in_flight: Semaphore::new((limits.bytes_in_flight / READ).max(1)),
            metrics,
        }
    }

    /// Reads on a blocking thread.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ExchangeError> {
        let permit = self.reads.clone().acquire_owned().await.map_err(closed)?;
        let reading = spawn_blocking(move || {
            let _permit = permit;
            read()
        });
        reading.await.map_err(|error| ExchangeError::Stream(error.into()))
    }
}

/// The answering side of one stream.
pub(crate) struct Answering<'a, W> {
    pub(crate) means: &'a Means,
    pub(crate) served: &'a Arc<Served>,
    pub(crate) queue: &'a Queue,
    pub(crate) seat: &'a Seat,
    pub(crate) writer: &'a mut FrameWriter<W>,
    pub(crate) changes: Changes,
    /// What the peer was told is here.
    pub(crate) told: PieceSet,
}

impl<W: AsyncWrite + Unpin> Answering<'_, W> {
    /// Until the stream breaks. The greeting that was put is sent first.
    pub(crate) async fn run(mut self) -> Result<(), ExchangeError> {
        self.writer.flush().await?;
        loop {
            self.tell_news().await?;
            match self.queue.next() {
                Some(Answer::Torrent) => self.torrent().await?,
                Some(Answer::Piece(piece)) => self.piece(piece).await?,
                Some(Answer::Refused(piece, cause)) => self.tell(&Tell::Refused(piece, cause)).await?,
                None => {
                    self.seat.is_idle(self.queue.is_idle());
                    tokio::select! {
                        () = self.queue.added() => {}
                        () = self.changes.next() => {}
                    }
                }
            }
        }
    }

    async fn tell_news(&mut self) -> Result<(), ExchangeError> {
        if !self.changes.seen() {
            return Ok(());
        }
        let here = self.served.store().here();
        let news = here.without(&self.told);
        if here.covers(&self.told) && news.count() <= NEWS {
            for piece in news.iter() {
                self.means.metrics.messages.inc();
                self.writer.put(&Tell::Got(piece));
            }
            self.writer.flush().await?;
        } else {
            self.tell(&Tell::Have(Bytes::copy_from_slice(here.as_bytes()))).await?;
        }
        self.told = here;
        Ok(())
    }

    async fn torrent(&mut self) -> Result<(), ExchangeError> {
        let served = self.served.clone();
        let made = self.means.blocking(move || served.torrent()).await?;
        let (total, frame) = (made.len() as u32, self.means.pace.frame());
        for offset in (0..made.len()).step_by(frame) {
            let bytes = made.slice(offset..made.len().min(offset + frame));
            self.means.pace.pass(bytes.len()).await;
            self.tell(&Tell::Part { total, offset: offset as u32, bytes }).await?;
            yield_now().await;
        }
        Ok(())
    }

    async fn piece(&mut self, index: PieceIndex) -> Result<(), ExchangeError> {
        let length = self.served.store().metainfo().layout().piece(index).map_or(0, |piece| piece.length);
        let means = self.means;
        if let Err(error) = self.check(index).await? {
            return self.unreadable(index, &error).await;
        }
        for start in (0..length).step_by(READ) {
            if self.queue.is_cancelled() {
                return self.tell(&Tell::Refused(index, Refusal::Cancelled)).await;
            }
            let _in_flight = means.in_flight.acquire().await.map_err(closed)?;
            let (served, range) = (self.served.clone(), start..length.min(start + READ as u32));
            let read = self.means.blocking(move || served.store().read(index, range)).await?;
            let bytes = match read {
                Ok(bytes) => Bytes::from(bytes),
                Err(error) => return self.unreadable(index, &error).await,
            };
            if !self.frames(index, start, bytes).await? {
                return self.tell(&Tell::Refused(index, Refusal::Cancelled)).await;
            }
        }
        Ok(())
    }

    /// What is given for the first time is looked at before.
    async fn check(&mut self, index: PieceIndex) -> Result<Result<(), TorrentError>, ExchangeError> {
        if self.served.is_checked(index) {
            return Ok(Ok(()));
        }
        let served = self.served.clone();
        let checked = self.means.blocking(move || served.check(index)).await?;
        let is_wrong = matches!(checked, Err(TorrentError::WrongBytes { .. }));
        self.means.metrics.damaged.inc_by(u64::from(is_wrong));
        Ok(checked)
    }

    /// Sends bytes of a piece. Says no when it was cancelled before all were sent.
    async fn frames(
        &mut self,
        piece: PieceIndex,
        start: u32,
        mut rest: Bytes,
    ) -> Result<bool, ExchangeError> {
        let mut offset = start;
        while !rest.is_empty() {
            let bytes = rest.split_to(rest.len().min(self.means.pace.frame()));
            self.means.pace.pass(bytes.len()).await;
            // The last bytes before the end are sent in any case: the answer is shorter than the refusal's round trip.
            if !rest.is_empty() && self.queue.is_cancelled() {
                return Ok(false);
            }
            let count = bytes.len();
            // Before the peer can know of it.
            self.means.metrics.sent.inc_by(count as u64);
            self.tell(&Tell::Piece { piece, offset, bytes }).await?;
            offset += count as u32;
            yield_now().await;
        }
        Ok(true)
    }

    async fn unreadable(&mut self, piece: PieceIndex, error: &TorrentError) -> Result<(), ExchangeError> {
        self.means.metrics.refused.inc();
        let cause = match error {
            TorrentError::NotHere { .. } | TorrentError::WrongBytes { .. } => Refusal::NotHere,
            error => {
                warn!(%piece, %error, "cannot read a piece that a peer asks for");
                Refusal::Unreadable
            }
        };
        self.tell(&Tell::Refused(piece, cause)).await
    }

    async fn tell(&mut self, message: &Tell) -> Result<(), ExchangeError> {
        self.means.metrics.messages.inc();
        self.writer.send(message).await
    }
}

/// A semaphore that nobody closes.
fn closed(_: AcquireError) -> ExchangeError {
    ExchangeError::Ended
}
