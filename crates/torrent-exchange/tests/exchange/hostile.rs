//! Who opens a stream to fetch, and says what must not be said: that ends the stream, and nothing else.

use std::sync::Arc;

use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use torrent_exchange::{ExchangeError, Metrics, SeedLimits, Seeder, Shelf};

use crate::{
    net::{Model, Net, Node, PIECE, id},
    raw, soon,
};

/// A seeder of a model of three pieces.
fn seeder(model: &Model, limits: &SeedLimits) -> (Seeder, torrent_exchange::Shelved) {
    let shelf = Shelf::default();
    let store = model_torrent::Store::whole(model.metainfo.clone(), std::slice::from_ref(&model.path));
    let shelved = shelf.put(Arc::new(store.expect("a store")));
    (Seeder::new(shelf, limits, Metrics::default()), shelved)
}

/// How a stream ends on which all this is said at once.
async fn ends(seeder: &Seeder, said: Vec<u8>) -> Result<(), ExchangeError> {
    let (mut here, there) = duplex(1 << 20);
    let speak = async {
        here.write_all(&said).await.expect("there is room");
        while raw::next(&mut here).await.is_some() {}
    };
    let peer = id(5);
    let (ended, ()) = soon(async { tokio::join!(seeder.serve(there, &peer), speak) }).await;
    ended
}

#[tokio::test]
async fn what_must_not_be_said_is_refused_by_name_and_ends_that_stream_only() {
    let model = Model::of(3);
    let (seeder, _shelved) = seeder(&model, &SeedLimits::default());
    let hello = raw::hello(&model.metainfo);
    let request = |piece: u32| raw::frame(3, &[&piece.to_be_bytes()]);
    let after = |more: &[u8]| [&hello, more].concat();
    for (said, words) in [
        (u32::MAX.to_be_bytes().to_vec(), "frame.length is 4294967295"),
        (0u32.to_be_bytes().to_vec(), "frame.length is 0"),
        (raw::frame(1, &[&2u16.to_be_bytes(), &[0; 32]]), "hello.version is 2"),
        (request(1), "hello must be said first"),
        (after(&hello), "hello was said already"),
        (after(&raw::frame(77, &[])), "message.kind is 77"),
        (after(&raw::frame(6, &[&[0; 4]])), "message.kind is 6"),
        (after(&request(3)), "request.piece is 3, there is no such piece"),
        (after(&[request(1), request(1)].concat()), "request.piece is requested already"),
        (after(&raw::frame(3, &[&[0; 3]])), "request.piece is missing or cut off"),
        (after(&raw::frame(4, &[&[0; 5]])), "message has 1 bytes behind its end"),
        (after(&[raw::frame(2, &[]), raw::frame(2, &[])].concat()), "torrent is asked for more than once"),
    ] {
        let error = ends(&seeder, said).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}: not {words}");
    }
    let mut stream = greeted(&seeder, &model).await;
    stream.write_all(&request(1)).await.unwrap();
    assert_eq!(soon(raw::next(&mut stream)).await.map(|(kind, _)| kind), Some(8), "it still serves");
}

#[tokio::test(start_paused = true)]
async fn who_only_holds_a_stream_open_is_let_go() {
    let model = Model::of(3);
    let (seeder, _shelved) = seeder(&model, &SeedLimits::default());
    for said in [vec![], vec![0, 0]] {
        let error = ends(&seeder, said).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Silent(_)), "{error}");
    }
    assert!(ends(&seeder, raw::hello(&model.metainfo)).await.is_ok());
    let halves = [raw::hello(&model.metainfo), vec![0, 0, 0]].concat();
    assert!(ends(&seeder, halves).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_let_go() {
    let model = Model::of(3);
    let (seeder, _shelved) = seeder(&model, &SeedLimits::default());
    let (mut here, there) = duplex(PIECE / 2);
    here.write_all(&[raw::hello(&model.metainfo), raw::frame(3, &[&[0; 4]])].concat()).await.unwrap();
    let error = soon(seeder.serve(there, &id(5))).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Silent("it does not read")), "{error}");
}

#[tokio::test]
async fn more_requests_than_may_wait_are_refused_and_cancelled_ones_are_not_sent() {
    let model = Model::of(9);
    let limits = SeedLimits { requests_a_stream: 3, ..SeedLimits::default() };
    let (seeder, _shelved) = seeder(&model, &limits);
    let mut stream = greeted(&seeder, &model).await;
    let requests: Vec<u8> = (0..8u32).flat_map(|piece| raw::frame(3, &[&piece.to_be_bytes()])).collect();
    stream.write_all(&[requests, raw::frame(4, &[&1u32.to_be_bytes()])].concat()).await.unwrap();
    let (mut bytes, mut refused) = ([0; 8], [0; 8]);
    while bytes.iter().filter(|bytes| **bytes == PIECE).count() + refused.iter().filter(|r| **r > 0).count()
        < 8
    {
        let (kind, fields) = soon(raw::next(&mut stream)).await.expect("each request is answered");
        let piece = u32::from_be_bytes(*fields.first_chunk().unwrap()) as usize;
        match kind {
            8 => bytes[piece] += fields.len() - 8,
            9 => refused[piece] = fields[4],
            other => panic!("{other}"),
        }
    }
    assert_eq!(refused[1], 3, "cancelled");
    assert_eq!(refused[4..], [2, 2, 2, 2], "too many wait");
    assert_eq!((bytes[0], bytes[2]), (PIECE, PIECE));
}

#[tokio::test]
async fn what_is_not_served_and_who_is_one_too_many_hears_it() {
    let (model, other) = (Model::of(3), Model::of(2));
    let limits = SeedLimits { peers: 1, streams_a_peer: 1, ..SeedLimits::default() };
    let (seeder, _shelved) = seeder(&model, &limits);
    let away = async |said: Vec<u8>, peer: usize| {
        let (mut here, there) = duplex(1 << 10);
        here.write_all(&said).await.unwrap();
        seeder.serve(there, &id(peer)).await.unwrap();
        raw::next(&mut here).await
    };
    assert_eq!(away(raw::hello(&other.metainfo), 5).await, Some((10, vec![1])));
    let _held = greeted(&seeder, &model).await;
    assert_eq!(away(raw::hello(&model.metainfo), 5).await, Some((10, vec![2])), "a second one of the same");
    assert_eq!(away(raw::hello(&model.metainfo), 6).await, Some((10, vec![2])), "another one");
}

/// A stream after its greeting.
async fn greeted(seeder: &Seeder, model: &Model) -> DuplexStream {
    let (mut here, there) = duplex(1 << 20);
    let seeder = seeder.clone();
    tokio::spawn(async move { seeder.serve(there, &id(5)).await });
    here.write_all(&raw::hello(&model.metainfo)).await.expect("there is room");
    for kind in [1, 5] {
        assert_eq!(soon(raw::next(&mut here)).await.map(|(kind, _)| kind), Some(kind));
    }
    here
}

#[tokio::test]
async fn a_store_that_leaves_the_shelf_is_served_no_more() {
    let (net, model) = (Net::default(), Model::of(3));
    let node = Node::new(&net, 1);
    let shelved = model.shelve(&node);
    let seeder = Seeder::new(node.shelf.clone(), &SeedLimits::default(), Metrics::default());
    let mut stream = greeted(&seeder, &model).await;
    soon(shelved.take_off()).await;
    assert_eq!(soon(raw::next(&mut stream)).await, Some((10, vec![1])));
    assert_eq!(soon(raw::next(&mut stream)).await, None);
}
