//! Members that say what no member says: damaged messages, halves of messages, and answers that nobody reads, all
//! inside the streams that peers have.
// What fails here fails a test.
#![allow(dead_code, clippy::unwrap_used)]

mod support;

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use prost::Message as _;
use support::{Scene, soon, step};
use swarm_proto::wire::{self, forward_request::Message};
use tokio::time::timeout;
use tonic::{
    body::Body,
    client::GrpcService,
    codegen::http::{Request, header::CONTENT_TYPE},
};

const FORWARD: &str = "/swarm.v1.ShardService/Forward";
const COLLECT: &str = "/swarm.v1.ShardService/Collect";
const DESCRIBE: &str = "/swarm.v1.PeerService/Describe";
/// Enough that each byte of each message has been wrong some times.
const DAMAGED: u64 = 3000;
/// More than a peer may have at once of anything.
const HALVES: usize = 100;
/// For an answer's beginning; a worker that waits for more gives none.
const MOMENT: Duration = Duration::from_millis(20);

/// A request's body: these bytes, and perhaps never an end.
struct Said {
    bytes: Option<Bytes>,
    ends: bool,
}

impl http_body::Body for Said {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.bytes.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// Calls a method with raw bytes. Gives the call as long as it is not answered.
async fn call(scene: &Scene, method: &str, said: Said) -> impl Future<Output = ()> + use<> {
    let mut channel = scene.channel().await;
    let request = Request::post(format!("http://peer.invalid{method}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .body(Body::new(said))
        .unwrap();
    soon(std::future::poll_fn(|cx| channel.poll_ready(cx))).await.unwrap();
    let answer = channel.call(request);
    async move {
        // That it is refused is an answer too. What is in it is not read.
        let _answer = answer.await;
        std::future::pending::<()>().await;
    }
}

/// A message as gRPC frames it.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// What a member says, in order, to each method.
fn conversations(scene: &Scene) -> Vec<(&'static str, Vec<u8>)> {
    let forward = |message| framed(&wire::ForwardRequest { message: Some(message) }.encode_to_vec());
    let session = [
        forward(Message::Open(scene.opening(900, 1))),
        forward(Message::Step(step(0, &[5, 6]))),
        forward(Message::End(wire::EndSession {})),
    ];
    let wish = framed(&scene.wish(900, 1).encode_to_vec());
    vec![(FORWARD, session.concat()), (COLLECT, wish), (DESCRIBE, framed(&[]))]
}

/// The number of this name: the same in every run.
fn number(name: &str, of: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, of).hash(&mut hasher);
    hasher.finish()
}

/// Changes, takes out, doubles or cuts off some bytes.
fn damage(bytes: &mut Vec<u8>, of: u64) {
    for change in 0..=number("changes", of) % 4 {
        let at = |name| (number(name, of + change * DAMAGED) % bytes.len().max(1) as u64) as usize;
        let (place, length) = (at("place"), at("length").min(16));
        match number("kind", of + change * DAMAGED) % 5 {
            0 => bytes.truncate(place),
            1 => drop(bytes.drain(place..(place + length).min(bytes.len()))),
            2 => bytes.splice(place..place, vec![0xff; length]).for_each(drop),
            _ if !bytes.is_empty() => bytes[place] = number("byte", of + change) as u8,
            _ => {}
        }
    }
}

/// A session from its first step to its second token.
async fn answers(scene: &Scene, session: u32) -> Option<(u32, Option<u32>)> {
    let (forwarding, mut collecting) = scene.session(session, 1).await;
    forwarding.send(step(0, &[5, 6])).await;
    let answer = collecting.answer().await;
    forwarding.end().await;
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_messages_of_members_do_no_harm() {
    let scene = Scene::start("0", 1, "").await;
    let before = answers(&scene, 1).await;
    for damaged in 0..DAMAGED {
        let mut all = conversations(&scene);
        let (method, mut bytes) = all.swap_remove((number("method", damaged) % 3) as usize);
        damage(&mut bytes, damaged);
        let ends = number("ends", damaged).is_multiple_of(2);
        let call = call(&scene, method, Said { bytes: Some(bytes.into()), ends }).await;
        // Most are refused at once.
        let _ = timeout(if damaged % 50 == 0 { MOMENT } else { Duration::from_micros(200) }, call).await;
    }
    scene.runs(0).await;
    assert_eq!(answers(&scene, 2).await, before);
    scene.counts("kv_cache_bytes", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_of_messages_and_answers_that_nobody_reads_keep_no_session_out() {
    let scene = Scene::start("0", 1, "").await;
    let before = answers(&scene, 1).await;
    let mut held = vec![];
    for half in 0..HALVES {
        for (method, bytes) in conversations(&scene) {
            let length = if method == DESCRIBE { bytes.len() } else { 3 + half % (bytes.len() - 3) };
            let said = Said { bytes: Some(bytes[..length].to_vec().into()), ends: method == DESCRIBE };
            held.push(tokio::spawn(call(&scene, method, said).await));
        }
        assert_eq!(answers(&scene, 1000 + half as u32).await, before);
    }
    held.iter().for_each(tokio::task::JoinHandle::abort);
}
