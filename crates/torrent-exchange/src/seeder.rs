//! Serves streams that peers opened, from the stores on the shelf.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use swarm_types::NodeId;
use tokio::{
    io::{AsyncRead, AsyncWrite, split},
    time::timeout,
};

use crate::{
    answering::{Answering, Means},
    causes::Away,
    error::ExchangeError,
    frames::{FrameReader, FrameWriter},
    limits::SeedLimits,
    metrics::Metrics,
    queue::Queue,
    seats::{Seat, Seats},
    shelf::{Served, Shelf},
    wire::{ASK_LIMIT, Ask, Hello, Tell},
};

/// From the opening of a stream to its first message, over a slow network and with a round trip for each.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// A peer that asks nothing for so long opens a stream again when it needs one.
const ASKS_WITHIN: Duration = Duration::from_secs(60);

/// Serves what is on a shelf. Cheap to clone; all clones share the bounds.
#[derive(Clone, Debug)]
pub struct Seeder {
    shelf: Shelf,
    seats: Arc<Seats>,
    requests: usize,
    means: Arc<Means>,
}

impl Seeder {
    /// Within these limits.
    #[must_use]
    pub fn new(shelf: Shelf, limits: &SeedLimits, metrics: Metrics) -> Self {
        let means = Arc::new(Means::new(limits, metrics));
        Self { shelf, seats: Seats::new(limits), requests: limits.requests_a_stream, means }
    }

    /// Sends less as long as this says that the process has something better to do; it is asked before each frame. Who
    /// is the first to call this is heard.
    pub fn give_way_while(&self, works: impl Fn() -> bool + Send + Sync + 'static) {
        self.means.pace.give_way_while(works);
    }

    /// Serves one stream to its end. `peer` is who opened it, as the transport knows it.
    ///
    /// # Errors
    /// When the peer says what it must not say, does not read, or the stream breaks, which is the usual end. That
    /// nothing is served, or nothing asked any more, is no error.
    pub async fn serve<S>(&self, stream: S, peer: &NodeId) -> Result<(), ExchangeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (reader, writer) = split(stream);
        let (mut reader, mut writer) = (FrameReader::new(reader, ASK_LIMIT), FrameWriter::new(writer));
        let Some(seat) = self.seats.take(peer) else {
            return self.goodbye(&mut writer, Away::Busy).await;
        };
        let hello = tokio::select! {
            hello = timeout(HELLO_WITHIN, hello(&mut reader)) => hello,
            () = seat.dismissed() => return self.goodbye(&mut writer, Away::Busy).await,
        };
        let hello = hello.map_err(|_| ExchangeError::Silent("it says no hello"))??;
        let Some(served) = self.shelf.get(hello.info_hash) else {
            return self.goodbye(&mut writer, Away::NotServed).await;
        };
        let away = self.talk(&mut reader, &mut writer, &seat, served, hello).await?;
        self.goodbye(&mut writer, away).await
    }

    /// Says why it ended, if it ended well.
    async fn talk<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &self,
        reader: &mut FrameReader<R>,
        writer: &mut FrameWriter<W>,
        seat: &Seat,
        served: Arc<Served>,
        hello: Hello,
    ) -> Result<Away, ExchangeError> {
        let (changes, mut end) = (served.changes(), served.changes());
        let told = served.store().here();
        self.means.metrics.messages.inc_by(2);
        writer.put(&Tell::Hello(hello));
        writer.put(&Tell::Have(Bytes::copy_from_slice(told.as_bytes())));
        let queue = Queue::new(self.requests);
        let (means, served, queue) = (&*self.means, &served, &queue);
        let answering = Answering { means, served, queue, seat, writer, changes, told };
        tokio::select! {
            ended = answering.run() => ended.map(|()| Away::NotServed),
            ended = self.listen(reader, served, queue, seat) => ended,
            () = end.end() => Ok(Away::NotServed),
            () = seat.dismissed() => Ok(Away::Busy),
        }
    }

    /// Until nothing is asked for a while.
    async fn listen<R: AsyncRead + Unpin>(
        &self,
        reader: &mut FrameReader<R>,
        served: &Served,
        queue: &Queue,
        seat: &Seat,
    ) -> Result<Away, ExchangeError> {
        loop {
            let Ok(frame) = timeout(ASKS_WITHIN, reader.next()).await else {
                if queue.is_idle() {
                    return Ok(Away::Idle);
                }
                continue;
            };
            self.means.metrics.messages.inc();
            match Ask::try_from(frame?)? {
                Ask::Hello(_) => return Err(ExchangeError::field("hello", "was said already")),
                Ask::Torrent => queue.torrent()?,
                Ask::Request(piece) => {
                    if piece.0 >= served.store().metainfo().layout().pieces() {
                        let reason = format!("is {piece}, there is no such piece");
                        return Err(ExchangeError::field("request.piece", reason));
                    }
                    let refused = queue.request(piece, served.store().has(piece))?;
                    self.means.metrics.refused.inc_by(u64::from(refused.is_some()));
                }
                Ask::Cancel(piece) => queue.cancel(piece),
            }
            seat.is_idle(queue.is_idle());
        }
    }

    async fn goodbye<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut FrameWriter<W>,
        away: Away,
    ) -> Result<(), ExchangeError> {
        self.means.metrics.messages.inc();
        writer.finish(&Tell::Away(away)).await
    }
}

async fn hello<R: AsyncRead + Unpin>(reader: &mut FrameReader<R>) -> Result<Hello, ExchangeError> {
    match Ask::try_from(reader.next().await?)? {
        Ask::Hello(hello) => Ok(hello),
        _ => Err(ExchangeError::field("hello", "must be said first")),
    }
}
