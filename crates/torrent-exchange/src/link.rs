//! One peer that pieces are fetched from: its stream, in a task of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use model_torrent::{Metainfo, PieceIndex, PieceSet};
use swarm_types::NodeId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep_until},
};
use tracing::debug;

use crate::{
    assembly::Assembly,
    causes::Refusal,
    conversation::{Conversation, Failed},
    error::ExchangeError,
    metrics::{Left, Metrics},
    peers::Peers,
    wire::{Ask, Tell},
};

/// A peer from which nothing comes for so long, though something is under way, is left.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Who lost pieces tells again what it has; that seldom happens.
const NEWS_BESIDES: u64 = 1024;

/// What to ask of the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    Ask(PieceIndex),
    Cancel(PieceIndex),
}

/// What the peer did.
#[derive(Debug)]
pub(crate) enum Event {
    /// It tells all that it has.
    Has(PieceSet),
    /// It has one more.
    Got(PieceIndex),
    /// A piece came, not checked yet; and the right to check and write it.
    Whole(PieceIndex, Vec<u8>, OwnedSemaphorePermit),
    /// It does not send a piece.
    Refused(PieceIndex, Refusal),
    /// It is not talked to any more. Nothing follows.
    Ended(Left),
}

/// An event, by whom: the number of the stream too, since a peer may be left and come back.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) peer: NodeId,
    pub(crate) number: u64,
    pub(crate) event: Event,
}

/// The task of a stream.
pub(crate) struct Link<P> {
    pub(crate) peers: P,
    pub(crate) peer: NodeId,
    pub(crate) number: u64,
    pub(crate) metainfo: Arc<Metainfo>,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) news: mpsc::Sender<News>,
    /// Bytes of pieces that came.
    pub(crate) received: Arc<AtomicU64>,
    pub(crate) writes: Arc<Semaphore>,
    pub(crate) metrics: Metrics,
}

impl<P: Peers> Link<P> {
    /// Until the peer is left or leaves.
    pub(crate) async fn run(mut self) {
        let begun = Conversation::begin(&self.peers, &self.peer, self.metainfo.info_hash()).await;
        let ended = match begun {
            Err(not_begun) => Err(not_begun),
            Ok((conversation, bits)) => self.talk(conversation, &bits).await.map_err(Failed::Error),
        };
        let left = match ended {
            Ok(()) => return,
            Err(Failed::Unreachable) => Left::Unreachable,
            Err(Failed::Error(error)) => {
                debug!(peer = %self.peer, %error, "the talk with a peer ended");
                Left::from(&error)
            }
        };
        _ = self.tell(Event::Ended(left)).await;
    }

    /// Ends well when the fetcher has no more orders.
    async fn talk(&mut self, mut with: Conversation<P::Stream>, bits: &Bytes) -> Result<(), ExchangeError> {
        let (mut assembly, mut waits_since, mut told) = (Assembly::default(), Instant::now(), 0);
        self.tell(Event::Has(self.pieces(bits)?)).await?;
        loop {
            let stalled = with.last().max(waits_since) + STALLED_AFTER;
            tokio::select! {
                order = self.orders.recv() => match order {
                    None => return Ok(()),
                    Some(Order::Ask(piece)) => {
                        if assembly.is_idle() {
                            waits_since = Instant::now();
                        }
                        if let Some(piece) = self.metainfo.layout().piece(piece) {
                            assembly.ask(&piece);
                        }
                        with.ask(&Ask::Request(piece)).await?;
                    }
                    Some(Order::Cancel(piece)) if assembly.cancel(piece) => {
                        with.ask(&Ask::Cancel(piece)).await?;
                    }
                    Some(Order::Cancel(_)) => {}
                },
                tell = with.next() => {
                    let tell = tell?;
                    told += u64::from(matches!(tell, Tell::Have(_) | Tell::Got(_)));
                    if told > u64::from(self.metainfo.layout().pieces()) + NEWS_BESIDES {
                        return Err(ExchangeError::field("got", "is told more often than there are pieces"));
                    }
                    self.told(tell, &mut assembly).await?;
                    // What took time here was not the peer.
                    waits_since = Instant::now();
                }
                () = sleep_until(stalled), if !assembly.is_idle() => {
                    return Err(ExchangeError::Silent("what was asked of it does not come"));
                }
            }
        }
    }

    async fn told(&mut self, told: Tell, assembly: &mut Assembly) -> Result<(), ExchangeError> {
        match told {
            Tell::Have(bits) => self.tell(Event::Has(self.pieces(&bits)?)).await,
            Tell::Got(piece) if self.metainfo.layout().piece(piece).is_none() => {
                Err(ExchangeError::field("got.piece", format!("is {piece}, there is no such piece")))
            }
            Tell::Got(piece) => self.tell(Event::Got(piece)).await,
            Tell::Piece { piece, offset, bytes } => {
                let count = bytes.len() as u64;
                self.metrics.received.inc_by(count);
                self.received.fetch_add(count, Relaxed);
                let Some(whole) = assembly.take(piece, offset, &bytes)? else { return Ok(()) };
                // While others are written nothing more is read, so no more than one piece waits for each peer.
                let permit = self.writes.clone().acquire_owned().await;
                let permit = permit.map_err(|_| ExchangeError::Ended)?;
                self.tell(Event::Whole(piece, whole, permit)).await
            }
            Tell::Refused(piece, cause) => match assembly.refused(piece)? {
                true => self.tell(Event::Refused(piece, cause)).await,
                false => Ok(()),
            },
            Tell::Hello(_) | Tell::Part { .. } | Tell::Away(_) => {
                Err(ExchangeError::field("message.kind", "is not what was asked for"))
            }
        }
    }

    fn pieces(&self, bits: &Bytes) -> Result<PieceSet, ExchangeError> {
        let pieces = self.metainfo.layout().pieces();
        let wrong = || ExchangeError::field("have.bit field", format!("is not one of {pieces} pieces"));
        PieceSet::from_bytes(bits, pieces).ok_or_else(wrong)
    }

    async fn tell(&self, event: Event) -> Result<(), ExchangeError> {
        let news = News { peer: self.peer.clone(), number: self.number, event };
        self.news.send(news).await.map_err(|_| ExchangeError::Ended)
    }
}
