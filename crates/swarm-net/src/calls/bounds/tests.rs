//! Bodies in pieces, too large, too many, and never whole.

use futures::{StreamExt, stream};
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;

const LIMIT: MethodLimit = MethodLimit { path: "/a/b", first: 100, later: LARGEST };

const SHORT: Patience = Patience {
    head: Duration::from_millis(40),
    message: Duration::from_millis(80),
    room: Duration::from_millis(60),
};

fn message(size: usize) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend((size as u32).to_be_bytes());
    bytes.resize(bytes.len() + size, 7);
    bytes
}

/// A body that the sender feeds.
fn body() -> (mpsc::Sender<Vec<u8>>, Body) {
    let (bytes, mut fed) = mpsc::channel::<Vec<u8>>(64);
    let pieces = stream::poll_fn(move |cx| fed.poll_recv(cx));
    (bytes, Body::new(Pieces(pieces.boxed())))
}

struct Pieces(stream::BoxStream<'static, Vec<u8>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_next_unpin(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes.into()))))
    }
}

fn bounded(layer: &BoundsLayer, peer: &NodeId) -> (mpsc::Sender<Vec<u8>>, Bounded) {
    let (bytes, body) = body();
    (bytes, Bounded { patience: SHORT, ..Bounded::new(body, LIMIT, layer.room(peer)) })
}

fn peer(name: &str) -> NodeId {
    format!("12D3{name}").parse().expect("valid")
}

/// The next piece's size.
async fn next(body: &mut Bounded) -> Result<usize, tonic::Code> {
    let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut *body), cx)).await;
    let frame = frame.expect("it has not ended").map_err(|status| status.code())?;
    Ok(frame.into_data().expect("data").len())
}

/// Whether nothing comes of it now.
async fn waits(body: &mut Bounded) -> bool {
    tokio::select! {
        biased;
        _ = next(body) => false,
        () = std::future::ready(()) => true,
    }
}

proptest! {
    #[test]
    fn messages_are_the_same_however_a_body_is_cut(
        sizes in proptest::collection::vec(0usize..90, 1..8),
        cuts in proptest::collection::vec(1usize..40, 1..60),
    ) {
        let bytes: Vec<u8> = sizes.iter().flat_map(|size| message(*size)).collect();
        let mut frames = Frames::new(LIMIT);
        let (mut rest, mut cuts) = (bytes.as_slice(), cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cuts.next().expect("a circle").min(rest.len()));
            frames.read(piece).expect("none is too large");
            rest = after;
        }
        prop_assert_eq!((frames.whole, frames.size(), frames.head_bytes), (sizes.len() as u64, None, 0));
    }
}

#[test]
fn what_is_too_large_is_known_from_its_head() {
    let refused =
        |limit: MethodLimit, bytes: &[u8]| Frames::new(limit).read(bytes).expect_err("refused").code();
    let then = |size: usize| [message(100), message(size)[..5].to_vec()].concat();
    assert_eq!(refused(LIMIT, &message(101)[..5]), tonic::Code::OutOfRange);
    assert_eq!(refused(LIMIT, &then(LARGEST + 1)[..]), tonic::Code::OutOfRange);
    Frames::new(LIMIT).read(&then(LARGEST)).expect("later ones may be larger");
    let one = MethodLimit { later: 0, ..LIMIT };
    assert_eq!(refused(one, &then(0)), tonic::Code::OutOfRange, "there must be one only");
    let layer = BoundsLayer::new(&[LIMIT]);
    assert_eq!((layer.limit("/a/b"), layer.limit("/a/c").first), (LIMIT, SMALL_REQUEST));
}

#[tokio::test]
async fn a_peers_large_messages_come_one_after_the_other_and_small_ones_at_once() {
    let layer = BoundsLayer::new(&[LIMIT]);
    let ((one, mut first), (two, mut second)) = (bounded(&layer, &peer("a")), bounded(&layer, &peer("a")));
    let (other, mut of_other) = bounded(&layer, &peer("b"));
    let large = message(LARGEST);
    for (bytes, body) in [(&one, &mut first), (&two, &mut second), (&other, &mut of_other)] {
        bytes.send([&message(3)[..], &large[..9]].concat()).await.expect("room");
        assert_eq!(next(body).await, Ok(17), "what came with the head is there already");
        bytes.send(large[9..20].to_vec()).await.expect("room");
    }
    assert_eq!(next(&mut first).await, Ok(11));
    assert!(waits(&mut second).await, "the peer's room is taken");
    assert_eq!(next(&mut of_other).await, Ok(11), "that of another is not");
    let (three, mut third) = bounded(&layer, &peer("a"));
    three.send(message(100)).await.expect("room");
    assert_eq!(next(&mut third).await, Ok(105), "a small one passes");

    one.send(large[20..].to_vec()).await.expect("room");
    assert_eq!(next(&mut first).await, Ok(LARGEST + 5 - 20));
    assert_eq!(next(&mut second).await, Ok(11), "the first is whole");
    drop(second);
    one.send(large[..9].to_vec()).await.expect("room");
    one.send(large[9..].to_vec()).await.expect("room");
    assert_eq!(next(&mut first).await, Ok(9));
    assert_eq!(next(&mut first).await, Ok(LARGEST - 4), "a call that has ended gives its room back");
}

#[tokio::test]
async fn what_never_comes_whole_ends_its_call() {
    let layer = BoundsLayer::new(&[LIMIT]);
    let (_silent, mut body) = bounded(&layer, &peer("a"));
    ends_after(SHORT.head, &mut body).await;
    for unfinished in [&message(90)[..20], &message(90)[..3]] {
        let (bytes, mut body) = bounded(&layer, &peer("a"));
        bytes.send([&message(3)[..], unfinished].concat()).await.expect("room");
        next(&mut body).await.expect("it comes");
        ends_after(SHORT.message, &mut body).await;
    }
    let (one, mut holds) = bounded(&layer, &peer("b"));
    let (two, mut waiting) = bounded(&layer, &peer("b"));
    for (bytes, body) in [(&one, &mut holds), (&two, &mut waiting)] {
        bytes.send([&message(3)[..], &message(LARGEST)[..9]].concat()).await.expect("room");
        next(body).await.expect("it comes");
    }
    assert!(waits(&mut holds).await, "it has the room");
    ends_after(SHORT.room, &mut waiting).await;
}

async fn ends_after(patience: Duration, body: &mut Bounded) {
    let begun = Instant::now();
    assert_eq!(next(body).await, Err(tonic::Code::DeadlineExceeded));
    assert!(begun.elapsed() >= patience);
}

#[test]
fn between_two_messages_nothing_need_come() {
    let mut frames = Frames::new(LIMIT);
    assert_eq!(frames.patience(&SHORT), Some(SHORT.head));
    frames.read(&message(3)).expect("in order");
    assert_eq!(frames.patience(&SHORT), None);
    frames.read(&message(3)[..2]).expect("in order");
    assert_eq!(frames.patience(&SHORT), Some(SHORT.message));
    let mut one = Frames::new(MethodLimit { later: 0, ..LIMIT });
    one.read(&message(3)).expect("in order");
    assert_eq!(one.patience(&SHORT), Some(SHORT.head), "but the end of a call with one message");
}

#[test]
fn peers_without_calls_are_forgotten() {
    let layer = BoundsLayer::new(&[]);
    for number in 1..10 {
        drop(layer.room(&peer(&format!("a{number}"))));
    }
    assert_eq!(layer.rooms.lock().expect("whole").len(), 1);
}
