//! One node watches another: it sends a byte over a stream of the connection and waits for it to come back, again and
//! again. So each end hears from the other. Nothing in time is silence, which may be a machine that has vanished, a
//! line that is cut, or a process that has too much to do; telling these apart is for whoever hears of it.
//!
//! How long an answer may take is what this connection has shown lately, within bounds: where machines are overloaded
//! or far away, slow is not silent.

use std::{
    io,
    pin::pin,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::PeerId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    links::{Links, OPEN_WITHIN},
    stream::{PeerListener, PeerStream},
};
use crate::{metrics::Metrics, peer, peers::dialer::backoff};

/// From one question to the next, between two that work together, and else. Each tells the other what it wants, as a
/// number of units, and who asks does what the hastier one wants.
const OFTEN: u8 = 3;
const SELDOM: u8 = 6;
const UNIT: Duration = Duration::from_millis(100);
/// Without an answer for so long a peer is silent, whatever it has shown before.
const LEAST_PATIENCE: Duration = Duration::from_millis(800);
const MOST_PATIENCE: Duration = Duration::from_secs(4);
/// Whom this node has called for so long is one that it works with.
pub(crate) const WORKS_WITH_FOR: Duration = Duration::from_secs(10 * 60);
/// So many round trips a stream to a peer that may be gone takes to open, or it is silent: agreeing on the protocol is
/// one or two.
const ROUND_TRIPS_TO_OPEN: u32 = 6;
/// So many times the slowest answer of late.
const TIMES_THE_SLOWEST: u32 = 3;
/// How much of the slowest answer is forgotten with each that is faster: a minute later it counts for nothing.
const FORGETTING: f64 = 0.985;
/// When the time is over, what has come in meanwhile is looked at first: this node itself may have been stopped.
const GRACE: Duration = Duration::from_millis(50);
/// A silent peer is told of again as often.
const REMIND_EVERY: Duration = Duration::from_secs(2);
/// A peer answers nobody more often than this.
const ANSWER_EVERY: Duration = Duration::from_millis(20);
/// An answer is a few bytes; who does not take them has gone.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// Streams to answer on, of all peers.
const MAX_ANSWERED: usize = 2048;

/// What a watched peer shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sign {
    /// It has not answered what it was asked then, and still does not.
    Silent { since: Instant },
    /// It answers again.
    Answers,
}

/// Watches one peer.
pub(crate) struct Watcher {
    peer: PeerId,
    links: Links,
    metrics: Metrics,
    signs: mpsc::Sender<(PeerId, Sign)>,
    /// Others miss it, or it may have begun again.
    is_distrusted: bool,
    slowest: Slowest,
}

impl Watcher {
    pub(crate) fn new(
        peer: PeerId,
        links: Links,
        metrics: Metrics,
        signs: mpsc::Sender<(PeerId, Sign)>,
        is_distrusted: bool,
    ) -> Self {
        Self { peer, links, metrics, signs, is_distrusted, slowest: Slowest::default() }
    }

    /// Runs until it is aborted or the node ends. Each connection is watched over a stream of its own.
    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        while !self.signs.is_closed() {
            let since = Instant::now();
            match self.open().await {
                Ok(stream) => {
                    self.follow(stream).await;
                    tracing::debug!(peer = %self.peer, "the stream by which it was watched has ended");
                }
                Err(error) => {
                    tracing::debug!(peer = %self.peer, %error, "it is not watched");
                    let timed_out = error.kind() == io::ErrorKind::TimedOut;
                    // Without a stream nothing is known of it.
                    let sign = if timed_out { Sign::Silent { since } } else { Sign::Answers };
                    // Whoever listened has ended with the node.
                    let _ = self.signs.send((self.peer, sign)).await;
                }
            }
            failures = if since.elapsed() >= MOST_PATIENCE { 1 } else { failures + 1 };
            sleep(backoff(failures)).await;
        }
    }

    /// A peer that may be gone has no more time for that than for an answer.
    async fn open(&self) -> io::Result<PeerStream> {
        let round_trips = self.links.round_trip(&self.peer).unwrap_or_default() * ROUND_TRIPS_TO_OPEN;
        let within =
            if self.is_distrusted { round_trips.clamp(LEAST_PATIENCE, MOST_PATIENCE) } else { OPEN_WITHIN };
        let opened = timeout(within, self.links.watch_stream(self.peer)).await;
        opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn follow(&mut self, mut stream: PeerStream) -> Option<()> {
        let mut is_first = true;
        loop {
            let asked = Instant::now();
            let wanted = wants(&self.links, &self.peer);
            let answer = async { ask(&mut stream, wanted).await.ok() };
            let theirs = heard(answer, self.slowest.patience(), asked, (self.peer, &self.signs)).await?;
            let took = asked.elapsed();
            self.slowest.note(took);
            self.links.answered(&self.peer, took);
            self.metrics.answered(took);
            if std::mem::take(&mut is_first) {
                // It may have been silent by another stream.
                self.signs.send((self.peer, Sign::Answers)).await.ok()?;
            }
            sleep(pause(wanted.min(theirs)).saturating_sub(took)).await;
        }
    }
}

/// How often this node wants to hear from the peer.
fn wants(links: &Links, peer: &PeerId) -> u8 {
    if links.was_called_within(peer, WORKS_WITH_FOR) { OFTEN } else { SELDOM }
}

/// The time to the next question, within bounds, whatever the peer says.
fn pause(units: u8) -> Duration {
    UNIT * u32::from(units.clamp(1, SELDOM))
}

/// One byte there, with what this node wants, and one back, with what the peer wants.
async fn ask(stream: &mut PeerStream, wanted: u8) -> io::Result<u8> {
    stream.write_all(&[wanted]).await?;
    stream.flush().await?;
    let mut theirs = [0];
    stream.read_exact(&mut theirs).await?;
    Ok(theirs[0])
}

/// The slowest answer of late.
#[derive(Debug, Default)]
struct Slowest(Duration);

impl Slowest {
    fn note(&mut self, took: Duration) {
        self.0 = self.0.mul_f64(FORGETTING).max(took.min(MOST_PATIENCE));
    }

    /// How long the next answer may take.
    fn patience(&self) -> Duration {
        (self.0 * TIMES_THE_SLOWEST).clamp(LEAST_PATIENCE, MOST_PATIENCE)
    }
}

/// Answers all who watch this node, until it leaves. Who asks is there: so each end of a stream watches the other.
pub(crate) async fn answer(mut watchers: PeerListener, links: Links, signs: mpsc::Sender<(PeerId, Sign)>) {
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            stream = watchers.next() => match stream {
                // Who has a place among so many watches well enough for all.
                Some(Ok(stream)) if answering.len() < MAX_ANSWERED => {
                    drop(answering.spawn(give_back(stream, links.clone(), signs.clone())));
                }
                Some(_) => {}
                None => return,
            },
            Some(_) = answering.join_next() => {}
        }
    }
}

/// Answers one who watches, until it asks no more.
async fn give_back(mut stream: PeerStream, links: Links, signs: mpsc::Sender<(PeerId, Sign)>) -> Option<()> {
    let peer = peer::peer_id(&stream.peer().node)?;
    let (mut slowest, mut next, mut is_first) = (Slowest::default(), pause(SELDOM), true);
    loop {
        let (since, mut theirs) = (Instant::now(), [0]);
        let asked = async { stream.read_exact(&mut theirs).await.ok() };
        heard(asked, next + slowest.patience(), since, (peer, &signs)).await?;
        slowest.note(since.elapsed().saturating_sub(next));
        next = pause(theirs[0]);
        if std::mem::take(&mut is_first) {
            signs.send((peer, Sign::Answers)).await.ok()?;
        }
        let answered = async {
            stream.write_all(&[wants(&links, &peer)]).await?;
            stream.flush().await
        };
        timeout(ANSWERED_WITHIN, answered).await.ok()?.ok()?;
        sleep(ANSWER_EVERY).await;
    }
}

/// Waits for a sign of life. Tells of a peer from which none comes in time, and again when one does.
async fn heard<T>(
    sign: impl Future<Output = Option<T>>,
    within: Duration,
    since: Instant,
    (peer, signs): (PeerId, &mpsc::Sender<(PeerId, Sign)>),
) -> Option<T> {
    let (mut sign, mut patience, mut silent) = (pin!(sign), within, false);
    loop {
        let came = match timeout(patience, &mut sign).await {
            Ok(came) => Some(came),
            // When the time is over, what has come in meanwhile is looked at first.
            Err(_) => timeout(GRACE, &mut sign).await.ok(),
        };
        // Whoever listens has ended with the node.
        match came {
            Some(came) if silent => {
                // Also when the stream has ended: without one nothing is known.
                signs.send((peer, Sign::Answers)).await.ok()?;
                return came;
            }
            Some(came) => return came,
            None => signs.send((peer, Sign::Silent { since })).await.ok()?,
        }
        (patience, silent) = (REMIND_EVERY, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_what_a_peer_has_shown_of_late_within_bounds() {
        let mut slowest = Slowest::default();
        assert_eq!(slowest.patience(), LEAST_PATIENCE);
        slowest.note(Duration::from_millis(1));
        assert_eq!(slowest.patience(), LEAST_PATIENCE, "who is near has no less");
        slowest.note(Duration::from_secs(1));
        assert_eq!(slowest.patience(), Duration::from_secs(3), "slow is not silent");
        slowest.note(Duration::from_secs(20));
        assert_eq!(slowest.patience(), MOST_PATIENCE);
        for _ in 0..200 {
            slowest.note(Duration::from_millis(1));
        }
        assert_eq!(slowest.patience(), LEAST_PATIENCE, "and is forgotten");
    }
}
