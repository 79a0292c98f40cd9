//! Ports on loopback, and clients that mean no good.

// What fails here fails a test.
#![allow(clippy::unwrap_used)]

use std::{future::pending, net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use futures::future::join_all;
use swarm_process::{
    bodies::BodyBounds,
    grpc::PublicServer,
    listener::{Bounds, Listener},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Code, Streaming,
    service::Routes,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

/// Long enough for anything that should come at all.
const SOON: Duration = Duration::from_secs(20);
/// Long enough to see that something does not come.
const A_WHILE: Duration = Duration::from_millis(200);
/// The first bytes of an HTTP/2 client: its preface and settings without any.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Longer than any test runs.
const FOR_EVER: Duration = Duration::from_secs(3600);
const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

fn bounds(connections: usize, head: Duration) -> Bounds {
    Bounds { connections, head, ..Bounds::default() }
}

fn patient(connections: usize) -> Bounds {
    bounds(connections, FOR_EVER)
}

/// Spares new connections hardly, and has not much of an entrance.
fn hasty(connections: usize) -> Bounds {
    Bounds { spared: Duration::from_millis(20), entrance: 4, ..patient(connections) }
}

struct Port {
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    _stop_when_dropped: DropGuard,
}

async fn http(bounds: Bounds, routes: Router) -> Port {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "HTTP", "--http", bounds).await.unwrap();
    let (address, stop) = (listener.local_addr(), CancellationToken::new());
    let serving = tokio::spawn(listener.serve(routes, stop.clone()));
    Port { address, serving, _stop_when_dropped: stop.clone().drop_guard(), stop }
}

async fn grpc(bounds: Bounds, routes: Routes) -> Port {
    let bodies = BodyBounds { patience: Duration::from_millis(300), ..BodyBounds::default() };
    let server = PublicServer::bind_within("127.0.0.1:0".parse().unwrap(), bounds, bodies).await.unwrap();
    let (address, stop) = (server.local_addr(), CancellationToken::new());
    server.health().set("", true).await;
    let token = stop.clone();
    let serving = tokio::spawn(async move { server.serve(&[], routes, token).await });
    Port { address, serving, _stop_when_dropped: stop.clone().drop_guard(), stop }
}

/// A route that answers at once, and one that tells that it was asked and never answers.
fn routes() -> (Router, mpsc::Receiver<()>) {
    let (asked, was_asked) = mpsc::channel(64);
    let hang = move || async move {
        asked.send(()).await.unwrap();
        pending::<()>().await;
    };
    let routes = Router::new().route("/", get(|| async { "here" })).route("/hang", get(hang));
    (routes.route("/healthz", get(|| async { "well" })), was_asked)
}

async fn connect(address: SocketAddr, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(first).await.unwrap();
    stream
}

/// Reads until the other end closes.
async fn ends(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = vec![];
    // A connection that is reset has ended too.
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the connection is ended");
    rest
}

async fn answers(stream: &mut TcpStream) {
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut answer = [0; 1024];
    let length = timeout(SOON, stream.read(&mut answer)).await.expect("it is answered").unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
}

async fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

async fn health(address: SocketAddr) -> HealthClient<Channel> {
    HealthClient::new(channel(address).await)
}

async fn is_healthy(address: SocketAddr) {
    let mut client = health(address).await;
    let answer = timeout(SOON, client.check(HealthCheckRequest::default())).await.expect("it is answered");
    assert_eq!(answer.unwrap().into_inner().status, 1);
}

#[tokio::test]
async fn connections_that_ask_nothing_end_after_the_deadline_and_others_are_served_meanwhile() {
    let port = http(bounds(64, Duration::from_millis(300)), routes().0).await;
    let mut silent = vec![];
    for first in [&b""[..], b"PRI * HT", b"GET / HTTP/1.1\r\nHo", PREFACE] {
        silent.extend(join_all((0..8).map(|_| connect(port.address, first))).await);
    }
    answers(&mut connect(port.address, b"").await).await;
    for stream in &mut silent {
        let rest = ends(stream).await;
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "nothing was asked");
    }
}

#[tokio::test]
async fn a_connection_that_has_asked_may_go_on_after_the_deadline() {
    let (routes, mut asked) = routes();
    let port = http(bounds(64, Duration::from_millis(100)), routes).await;
    let mut waits = connect(port.address, b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n").await;
    asked.recv().await.unwrap();
    // By the time that the silent one has ended, the other would have ended as well.
    ends(&mut connect(port.address, b"").await).await;
    assert!(timeout(A_WHILE, waits.read_u8()).await.is_err(), "neither answered nor ended");
}

#[tokio::test]
async fn a_newcomer_gets_the_place_of_the_connection_that_has_been_idle_for_longest() {
    let (routes, mut asked) = routes();
    let port = http(patient(4), routes).await;
    let mut busy = connect(port.address, b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n").await;
    asked.recv().await.unwrap();
    let mut had_an_answer = connect(port.address, b"").await;
    answers(&mut had_an_answer).await;
    let mut idle_longest = connect(port.address, b"").await;
    answers(&mut idle_longest).await;
    let mut asks_again = connect(port.address, b"").await;
    answers(&mut asks_again).await;
    answers(&mut had_an_answer).await;
    let mut newcomers = vec![];
    for mut idle in [idle_longest, asks_again, had_an_answer] {
        let mut newcomer = connect(port.address, b"").await;
        answers(&mut newcomer).await;
        newcomers.push(newcomer);
        ends(&mut idle).await;
    }
    for newcomer in &mut newcomers {
        answers(newcomer).await;
    }
    assert!(timeout(A_WHILE, busy.read_u8()).await.is_err(), "a request in hand keeps its place");
}

#[tokio::test]
async fn while_all_have_a_request_in_hand_newcomers_wait_and_get_their_turn() {
    let (routes, mut asked) = routes();
    let port = http(patient(4), routes).await;
    let hang = b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut busy = join_all((0..4).map(|_| connect(port.address, hang))).await;
    for _ in 0..4 {
        timeout(SOON, asked.recv()).await.unwrap().unwrap();
    }
    let mut waits = connect(port.address, GET.as_bytes()).await;
    assert!(timeout(A_WHILE, waits.read_u8()).await.is_err(), "over the bound");
    drop(busy.pop());
    assert_eq!(timeout(SOON, waits.read_u8()).await.expect("it has its turn").unwrap(), b'H');
}

#[tokio::test]
async fn newcomers_that_wait_do_not_throw_each_other_out() {
    let (routes, mut asked) = routes();
    let port = http(patient(2), routes).await;
    let hang = b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut busy = join_all((0..2).map(|_| connect(port.address, hang))).await;
    for _ in 0..2 {
        timeout(SOON, asked.recv()).await.unwrap().unwrap();
    }
    let mut waiting = join_all((0..8).map(|_| connect(port.address, GET.as_bytes()))).await;
    assert!(timeout(A_WHILE, waiting[0].read_u8()).await.is_err(), "over the bound");
    drop(busy.pop());
    for newcomer in &mut waiting {
        assert_eq!(timeout(SOON, newcomer.read_u8()).await.expect("it has its turn").unwrap(), b'H');
    }
}

#[tokio::test]
async fn a_request_that_comes_in_pieces_is_answered_though_others_want_in() {
    let port = http(Bounds { spared: FOR_EVER, entrance: 2, ..patient(1) }, routes().0).await;
    let (first, rest) = GET.as_bytes().split_at(10);
    let mut slow = join_all((0..2).map(|_| connect(port.address, first))).await;
    let mut waits = connect(port.address, GET.as_bytes()).await;
    assert!(timeout(A_WHILE, waits.read_u8()).await.is_err(), "the others are new");
    for slow in &mut slow {
        slow.write_all(rest).await.unwrap();
        let mut answer = [0; 12];
        timeout(SOON, slow.read_exact(&mut answer)).await.expect("it is answered").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    assert_eq!(timeout(SOON, waits.read_u8()).await.expect("it has its turn").unwrap(), b'H');
}

#[tokio::test]
async fn whoever_asks_for_health_is_answered_though_no_place_is_free() {
    let (routes, mut asked) = routes();
    let port = http(hasty(2), routes).await;
    let hang = b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n";
    let busy = join_all((0..2).map(|_| connect(port.address, hang))).await;
    for _ in 0..2 {
        timeout(SOON, asked.recv()).await.unwrap().unwrap();
    }
    let waits = join_all((0..2).map(|_| connect(port.address, GET.as_bytes()))).await;
    let silent = join_all((0..20).map(|_| connect(port.address, b""))).await;
    let probe = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(ends(&mut connect(port.address, probe).await).await.ends_with(b"well"));
    drop(busy);
    for mut waits in waits {
        assert_eq!(timeout(SOON, waits.read_u8()).await.expect("it has its turn").unwrap(), b'H');
    }
    drop(silent);
}

#[tokio::test]
async fn when_too_many_wait_for_a_place_the_next_is_told_to_come_again() {
    let (routes, mut asked) = routes();
    let port = http(Bounds { entrance: 2, ..patient(1) }, routes).await;
    let _busy = connect(port.address, b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n").await;
    timeout(SOON, asked.recv()).await.unwrap().unwrap();
    let mut waits = connect(port.address, GET.as_bytes()).await;
    assert!(timeout(A_WHILE, waits.read_u8()).await.is_err(), "over the bound");
    let ask = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = ends(&mut connect(port.address, ask).await).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
}

#[tokio::test]
async fn a_request_whose_client_does_not_go_on_with_it_loses_its_place() {
    let stalled = Duration::from_millis(50);
    let swallow = axum::routing::post(|body: axum::body::Bytes| async move { body.len().to_string() });
    let port = http(Bounds { stalled, ..patient(1) }, routes().0.route("/body", swallow)).await;
    let half = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf";
    let mut slow = connect(port.address, half).await;
    let mut waits = connect(port.address, GET.as_bytes()).await;
    assert_eq!(timeout(SOON, waits.read_u8()).await.expect("it has its turn").unwrap(), b'H');
    ends(&mut slow).await;
}

/// More than the buffers of two sockets hold.
const LARGE: usize = 32 << 20;

/// A connection whose client has read the answer's first byte and no more.
async fn reads_slowly(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(timeout(SOON, stream.read_u8()).await.expect("it is answered").unwrap(), b'H');
    stream
}

fn large() -> Router {
    routes().0.route("/large", get(|| async { vec![b'x'; LARGE] }))
}

#[tokio::test]
async fn who_reads_a_large_answer_slowly_gets_all_of_it_though_others_want_the_place() {
    let port = http(hasty(1), large()).await;
    let mut slow = reads_slowly(port.address).await;
    let mut waits = connect(port.address, GET.as_bytes()).await;
    let longer_than_any_end_takes = Duration::from_millis(1500);
    assert!(timeout(longer_than_any_end_takes, waits.read_u8()).await.is_err(), "the place is taken");
    let answer = ends(&mut slow).await;
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    assert_eq!(answer.len() - head - 4, LARGE);
    assert_eq!(timeout(SOON, waits.read_u8()).await.expect("it has its turn").unwrap(), b'H');
}

#[tokio::test]
async fn who_does_not_read_its_answer_at_all_loses_its_place_to_a_newcomer() {
    let port = http(bounds(1, Duration::from_millis(300)), large()).await;
    let silent = reads_slowly(port.address).await;
    let mut waits = connect(port.address, GET.as_bytes()).await;
    assert_eq!(timeout(SOON, waits.read_u8()).await.expect("it has its turn").unwrap(), b'H');
    drop(silent);
}

#[tokio::test]
async fn silent_connections_shut_nobody_out_of_a_grpc_port() {
    let port = grpc(hasty(4), Routes::default()).await;
    let silent = join_all((0..100).map(|_| connect(port.address, b""))).await;
    is_healthy(port.address).await;
    let speaking = join_all((0..100).map(|_| connect(port.address, PREFACE))).await;
    is_healthy(port.address).await;
    drop((silent, speaking));
}

#[tokio::test]
async fn the_bound_holds_for_grpc_too() {
    let port = grpc(Bounds { streams: 1, ..patient(3) }, Routes::default()).await;
    let mut watching = vec![];
    for _ in 0..3 {
        watching.push(watch(port.address).await);
    }
    let mut client = ServerReflectionClient::new(channel(port.address).await);
    let fourth = tokio::spawn(async move { client.server_reflection_info(futures::stream::pending()).await });
    is_healthy(port.address).await;
    assert!(!fourth.is_finished());
    drop(watching.pop());
    timeout(SOON, fourth).await.expect("it has its turn").unwrap().unwrap();
}

/// More than may watch at once.
const MANY_WATCHERS: usize = 300;

#[tokio::test]
async fn who_has_watched_for_longest_is_told_to_call_again_when_others_want_to() {
    let port = grpc(patient(1024), Routes::default()).await;
    let mut first = watch(port.address).await.1;
    let mut others = vec![];
    for _ in 0..MANY_WATCHERS {
        others.push(watch(port.address).await);
    }
    let ended = timeout(SOON, first.message()).await.expect("it ends").unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    let mut last = others.pop().unwrap().1;
    assert!(timeout(A_WHILE, last.message()).await.is_err(), "it goes on");
}

/// A call that its server answers at once, and then again on each change.
async fn watch(address: SocketAddr) -> (HealthClient<Channel>, Streaming<HealthCheckResponse>) {
    let mut client = health(address).await;
    let mut changes = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(changes.message().await.unwrap().unwrap().status, 1);
    (client, changes)
}

/// A call with a message of which only a part comes, written by hand: HTTP/2 without anything that it could do without.
async fn half_a_message(address: SocketAddr, announced: u32) -> Vec<u8> {
    let mut headers = vec![0x83, 0x86];
    for (name, value) in [
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).unwrap());
            headers.extend_from_slice(text.as_bytes());
        }
    }
    let mut message = vec![0];
    message.extend(announced.to_be_bytes());
    message.extend_from_slice(b"part");
    let frame = |kind: u8, flags: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1][..], content].concat()
    };
    let bytes = [PREFACE, &frame(1, 4, &headers), &frame(0, 0, &message)].concat();
    let mut stream = connect(address, &bytes).await;
    let mut answer = vec![];
    let mut part = [0; 1024];
    // The status is in the headers of the answer, as plain text or in Huffman's code.
    while !answer.windows(9).any(|bytes| bytes == [0, 0, 4, 3, 0, 0, 0, 0, 1]) {
        let length = timeout(SOON, stream.read(&mut part)).await.expect("it is answered").unwrap();
        assert!(length > 0, "{answer:?}");
        answer.extend_from_slice(&part[..length]);
    }
    answer
}

#[tokio::test]
async fn a_call_whose_message_does_not_come_whole_ends_after_the_deadline() {
    let port = grpc(patient(4), Routes::default()).await;
    half_a_message(port.address, 100).await;
    is_healthy(port.address).await;
}

#[tokio::test]
async fn a_message_may_have_what_its_service_takes_and_no_more() {
    let port = grpc(patient(4), Routes::default()).await;
    let mut client = health(port.address).await;
    let service = "x".repeat(5000);
    let refused = client.check(HealthCheckRequest { service }).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    let served = client.check(HealthCheckRequest { service: "x".repeat(4000) }).await.unwrap_err();
    assert_eq!(served.code(), Code::NotFound, "{served}");
}

#[tokio::test]
async fn a_grpc_connection_that_asks_nothing_ends_after_the_deadline() {
    let port = grpc(bounds(64, Duration::from_millis(300)), Routes::default()).await;
    let mut silent = join_all([&b""[..], PREFACE].map(|first| connect(port.address, first))).await;
    is_healthy(port.address).await;
    for stream in &mut silent {
        ends(stream).await;
    }
}

#[tokio::test]
async fn a_call_past_its_deadline_is_dropped() {
    let (routes, mut asked) = routes();
    let port = grpc(patient(4), Routes::from(routes)).await;
    let call = b"GET /hang HTTP/1.1\r\nHost: x\r\ngrpc-timeout: 100m\r\nConnection: close\r\n\r\n";
    let answer = ends(&mut connect(port.address, call).await).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("grpc-status: 1\r\n"), "{answer}");
    assert_eq!(asked.recv().await, Some(()), "it had begun");
}

#[tokio::test]
async fn at_the_end_answers_are_finished_and_nobody_else_gets_in() {
    let (asked, mut was_asked) = mpsc::channel(1);
    let (answer, may_answer) = mpsc::channel::<()>(1);
    let may_answer = std::sync::Arc::new(tokio::sync::Mutex::new(may_answer));
    let slow = move || async move {
        asked.send(()).await.unwrap();
        may_answer.lock().await.recv().await;
        "at last"
    };
    let port = http(patient(4), Router::new().route("/", get(slow))).await;
    let mut idle = connect(port.address, b"").await;
    let mut running = connect(port.address, GET.as_bytes()).await;
    was_asked.recv().await.unwrap();
    port.stop.cancel();
    ends(&mut idle).await;
    assert!(TcpStream::connect(port.address).await.is_err(), "the port is closed");
    answer.send(()).await.unwrap();
    assert!(ends(&mut running).await.ends_with(b"at last"));
    timeout(SOON, port.serving).await.expect("it ends").unwrap();
}
