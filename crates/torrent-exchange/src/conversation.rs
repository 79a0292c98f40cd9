//! The fetching end of one stream: hello, then asks and what is told.

use std::time::Duration;

use bytes::Bytes;
use swarm_types::{ModelDigest, NodeId};
use tokio::{
    io::{ReadHalf, WriteHalf, split},
    time::{Instant, timeout},
};

use crate::{
    error::ExchangeError,
    frames::{FrameReader, FrameWriter},
    peers::Peers,
    wire::{Ask, Hello, TELL_LIMIT, Tell},
};

/// To open a stream and be greeted, over a slow network and with a connection to be made first.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// A stream to a peer that serves a torrent.
pub(crate) struct Conversation<S> {
    reader: FrameReader<ReadHalf<S>>,
    writer: FrameWriter<WriteHalf<S>>,
}

/// Why there is no conversation, or no more.
pub(crate) enum Failed {
    /// There is no stream.
    Unreachable,
    /// The peer, or the stream, does what it must not.
    Error(ExchangeError),
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Conversation<S> {
    /// With a peer, about a torrent. Gives the bit field of what it has too.
    pub(crate) async fn begin<P: Peers<Stream = S>>(
        peers: &P,
        peer: &NodeId,
        info_hash: ModelDigest,
    ) -> Result<(Self, Bytes), Failed> {
        let stream = match timeout(OPEN_WITHIN, peers.open(peer)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) | Err(_) => return Err(Failed::Unreachable),
        };
        let (reader, writer) = split(stream);
        let (reader, writer) = (FrameReader::new(reader, TELL_LIMIT), FrameWriter::new(writer));
        let mut begun = Self { reader, writer };
        let greeted = timeout(OPEN_WITHIN, begun.greet(Hello { info_hash })).await;
        let greeted = greeted.unwrap_or(Err(ExchangeError::Silent("it does not greet")));
        greeted.map(|bits| (begun, bits)).map_err(Failed::Error)
    }

    async fn greet(&mut self, hello: Hello) -> Result<Bytes, ExchangeError> {
        self.ask(&Ask::Hello(hello)).await?;
        match self.next().await? {
            Tell::Hello(theirs) if theirs == hello => {}
            Tell::Hello(_) => return Err(ExchangeError::field("hello.info-hash", "is of another torrent")),
            _ => return Err(ExchangeError::field("hello", "must be said first")),
        }
        match self.next().await? {
            Tell::Have(bits) => Ok(bits),
            _ => Err(ExchangeError::field("have", "must follow hello")),
        }
    }

    /// The next message; going away is an error. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Tell, ExchangeError> {
        match Tell::try_from(self.reader.next().await?)? {
            Tell::Away(cause) => Err(ExchangeError::Away(cause)),
            tell => Ok(tell),
        }
    }

    /// Says something.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Result<(), ExchangeError> {
        self.writer.send(ask).await
    }

    /// When something came last.
    pub(crate) fn last(&self) -> Instant {
        self.reader.last()
    }
}
