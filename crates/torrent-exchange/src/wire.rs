//! The protocol: which messages there are, and their form.
//!
//! Each message is a frame: its length in four bytes, without these four, then a byte that names the message, then its
//! fields. Numbers are unsigned, highest byte first. Nothing follows the last field.
//!
//! | byte | message | from | fields |
//! |---|---|---|---|
//! | 1 | hello | both, first | version (2 bytes), info-hash (32) |
//! | 2 | torrent | who fetches | none; at most once a stream |
//! | 3 | request | who fetches | piece (4) |
//! | 4 | cancel | who fetches | piece (4) |
//! | 5 | have | who seeds | bit field as in BitTorrent: all that is here now |
//! | 6 | got | who seeds | piece (4) that came here since |
//! | 7 | part | who seeds | of the torrent: its length (4), where the part begins (4), bytes |
//! | 8 | piece | who seeds | piece (4), where in it the bytes begin (4), bytes |
//! | 9 | refused | who seeds | piece (4), cause (1) |
//! | 10 | away | who seeds, last | cause (1) |
//!
//! Who opened the stream says hello; the other answers with hello and have, or with away. Each request is answered by
//! all bytes of the piece, in order and not mixed with those of another piece, or by refused, also after some of the
//! bytes. Cancel is answered by refused unless the last bytes are on their way already. A piece is not requested again
//! before its answer is complete.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model_torrent::PieceIndex;
use swarm_types::ModelDigest;

use crate::{
    causes::{Away, Refusal},
    error::ExchangeError,
};

/// Of this protocol. Who has another one is refused.
pub(crate) const VERSION: u16 = 1;
/// Bytes of the longest message from who fetches: each is much shorter.
pub(crate) const ASK_LIMIT: usize = 1024;
/// Bytes of a piece or a torrent in one message; the bit field of the largest torrents takes half.
pub(crate) const DATA_LIMIT: usize = 256 * 1024;
/// The longest message from who seeds: such bytes, and what stands before them.
pub(crate) const TELL_LIMIT: usize = DATA_LIMIT + 16;

/// The first message from both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    pub(crate) info_hash: ModelDigest,
}

/// From who fetches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    Hello(Hello),
    Torrent,
    Request(PieceIndex),
    Cancel(PieceIndex),
}

/// From who seeds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Tell {
    Hello(Hello),
    /// The bit field. How many bits it should have, only who has the torrent knows.
    Have(Bytes),
    Got(PieceIndex),
    Part {
        total: u32,
        offset: u32,
        bytes: Bytes,
    },
    Piece {
        piece: PieceIndex,
        offset: u32,
        bytes: Bytes,
    },
    Refused(PieceIndex, Refusal),
    Away(Away),
}

/// Writes itself behind its length.
pub(crate) trait Message {
    /// The byte with the name, and the fields.
    fn put(&self, out: &mut BytesMut);
}

impl Message for Ask {
    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Hello(hello) => put_hello(out, hello),
            Self::Torrent => out.put_u8(2),
            Self::Request(piece) => put_piece(out, 3, *piece),
            Self::Cancel(piece) => put_piece(out, 4, *piece),
        }
    }
}

impl Message for Tell {
    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Hello(hello) => put_hello(out, hello),
            Self::Have(bits) => {
                out.put_u8(5);
                out.put_slice(bits);
            }
            Self::Got(piece) => put_piece(out, 6, *piece),
            Self::Part { total, offset, bytes } => {
                out.put_u8(7);
                out.put_u32(*total);
                out.put_u32(*offset);
                out.put_slice(bytes);
            }
            Self::Piece { piece, offset, bytes } => {
                put_piece(out, 8, *piece);
                out.put_u32(*offset);
                out.put_slice(bytes);
            }
            Self::Refused(piece, cause) => {
                put_piece(out, 9, *piece);
                out.put_u8(match cause {
                    Refusal::NotHere => 1,
                    Refusal::Full => 2,
                    Refusal::Cancelled => 3,
                    Refusal::Unreadable => 4,
                });
            }
            Self::Away(cause) => {
                out.put_u8(10);
                out.put_u8(match cause {
                    Away::NotServed => 1,
                    Away::Busy => 2,
                    Away::Idle => 3,
                });
            }
        }
    }
}

fn put_hello(out: &mut BytesMut, hello: &Hello) {
    out.put_u8(1);
    out.put_u16(VERSION);
    out.put_slice(&hello.info_hash.0);
}

fn put_piece(out: &mut BytesMut, kind: u8, piece: PieceIndex) {
    out.put_u8(kind);
    out.put_u32(piece.0);
}

impl TryFrom<Bytes> for Ask {
    type Error = ExchangeError;

    fn try_from(frame: Bytes) -> Result<Self, ExchangeError> {
        let mut fields = Fields(frame);
        let ask = match fields.u8("message.kind")? {
            1 => Self::Hello(fields.hello()?),
            2 => Self::Torrent,
            3 => Self::Request(PieceIndex(fields.u32("request.piece")?)),
            4 => Self::Cancel(PieceIndex(fields.u32("cancel.piece")?)),
            other => return Err(unknown(other, "who fetches")),
        };
        fields.end().map(|()| ask)
    }
}

impl TryFrom<Bytes> for Tell {
    type Error = ExchangeError;

    fn try_from(frame: Bytes) -> Result<Self, ExchangeError> {
        let mut fields = Fields(frame);
        let tell = match fields.u8("message.kind")? {
            1 => Self::Hello(fields.hello()?),
            5 => Self::Have(fields.rest("have.bit field")?),
            6 => Self::Got(PieceIndex(fields.u32("got.piece")?)),
            7 => Self::Part {
                total: fields.u32("part.length")?,
                offset: fields.u32("part.offset")?,
                bytes: fields.rest("part.bytes")?,
            },
            8 => Self::Piece {
                piece: PieceIndex(fields.u32("piece.piece")?),
                offset: fields.u32("piece.offset")?,
                bytes: fields.rest("piece.bytes")?,
            },
            9 => Self::Refused(PieceIndex(fields.u32("refused.piece")?), fields.refusal()?),
            10 => Self::Away(fields.away()?),
            other => return Err(unknown(other, "who seeds")),
        };
        fields.end().map(|()| tell)
    }
}

fn unknown(kind: u8, from: &str) -> ExchangeError {
    ExchangeError::field("message.kind", format!("is {kind}, which {from} does not send"))
}

/// What is left to read of a frame.
struct Fields(Bytes);

impl Fields {
    fn u8(&mut self, field: &'static str) -> Result<u8, ExchangeError> {
        self.0.try_get_u8().map_err(|_| short(field))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, ExchangeError> {
        self.0.try_get_u32().map_err(|_| short(field))
    }

    fn hello(&mut self) -> Result<Hello, ExchangeError> {
        let version = self.0.try_get_u16().map_err(|_| short("hello.version"))?;
        if version != VERSION {
            return Err(ExchangeError::field("hello.version", format!("is {version}, must be {VERSION}")));
        }
        let mut hash = [0; 32];
        self.0.try_copy_to_slice(&mut hash).map_err(|_| short("hello.info-hash"))?;
        Ok(Hello { info_hash: ModelDigest(hash) })
    }

    fn refusal(&mut self) -> Result<Refusal, ExchangeError> {
        match self.u8("refused.cause")? {
            1 => Ok(Refusal::NotHere),
            2 => Ok(Refusal::Full),
            3 => Ok(Refusal::Cancelled),
            4 => Ok(Refusal::Unreadable),
            other => Err(ExchangeError::field("refused.cause", format!("is {other}, must be 1 to 4"))),
        }
    }

    fn away(&mut self) -> Result<Away, ExchangeError> {
        match self.u8("away.cause")? {
            1 => Ok(Away::NotServed),
            2 => Ok(Away::Busy),
            3 => Ok(Away::Idle),
            other => Err(ExchangeError::field("away.cause", format!("is {other}, must be 1 to 3"))),
        }
    }

    /// All that is left; some must be.
    fn rest(&mut self, field: &'static str) -> Result<Bytes, ExchangeError> {
        match self.0.len() {
            0 => Err(short(field)),
            1..=DATA_LIMIT => Ok(std::mem::take(&mut self.0)),
            more => Err(ExchangeError::field(field, format!("has {more} bytes, more than {DATA_LIMIT}"))),
        }
    }

    fn end(self) -> Result<(), ExchangeError> {
        match self.0.len() {
            0 => Ok(()),
            more => Err(ExchangeError::field("message", format!("has {more} bytes behind its end"))),
        }
    }
}

fn short(field: &'static str) -> ExchangeError {
    ExchangeError::field(field, "is missing or cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(message: &impl Message) -> Bytes {
        let mut out = BytesMut::new();
        message.put(&mut out);
        out.freeze()
    }

    #[test]
    fn a_message_is_read_as_it_is_written() {
        let (piece, data) = (PieceIndex(70_000), Bytes::from_static(b"some"));
        let hello = Hello { info_hash: ModelDigest([9; 32]) };
        for ask in [Ask::Hello(hello), Ask::Torrent, Ask::Request(piece), Ask::Cancel(piece)] {
            assert_eq!(Ask::try_from(bytes(&ask)).unwrap(), ask);
        }
        let refusals = [Refusal::NotHere, Refusal::Full, Refusal::Cancelled, Refusal::Unreadable];
        let refused = refusals.map(|cause| Tell::Refused(piece, cause));
        let away = [Away::NotServed, Away::Busy, Away::Idle].map(Tell::Away);
        let others = [
            Tell::Hello(hello),
            Tell::Have(data.clone()),
            Tell::Got(piece),
            Tell::Part { total: 9, offset: 5, bytes: data.clone() },
            Tell::Piece { piece, offset: 3, bytes: data },
        ];
        for tell in others.into_iter().chain(refused).chain(away) {
            assert_eq!(Tell::try_from(bytes(&tell)).unwrap(), tell);
        }
    }

    #[test]
    fn what_is_wrong_is_refused_by_the_name_of_its_field() {
        let said = |frame: &[u8]| {
            let frame = Bytes::copy_from_slice(frame);
            let ask = Ask::try_from(frame.clone()).map(|_| ()).unwrap_err().to_string();
            let tell = Tell::try_from(frame).map(|_| ()).unwrap_err().to_string();
            format!("{ask}; {tell}")
        };
        for (frame, words) in [
            (&[][..], "message.kind is missing"),
            (&[1, 0], "hello.version is missing"),
            (&[1, 0, 9], "hello.version is 9, must be 1"),
            (&[1, 0, 1, 5], "hello.info-hash is missing"),
            (&[2, 0], "message has 1 bytes behind its end"),
            (&[3, 0, 0, 1], "request.piece is missing"),
            (&[4, 0, 0, 0, 1, 0], "message has 1 bytes behind its end"),
            (&[5], "have.bit field is missing"),
            (&[7, 0, 0, 0, 1, 0], "part.offset is missing"),
            (&[8, 0, 0, 0, 1, 0, 0, 0, 0], "piece.bytes is missing"),
            (&[9, 0, 0, 0, 1, 7], "refused.cause is 7, must be 1 to 4"),
            (&[10, 0], "away.cause is 0, must be 1 to 3"),
            (&[11], "message.kind is 11, which who seeds does not send"),
        ] {
            assert!(said(frame).contains(words), "{frame:?}: {}", said(frame));
        }
    }
}
