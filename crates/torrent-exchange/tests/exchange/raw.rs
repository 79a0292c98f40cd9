//! The protocol by hand, byte by byte, for peers that do what ours never do.

use model_torrent::Metainfo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A message behind its length.
pub(crate) fn frame(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
    let body = [&[kind], fields.concat().as_slice()].concat();
    [&(body.len() as u32).to_be_bytes(), body.as_slice()].concat()
}

/// Hello, of version 1.
pub(crate) fn hello(metainfo: &Metainfo) -> Vec<u8> {
    frame(1, &[&1u16.to_be_bytes(), &metainfo.info_hash().0])
}

/// A piece's bytes from `offset` on.
pub(crate) fn piece(piece: u32, offset: u32, bytes: &[u8]) -> Vec<u8> {
    frame(8, &[&piece.to_be_bytes(), &offset.to_be_bytes(), bytes])
}

/// The next message: its kind and its fields; nothing at the end.
pub(crate) async fn next(stream: &mut DuplexStream) -> Option<(u8, Vec<u8>)> {
    let length = stream.read_u32().await.ok()? as usize;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let fields = body.split_off(1);
    Some((body[0], fields))
}

/// Reads the hello, and answers with `has`, a bit field.
pub(crate) async fn greet(stream: &mut DuplexStream, metainfo: &Metainfo, has: &[u8]) {
    assert_eq!(next(stream).await.map(|(kind, _)| kind), Some(1));
    stream.write_all(&[hello(metainfo), frame(5, &[has])].concat()).await.expect("it is read");
}

/// The next piece that is asked for.
pub(crate) async fn requested(stream: &mut DuplexStream) -> Option<u32> {
    loop {
        let (kind, fields) = next(stream).await?;
        if kind == 3 {
            return fields.try_into().ok().map(u32::from_be_bytes);
        }
    }
}
