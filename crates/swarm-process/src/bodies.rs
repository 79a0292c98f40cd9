//! The bodies of requests, taken in whole before anything is done with them, within bounds of time and memory.
//!
//! Each must come on at a pace. Of those that may be large, the number is bounded that has not come whole, and once one
//! is large, it has to have its room before more of it is read, until nobody needs its bytes any more. While it has
//! not, it is not read, and by flow control its client sends no more of it. When room runs short, unfinished bodies
//! give way by the rule of [`Shares`]: first those of whoever has most of it. One that comes with its head waits for
//! nobody.

use std::{io::Read, net::IpAddr, pin::pin, task::Poll, time::Duration};

use axum::body::{Body, Bytes};
use flate2::read::GzDecoder;
use futures::poll;
use http::Extensions;
use http_body::Body as _;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    listener::{Lane, client_of},
    shares::{Crowded, Share, Shares, Terms},
};

/// A body up to this size needs no room of its own: the number of bodies bounds them.
const SMALL: usize = 64 << 10;
/// What may have no more than this is bounded enough by the number of requests.
const TINY: usize = 8 << 10;

/// Of a body that is too large: as much as two of the largest that are not.
const THROWN_AWAY: usize = 8 << 20;
const THROWN_AWAY_WITHIN: Duration = Duration::from_secs(2);

/// How much may be unfinished on one port, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct BodyBounds {
    /// Bodies that have not come whole; as many large ones more may wait for room.
    pub unfinished: usize,
    /// Bytes of all large bodies, also of whole ones that are not read yet.
    pub bytes: usize,
    /// Each has so long.
    pub patience: Duration,
    /// And a second more for so many bytes that have come.
    pub bytes_per_second: u32,
    /// When room runs short, a large body does not give way before it had it for so long.
    pub turn: Duration,
}

impl Default for BodyBounds {
    fn default() -> Self {
        Self {
            unfinished: 128,
            bytes: 12 << 20,
            patience: Duration::from_secs(10),
            // A client on a slow line; the largest body then has 42 s.
            bytes_per_second: 128 << 10,
            turn: Duration::from_secs(2),
        }
    }
}

/// A body that did not come whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More bytes than it may have.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// What it may have.
        limit: usize,
    },
    /// Too slow by itself, or while others waited for its room.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// Too many others are unfinished.
    #[error("too many bodies are unfinished, try again later")]
    Crowded(#[from] Crowded),
    /// It is said to be packed with gzip, and is not.
    #[error("it cannot be unpacked: {0}")]
    Packed(#[source] std::io::Error),
    /// The client left, or sent what is no body.
    #[error("the body cannot be read: {0}")]
    Broken(#[source] axum::Error),
}

/// The unfinished bodies of one port. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bodies {
    bounds: BodyBounds,
    unfinished: Shares,
    bytes: Shares,
}

impl Default for Bodies {
    fn default() -> Self {
        Self::new(BodyBounds::default())
    }
}

impl Bodies {
    /// None yet.
    #[must_use]
    pub fn new(bounds: BodyBounds) -> Self {
        let shares = |amount, spared, at_once| {
            Shares::new(Terms { amount, waiting: bounds.unfinished, spared, at_once })
        };
        Self {
            bounds,
            // The last to come is the likeliest to come whole.
            unfinished: shares(bounds.unfinished, Duration::ZERO, true),
            bytes: shares(bounds.bytes, bounds.turn, false),
        }
    }

    /// All of the body of a request that may have at most `limit` bytes.
    ///
    /// # Errors
    /// When it does not come whole.
    pub async fn take_in(&self, request: &Extensions, body: Body, limit: usize) -> Result<Bytes, BodyError> {
        let address = client_of(request);
        let lane = request.get::<Lane>().cloned().unwrap_or_default();
        let mut reading = pin!(self.read(address, &lane, body, limit));
        if let Poll::Ready(whole) = poll!(reading.as_mut()) {
            return whole;
        }
        if limit <= TINY {
            return reading.await;
        }
        let unfinished = self.unfinished.take(address, 1).await?;
        tokio::select! {
            biased;
            whole = reading => whole,
            () = unfinished.dismissed() => Err(BodyError::TooSlow),
        }
    }

    /// What a packed body of the request holds, at most `limit` bytes: room for as many is taken first.
    ///
    /// # Errors
    /// When it holds more, or is not packed with gzip.
    pub async fn unpacked(
        &self,
        request: &Extensions,
        packed: &[u8],
        limit: usize,
    ) -> Result<Bytes, BodyError> {
        let lane = request.get::<Lane>().cloned().unwrap_or_default();
        let room = self.room(client_of(request), &lane, limit).await?;
        let mut bytes = vec![];
        let most = limit as u64 + 1;
        GzDecoder::new(packed).take(most).read_to_end(&mut bytes).map_err(BodyError::Packed)?;
        match bytes.len() > limit {
            true => Err(BodyError::TooLarge { limit }),
            false => Ok(Bytes::from_owner(Taken { bytes, room: Some(room) })),
        }
    }

    async fn read(
        &self,
        address: IpAddr,
        lane: &Lane,
        mut body: Body,
        limit: usize,
    ) -> Result<Bytes, BodyError> {
        if body.size_hint().lower() > limit as u64 {
            throw_away(body).await;
            return Err(BodyError::TooLarge { limit });
        }
        let mut taken = Taken { bytes: vec![], room: None };
        let mut began = Instant::now();
        loop {
            let seconds = taken.bytes.len() as f64 / f64::from(self.bounds.bytes_per_second);
            let end = began + self.bounds.patience + Duration::from_secs_f64(seconds);
            let frame = tokio::select! {
                frame = timeout_at(end, next(&mut body)) => frame.map_err(|_| BodyError::TooSlow)?,
                () = taken.wanted() => return Err(BodyError::TooSlow),
            };
            let Some(frame) = frame.transpose().map_err(BodyError::Broken)? else { break };
            // Trailers tell nothing here.
            let Ok(data) = frame.into_data() else { continue };
            let length = taken.bytes.len() + data.len();
            if length > limit {
                drop(taken);
                throw_away(body).await;
                return Err(BodyError::TooLarge { limit });
            }
            if length > SMALL && taken.room.is_none() {
                let rest = body.size_hint().upper().and_then(|rest| usize::try_from(rest).ok());
                let whole = rest.map_or(limit, |rest| limit.min(length + rest));
                let asked = Instant::now();
                taken.room = Some(self.room(address, lane, whole).await?);
                taken.bytes.reserve_exact(whole - taken.bytes.len());
                // What we kept the client waiting is not its delay.
                began += asked.elapsed();
            }
            taken.bytes.extend_from_slice(&data);
        }
        Ok(Bytes::from_owner(taken))
    }

    /// Room for a large body.
    async fn room(&self, address: IpAddr, lane: &Lane, bytes: usize) -> Result<Share, BodyError> {
        let mut room = pin!(self.bytes.take(address, bytes));
        if let Poll::Ready(room) = poll!(room.as_mut()) {
            return Ok(room?);
        }
        let _waits = lane.may_wait().ok_or(Crowded)?;
        let end = Instant::now() + self.bounds.patience;
        Ok(timeout_at(end, room).await.map_err(|_| BodyError::TooSlow)??)
    }
}

/// What has come of a body.
struct Taken {
    bytes: Vec<u8>,
    /// Held for as long as the bytes are there.
    room: Option<Share>,
}

impl Taken {
    /// Resolves when others want its room.
    async fn wanted(&self) {
        match &self.room {
            Some(room) => room.dismissed().await,
            None => std::future::pending().await,
        }
    }
}

impl AsRef<[u8]> for Taken {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

async fn next(body: &mut Body) -> Option<Result<http_body::Frame<Bytes>, axum::Error>> {
    std::future::poll_fn(|context| pin!(&mut *body).poll_frame(context)).await
}

/// Who still sends does not hear the answer: what comes is thrown away for a moment.
async fn throw_away(mut body: Body) {
    let rest = async {
        let mut left = THROWN_AWAY;
        while let Some(Ok(frame)) = next(&mut body).await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            left = match left.checked_sub(length) {
                Some(left) => left,
                None => break,
            };
        }
    };
    // Whoever goes on sends for nobody.
    let _ = timeout(THROWN_AWAY_WITHIN, rest).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{FutureExt, StreamExt, stream};
    use tokio::task::JoinHandle;

    use super::*;

    const LIMIT: usize = 4 << 20;
    /// Long enough for anything that should come at all.
    const SOON: Duration = Duration::from_secs(20);

    /// A body that begins so and never ends.
    fn unfinished(bytes: usize) -> Body {
        let first = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b'x'; bytes]))]);
        Body::from_stream(first.chain(stream::pending()))
    }

    /// A body that comes in two parts, the second after a while.
    fn in_two(after: Duration) -> Body {
        let second = stream::once(async move {
            tokio::time::sleep(after).await;
            Ok::<_, Infallible>(Bytes::from_static(b"second"))
        });
        Body::from_stream(stream::iter([Ok(Bytes::from_static(b"first "))]).chain(second))
    }

    fn bounds() -> BodyBounds {
        BodyBounds { unfinished: 2, bytes: LIMIT, ..BodyBounds::default() }
    }

    async fn takes(bodies: &Bodies, body: Body) -> Result<Bytes, BodyError> {
        timeout(SOON, bodies.take_in(&Extensions::new(), body, LIMIT)).await.expect("it ends")
    }

    fn begins(bodies: &Bodies, body: Body) -> JoinHandle<Result<Bytes, BodyError>> {
        let bodies = bodies.clone();
        tokio::spawn(async move { takes(&bodies, body).await })
    }

    #[tokio::test]
    async fn a_body_is_taken_whole_or_refused() {
        let bodies = Bodies::new(BodyBounds { patience: Duration::from_millis(500), ..bounds() });
        let whole = takes(&bodies, in_two(Duration::from_millis(10))).await.unwrap();
        assert_eq!(whole, b"first second"[..]);
        for (body, limit) in [(in_two(Duration::ZERO), 11), (Body::from("too long"), 7)] {
            let error = bodies.take_in(&Extensions::new(), body, limit).await.unwrap_err();
            assert!(matches!(error, BodyError::TooLarge { .. }), "{error}");
        }
        let error = takes(&bodies, unfinished(1)).await.unwrap_err();
        assert!(matches!(error, BodyError::TooSlow), "{error}");
    }

    #[tokio::test]
    async fn what_is_packed_may_hold_no_more_than_what_is_not() {
        let pack = |bytes: usize| {
            let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
            std::io::Write::write_all(&mut packed, &vec![7; bytes]).expect("in memory");
            packed.finish().expect("in memory")
        };
        let bodies = Bodies::new(bounds());
        let unpack = |packed: Vec<u8>| {
            let bodies = bodies.clone();
            async move { bodies.unpacked(&Extensions::new(), &packed, 1000).await }
        };
        assert_eq!(unpack(pack(1000)).await.expect("as much as it may"), [7; 1000].as_slice());
        assert!(matches!(unpack(pack(1001)).await, Err(BodyError::TooLarge { limit: 1000 })));
        assert!(matches!(unpack(pack(1 << 28)).await, Err(BodyError::TooLarge { .. })));
        assert!(matches!(unpack(vec![1, 2, 3]).await, Err(BodyError::Packed(_))));
    }

    #[tokio::test]
    async fn who_sends_only_a_part_gives_way_to_who_sends_all() {
        let bodies = Bodies::new(bounds());
        let slow = [begins(&bodies, unfinished(1)), begins(&bodies, unfinished(0))];
        // They begin.
        tokio::task::yield_now().await;
        takes(&bodies, Body::from("whole")).now_or_never().expect("at once").unwrap();
        takes(&bodies, in_two(Duration::from_millis(10))).await.unwrap();
        let [first, second] = slow;
        assert!(matches!(first.await.unwrap(), Err(BodyError::TooSlow)));
        assert!(!second.is_finished(), "one was enough");
    }

    #[tokio::test]
    async fn the_room_of_large_bodies_is_bounded_until_their_bytes_are_gone() {
        let bodies = Bodies::new(BodyBounds { unfinished: 8, turn: SOON, ..bounds() });
        let large = || Body::from(vec![b'x'; LIMIT]);
        let first = takes(&bodies, large()).await.unwrap();
        let mut second = Box::pin(takes(&bodies, large()));
        assert!(second.as_mut().now_or_never().is_none(), "there is no room");
        takes(&bodies, Body::from("small")).now_or_never().expect("at once").unwrap();
        drop(first);
        assert_eq!(second.await.unwrap().len(), LIMIT);
    }

    #[tokio::test]
    async fn a_large_body_that_does_not_go_on_gives_way_after_its_turn() {
        let turn = Duration::from_millis(50);
        let bodies = Bodies::new(BodyBounds { unfinished: 8, turn, ..bounds() });
        let slow = begins(&bodies, unfinished(SMALL + 1));
        tokio::task::yield_now().await;
        takes(&bodies, Body::from(vec![b'x'; LIMIT])).await.unwrap();
        assert!(matches!(slow.await.unwrap(), Err(BodyError::TooSlow)));
    }

    #[tokio::test]
    async fn on_one_connection_few_bodies_wait_for_room_and_hold_up_the_others() {
        let bodies = Bodies::new(BodyBounds { unfinished: 16, turn: SOON, ..bounds() });
        let mut connection = Extensions::new();
        connection.insert(Lane::default());
        let large = || Body::from(vec![b'x'; LIMIT]);
        let first = takes(&bodies, large()).await.unwrap();
        let begin = || Box::pin(bodies.take_in(&connection, large(), LIMIT));
        let mut waiting: Vec<_> = std::iter::repeat_with(begin).take(5).collect();
        let begun: Vec<_> = waiting.iter_mut().map(|body| body.as_mut().now_or_never()).collect();
        assert!(begun[..4].iter().all(Option::is_none), "{begun:?}");
        assert!(matches!(begun[4], Some(Err(BodyError::Crowded(_)))), "{begun:?}");
        assert!(begin().now_or_never().is_some(), "the next is refused as well");
        let mut other = Box::pin(takes(&bodies, large()));
        assert!(other.as_mut().now_or_never().is_none(), "another connection waits");
        drop((first, begun, waiting));
        other.await.unwrap();
    }
}
