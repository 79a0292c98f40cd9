//! Peers that lie, stall, break off, or have not what they claim: the right bytes come all the same, from another.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};
use torrent_exchange::Left;

use crate::{
    net::{Model, Net, Node, PIECE, id},
    raw, soon,
};

const BAD: usize = 7;

/// A fetch from a bad peer alone, until that is left; then from a good one too.
async fn in_spite_of<F>(bad: impl Fn(Arc<Model>, DuplexStream) -> F + Send + Sync + 'static) -> (Net, Node)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (net, model) = (Net::default(), Arc::new(Model::of(30)));
    let (left, mut is_left) = mpsc::channel(100);
    let (for_bad, bad) = (model.clone(), Arc::new(bad));
    net.join(&id(BAD), move |_, stream| {
        let (bad, model, left) = (bad.clone(), for_bad.clone(), left.clone());
        tokio::spawn(async move {
            bad(model, stream).await;
            left.send(()).await
        });
    });
    let (seeder, leech) = (Node::new(&net, 1), Node::new(&net, 2));
    let wanted = leech.wanted(model.metainfo.info_hash(), Some(model.metainfo.clone()));
    let fetcher = leech.fetchers.open(wanted).await.expect("a fetcher");
    let first = fetcher.fetch(model.some(0..20));
    let then = async {
        is_left.recv().await.expect("the bad one ends");
        model.shelve(&seeder)
    };
    let (first, _shelved) = soon(async { tokio::join!(first, then) }).await;
    first.expect("the first part");
    soon(fetcher.fetch(model.all())).await.expect("the rest");
    assert!(model.is_in(fetcher.store(), &model.all()));
    fetcher.close().await;
    (net, leech)
}

/// Until the other end closes.
async fn is_left(mut stream: DuplexStream) {
    _ = stream.read_to_end(&mut vec![]).await;
}

#[tokio::test(start_paused = true)]
async fn who_sends_wrong_bytes_is_counted_and_never_asked_again() {
    let (net, leech) = in_spite_of(|model, mut stream| async move {
        raw::greet(&mut stream, &model.metainfo, model.all().as_bytes()).await;
        let Some(piece) = raw::requested(&mut stream).await else { return };
        let last = piece as usize == model.metainfo.layout().pieces() as usize - 1;
        let wrong = vec![7; if last { 5 } else { PIECE }];
        stream.write_all(&raw::piece(piece, 0, &wrong)).await.unwrap();
        is_left(stream).await;
    })
    .await;
    assert!(leech.fetchers.banned.contains(&id(BAD)));
    assert_eq!((net.opened(&id(BAD)), leech.metrics.left(Left::Wrong)), (1, 1));
    assert!(leech.metrics.wrong.get() >= 1);
}

#[tokio::test(start_paused = true)]
async fn who_never_answers_is_left_after_some_seconds() {
    let (_, leech) = in_spite_of(|model, mut stream| async move {
        raw::greet(&mut stream, &model.metainfo, model.all().as_bytes()).await;
        is_left(stream).await;
    })
    .await;
    assert!(leech.metrics.left(Left::Stalled) >= 1);
}

#[tokio::test(start_paused = true)]
async fn who_never_greets_is_left_after_some_seconds() {
    let (_, leech) = in_spite_of(|_, stream| is_left(stream)).await;
    assert!(leech.metrics.left(Left::Stalled) >= 1);
}

#[tokio::test(start_paused = true)]
async fn who_breaks_off_in_a_piece_is_forgotten_and_tried_later() {
    let (_, leech) = in_spite_of(|model, mut stream| async move {
        raw::greet(&mut stream, &model.metainfo, model.all().as_bytes()).await;
        let Some(piece) = raw::requested(&mut stream).await else { return };
        // The last piece has five bytes.
        _ = stream.write_all(&raw::piece(piece, 0, b"some")).await;
    })
    .await;
    assert!(leech.metrics.left(Left::Broken) >= 1);
}

#[tokio::test(start_paused = true)]
async fn who_has_not_what_it_claims_is_asked_for_each_piece_once() {
    let (_, leech) = in_spite_of(|model, mut stream| async move {
        raw::greet(&mut stream, &model.metainfo, model.all().as_bytes()).await;
        let mut refused = vec![];
        while refused.len() < 20 {
            let Some(piece) = raw::requested(&mut stream).await else { return };
            assert!(!refused.contains(&piece), "{piece} was refused before");
            stream.write_all(&raw::frame(9, &[&piece.to_be_bytes(), &[1]])).await.unwrap();
            refused.push(piece);
        }
    })
    .await;
    assert_eq!(leech.metrics.wrong.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_speaks_another_language_is_left_at_once() {
    for message in [
        raw::frame(77, &[]),
        raw::frame(6, &[&30u32.to_be_bytes()]),
        raw::frame(5, &[&[0; 3]]),
        raw::frame(5, &[&[0xff; 4]]),
        raw::piece(3, 9, b"not where it begins"),
        raw::frame(9, &[&29u32.to_be_bytes(), &[9]]),
        raw::frame(7, &[&9u32.to_be_bytes(), &0u32.to_be_bytes(), b"torrent"]),
        raw::frame(6, &[&1u32.to_be_bytes()]).repeat(1100),
        u32::MAX.to_be_bytes().to_vec(),
    ] {
        let (_, leech) = in_spite_of(move |model, mut stream| {
            let message = message.clone();
            async move {
                raw::greet(&mut stream, &model.metainfo, model.all().as_bytes()).await;
                let _ = raw::requested(&mut stream).await;
                _ = stream.write_all(&message).await;
                is_left(stream).await;
            }
        })
        .await;
        assert!(leech.metrics.left(Left::Message) >= 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_torrent_that_is_another_one_is_taken_from_nobody() {
    let (net, model) = (Net::default(), Arc::new(Model::of(30)));
    let (torrent, other) = (model.metainfo.clone(), Model::of(29).metainfo.to_bytes());
    let (asked, mut is_asked) = mpsc::channel(100);
    net.join(&id(BAD), move |_, mut stream| {
        let (torrent, other, asked) = (torrent.clone(), other.clone(), asked.clone());
        tokio::spawn(async move {
            raw::greet(&mut stream, &torrent, &[0xff; 4]).await;
            let length = (other.len() as u32).to_be_bytes();
            stream.write_all(&raw::frame(7, &[&length, &0u32.to_be_bytes(), &other])).await.unwrap();
            is_left(stream).await;
            asked.send(()).await
        });
    });
    let (seeder, leech) = (Node::new(&net, 1), Node::new(&net, 2));
    let then = async {
        is_asked.recv().await.expect("the bad one is left");
        model.shelve(&seeder)
    };
    let (fetcher, _shelved) = soon(async { tokio::join!(leech.open(&model), then) }).await;
    assert_eq!(fetcher.metainfo(), &model.metainfo);
    assert!(leech.fetchers.banned.contains(&id(BAD)));
}
