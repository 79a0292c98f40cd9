//! Frames on a stream: each message behind its length, and everything that waits for the other end with a bound.

use std::{io, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, error::Elapsed, timeout},
};

use crate::{error::ExchangeError, wire::Message};

/// Bytes of a frame's length.
const PREFIX: usize = 4;
/// So much room is made at once: who announces a long frame and does not send it costs no more.
const ROOM: usize = 64 * 1024;
/// A peer that reads takes a message in milliseconds, or in seconds over the slowest network. Otherwise it only holds
/// what is being sent to it.
const TAKES_WITHIN: Duration = Duration::from_secs(20);

/// Reads frames. Cancel safe: what came of a frame stays here.
pub(crate) struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
    limit: usize,
    last: Instant,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Of messages with at most `limit` bytes.
    pub(crate) fn new(io: R, limit: usize) -> Self {
        Self { io, buffer: BytesMut::new(), limit, last: Instant::now() }
    }

    /// The next message, without its length.
    pub(crate) async fn next(&mut self) -> Result<Bytes, ExchangeError> {
        loop {
            let missing = match self.buffer.first_chunk::<PREFIX>() {
                None => PREFIX - self.buffer.len(),
                Some(prefix) => {
                    let length = u32::from_be_bytes(*prefix) as usize;
                    if length == 0 || length > self.limit {
                        let reason = format!("is {length}, must be 1 to {}", self.limit);
                        return Err(ExchangeError::field("frame.length", reason));
                    }
                    if self.buffer.len() >= PREFIX + length {
                        self.buffer.advance(PREFIX);
                        return Ok(self.buffer.split_to(length).freeze());
                    }
                    PREFIX + length - self.buffer.len()
                }
            };
            self.buffer.reserve(missing.min(ROOM));
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.last = Instant::now();
        }
    }

    /// When something came last, be it a part of a message.
    pub(crate) fn last(&self) -> Instant {
        self.last
    }
}

/// Writes frames. Cancel safe: what is left of a frame goes before the next one.
pub(crate) struct FrameWriter<W> {
    io: W,
    out: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(io: W) -> Self {
        Self { io, out: BytesMut::new() }
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: &impl Message) -> Result<(), ExchangeError> {
        self.put(message);
        self.flush().await
    }

    /// Puts a message before the next one that is sent.
    pub(crate) fn put(&mut self, message: &impl Message) {
        let start = self.out.len();
        self.out.put_u32(0);
        message.put(&mut self.out);
        let length = (self.out.len() - start - PREFIX) as u32;
        self.out[start..start + PREFIX].copy_from_slice(&length.to_be_bytes());
    }

    /// Sends what was put.
    pub(crate) async fn flush(&mut self) -> Result<(), ExchangeError> {
        let write = async {
            self.io.write_all_buf(&mut self.out).await?;
            self.io.flush().await
        };
        Ok(timeout(TAKES_WITHIN, write).await.map_err(does_not_read)??)
    }

    /// Sends the last message, and says that nothing follows.
    pub(crate) async fn finish(&mut self, message: &impl Message) -> Result<(), ExchangeError> {
        self.send(message).await?;
        let closed = timeout(TAKES_WITHIN, self.io.shutdown()).await;
        Ok(closed.map_err(does_not_read)??)
    }
}

fn does_not_read(_: Elapsed) -> ExchangeError {
    ExchangeError::Silent("it does not read")
}

#[cfg(test)]
mod tests {
    use model_torrent::PieceIndex;
    use tokio::io::duplex;

    use super::*;
    use crate::wire::Ask;

    #[tokio::test]
    async fn messages_come_whole_however_they_are_cut() {
        let (here, mut there) = duplex(1 << 16);
        let mut writer = FrameWriter::new(here);
        writer.put(&Ask::Request(PieceIndex(1)));
        writer.send(&Ask::Torrent).await.unwrap();
        let mut sent = vec![0; 14];
        there.read_exact(&mut sent).await.unwrap();
        let (mut slow, end) = duplex(1);
        let mut reader = FrameReader::new(end, 16);
        let write = async { slow.write_all(&sent).await.unwrap() };
        let read = async { [reader.next().await.unwrap(), reader.next().await.unwrap()] };
        let ((), frames) = tokio::join!(write, read);
        let asks = frames.map(|frame| Ask::try_from(frame).unwrap());
        assert_eq!(asks, [Ask::Request(PieceIndex(1)), Ask::Torrent]);
    }

    #[tokio::test]
    async fn a_length_out_of_bounds_is_refused_at_once() {
        for length in [0u32, 17, u32::MAX] {
            let (mut there, here) = duplex(64);
            there.write_all(&length.to_be_bytes()).await.unwrap();
            let refused = FrameReader::new(here, 16).next().await.unwrap_err();
            assert!(refused.to_string().contains("frame.length is"), "{refused}");
        }
    }
}
