//! The torrent itself, from whoever holds it: it is needed before anything else.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use model_torrent::{Metainfo, TORRENT_LIMIT};
use swarm_types::{ModelDigest, NodeId};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use crate::{
    book::Book,
    conversation::{Conversation, Failed},
    error::ExchangeError,
    fetchers::Fetchers,
    metrics::Left,
    peers::Peers,
    wire::{Ask, Tell},
};

/// A usual torrent comes in less; then the next holder is tried too.
const NEXT_AFTER: Duration = Duration::from_secs(3);
/// Holders that are tried at once.
const AT_ONCE: usize = 3;
/// The next bytes come in so long.
const PART_WITHIN: Duration = Duration::from_secs(5);
/// The whole torrent does: 32 MiB of the largest one at 2 Mbit/s.
const WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// Between two questions for holders; then longer and longer.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_AT_LAST: Duration = Duration::from_secs(10);
/// Hashes in a torrent, 32 bytes each, are one for each bit of the bit field; a file takes less than this besides.
const BYTES_A_FILE: usize = 1024 * 256;

type Try = (NodeId, Result<Metainfo, Left>);

/// The torrent with this info-hash. Goes on until somebody gives it.
pub(crate) async fn metainfo<P: Peers>(fetchers: &Fetchers<P>, info_hash: ModelDigest) -> Arc<Metainfo> {
    let (mut book, mut wait) = (Book::new(fetchers.banned.clone()), ASK_AGAIN);
    loop {
        book.held_by(fetchers.peers.holders(info_hash).await);
        if let Some(metainfo) = from_any(fetchers, info_hash, &mut book).await {
            return Arc::new(metainfo);
        }
        sleep(wait).await;
        wait = (wait * 3 / 2).min(ASK_AT_LAST);
    }
}

/// Tries each holder, the next one when one fails or takes long.
async fn from_any<P: Peers>(
    fetchers: &Fetchers<P>,
    info_hash: ModelDigest,
    book: &mut Book,
) -> Option<Metainfo> {
    let mut candidates: Vec<NodeId> = book.candidates(Instant::now()).into_iter().cloned().collect();
    let mut tries: JoinSet<Try> = JoinSet::new();
    loop {
        if let Some(peer) = candidates.pop_if(|_| tries.len() < AT_ONCE) {
            let peers = fetchers.peers.clone();
            tries.spawn(async move {
                let from = timeout(WHOLE_WITHIN, from(&peers, &peer, info_hash)).await;
                (peer, from.unwrap_or(Err(Left::Stalled)))
            });
        }
        let more = !candidates.is_empty() && tries.len() < AT_ONCE;
        tokio::select! {
            ended = tries.join_next() => match ended {
                None => return None,
                Some(Ok((_, Ok(metainfo)))) => return Some(metainfo),
                Some(Ok((peer, Err(cause)))) => {
                    fetchers.metrics.count_left(cause);
                    book.left(&peer, cause, Instant::now());
                }
                Some(Err(error)) => debug!(%error, "a try for the torrent ended"),
            },
            () = sleep(NEXT_AFTER), if more => {}
        }
    }
}

async fn from<P: Peers>(peers: &P, peer: &NodeId, info_hash: ModelDigest) -> Result<Metainfo, Left> {
    let torrent = async {
        let (conversation, bits) = Conversation::begin(peers, peer, info_hash).await?;
        parts(conversation, &bits).await.map_err(Failed::Error)
    };
    let torrent = torrent.await.map_err(|failed| match failed {
        Failed::Unreachable => Left::Unreachable,
        Failed::Error(error) => {
            debug!(%peer, %error, "no torrent from this peer");
            Left::from(&error)
        }
    })?;
    let read = spawn_blocking(move || Metainfo::from_bytes(&torrent, TORRENT_LIMIT));
    let read = read.await.map_err(|_| Left::Broken)?;
    read.ok().filter(|metainfo| metainfo.info_hash() == info_hash).ok_or(Left::Wrong)
}

/// The torrent's bytes, believed in nothing yet but that they are not too many.
async fn parts<S>(mut conversation: Conversation<S>, bits: &Bytes) -> Result<BytesMut, ExchangeError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let plausible = (bits.len() * 8 * 32 + BYTES_A_FILE).min(TORRENT_LIMIT);
    let (mut torrent, mut expected) = (BytesMut::new(), None);
    conversation.ask(&Ask::Torrent).await?;
    loop {
        let told = timeout(PART_WITHIN, conversation.next()).await;
        match told.map_err(|_| ExchangeError::Silent("the torrent does not come"))?? {
            Tell::Part { total, offset, bytes } => {
                let total = total as usize;
                if total > plausible || *expected.get_or_insert(total) != total {
                    return Err(ExchangeError::field("part.length", "is not plausible, or changes"));
                }
                if offset as usize != torrent.len() || torrent.len() + bytes.len() > total {
                    return Err(ExchangeError::field("part.offset", "is not where the last part ended"));
                }
                torrent.extend_from_slice(&bytes);
                if torrent.len() == total {
                    return Ok(torrent);
                }
            }
            Tell::Got(_) | Tell::Have(_) => {}
            _ => return Err(ExchangeError::field("message.kind", "is not what was asked for")),
        }
    }
}
