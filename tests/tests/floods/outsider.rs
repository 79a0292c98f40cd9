//! The process that floods: it knows an address and means no good.

use std::{io::Write, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use h2::client::{self, SendRequest};
use http::{Method, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::sleep,
};

/// Has the order in the outsider's environment: which flood, and where to.
pub(crate) const ORDER: &str = "SWARM_TESTS_FLOOD";
/// What the outsider says when all of its flood is there.
pub(crate) const RISEN: &str = "risen";
/// The first bytes of an HTTP/2 client: its preface and settings without any.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Takes large messages.
pub(crate) const GENERATE: &str = "/swarm.v1.InferenceService/Generate";
/// Takes small ones.
pub(crate) const STATUS: &str = "/swarm.v1.SwarmService/GetStatus";

/// More than a port has places.
const CONNECTIONS: usize = 1100;
/// Endless calls, each on a connection of its own.
const CALLS: usize = 1024;
/// Of a message of 4 MiB, the last byte never comes.
const MESSAGE: usize = 4 << 20;
/// Streams that are opened and reset on one connection before another is tried.
const RESETS: u32 = 2000;
/// As clients of gRPC do it.
const CALLS_AGAIN: Duration = Duration::from_secs(1);
/// Before a connection that was refused or ended is opened again.
const PAUSE: Duration = Duration::from_millis(20);

/// With what a connection begins.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Opening {
    Silence,
    HalfAPreface,
    Preface,
    /// A request for the swarm's state and all changes.
    Events,
    /// Requests for large answers, of which none is read.
    Metrics,
}

impl Opening {
    const ALL: [Self; 5] = [Self::Silence, Self::HalfAPreface, Self::Preface, Self::Events, Self::Metrics];

    fn bytes(self) -> Vec<u8> {
        let get = |path, accept| format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
        match self {
            Self::Silence => vec![],
            Self::HalfAPreface => PREFACE[..10].to_vec(),
            Self::Preface => PREFACE.to_vec(),
            Self::Events => get("/v1/swarm", "text/event-stream").into_bytes(),
            Self::Metrics => get("/metrics", "*/*").repeat(200).into_bytes(),
        }
    }
}

/// A way to flood a port.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Flood {
    /// gRPC calls with a large message that never comes whole; what ends is begun again.
    Messages { path: &'static str, connections: usize, calls: usize },
    /// The same over HTTP/1, one on each connection.
    Bodies { connections: usize, bytes: usize },
    /// Connections that begin so and say nothing more, but that they answer pings; opened once.
    Openings(Opening),
    /// gRPC calls whose answers never end.
    Calls { path: &'static str },
    /// Calls that are taken back at once.
    Resets,
}

impl Flood {
    /// What [`run`] reads.
    pub(crate) fn order(self, target: &str) -> String {
        match self {
            Self::Messages { path, connections, calls } => {
                format!("messages {target} {path} {connections} {calls}")
            }
            Self::Bodies { connections, bytes } => format!("bodies {target} {connections} {bytes}"),
            Self::Openings(opening) => format!("openings {target} {opening:?}"),
            Self::Calls { path } => format!("calls {target} {path}"),
            Self::Resets => format!("resets {target}"),
        }
    }
}

/// Floods until it is ended from outside.
pub(crate) fn run(order: &str) -> ExitCode {
    swarm_process::descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let Err(error) = runtime.block_on(flood(order));
    eprintln!("the outsider cannot go on: {error:?}");
    ExitCode::FAILURE
}

async fn flood(order: &str) -> anyhow::Result<std::convert::Infallible> {
    let mut words = order.splitn(3, ' ');
    let (kind, target) = (words.next().context("a kind")?, words.next().context("a target")?.to_owned());
    let rest = words.next().unwrap_or_default();
    let numbers: Vec<usize> = rest.split(' ').filter_map(|word| word.parse().ok()).collect();
    let tasks = match (kind, &*numbers) {
        ("messages", [connections, calls]) => {
            let path = rest.split(' ').next().unwrap_or_default();
            spawn(*connections, || messages(target.clone(), path.to_owned(), *calls))
        }
        ("bodies", [connections, bytes]) => spawn(*connections, || bodies(target.clone(), *bytes)),
        ("openings", _) => {
            let known = Opening::ALL.into_iter().find(|opening| format!("{opening:?}") == rest);
            let bytes = known.context("no such opening")?.bytes();
            spawn(CONNECTIONS, || opening(target.clone(), bytes.clone()))
        }
        ("calls", _) => spawn(CALLS, || endless_call(target.clone(), rest.to_owned())),
        ("resets", _) => spawn(1, || resets(target.clone())),
        _ => anyhow::bail!("no such flood: {order}"),
    };
    for begun in join_all(tasks).await {
        begun?;
    }
    println!("{RISEN}");
    std::io::stdout().flush()?;
    std::future::pending().await
}

/// Runs one task for each connection; each is awaited until it has begun.
fn spawn<F>(count: usize, task: impl Fn() -> F) -> Vec<BoxFuture<'static, anyhow::Result<()>>>
where
    F: Future<Output = anyhow::Result<Begun>> + Send + 'static,
{
    let begin = |task: F| async move {
        let Begun(rest) = tokio::spawn(task).await??;
        tokio::spawn(rest);
        Ok(())
    };
    (0..count).map(|_| begin(task()).boxed()).collect()
}

/// What goes on with a flood that is there.
struct Begun(BoxFuture<'static, ()>);

impl Begun {
    fn with(rest: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<Self> {
        Ok(Self(rest.boxed()))
    }
}

async fn connect(target: &str) -> std::io::Result<SendRequest<bytes::Bytes>> {
    let stream = TcpStream::connect(target).await?;
    let (calls, connection) = client::handshake(stream).await.map_err(std::io::Error::other)?;
    // It answers settings and pings.
    tokio::spawn(connection);
    Ok(calls)
}

fn post(target: &str, path: &str) -> Request<()> {
    let request = Request::builder().method(Method::POST).uri(format!("http://{target}{path}"));
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).expect("valid")
}

/// As many calls as the server lets one connection have, of all that it is to have.
async fn messages(target: String, path: String, calls: usize) -> anyhow::Result<Begun> {
    let connection = Arc::new(tokio::sync::Mutex::new(connect(&target).await?));
    let first = Arc::new(Notify::new());
    for index in 0..calls {
        let (target, path) = (target.clone(), path.clone());
        let (connection, first) = (connection.clone(), first.clone());
        tokio::spawn(async move {
            loop {
                if index == 0 {
                    first.notify_one();
                }
                if unfinished_message(&target, &path, &connection).await.is_err() {
                    sleep(PAUSE).await;
                    let mut connection = connection.lock().await;
                    if connection.clone().ready().await.is_err() {
                        *connection = connect(&target).await.unwrap_or(connection.clone());
                    }
                }
            }
        });
    }
    first.notified().await;
    Begun::with(std::future::pending())
}

async fn unfinished_message(
    target: &str,
    path: &str,
    connection: &tokio::sync::Mutex<SendRequest<bytes::Bytes>>,
) -> anyhow::Result<()> {
    let ready = connection.lock().await.clone().ready().await;
    let (answer, mut sending) = ready?.send_request(post(target, path), false)?;
    let send = async {
        sending.send_data(bytes::Bytes::from_static(&[0, 0, 0x40, 0, 0]), false)?;
        let mut left = MESSAGE - 1;
        while left > 0 {
            sending.reserve_capacity(left.min(16 << 10));
            let room = std::future::poll_fn(|context| sending.poll_capacity(context)).await;
            let room = room.context("the stream is over")??.min(left);
            sending.send_data(vec![b'x'; room].into(), false)?;
            left -= room;
        }
        std::future::pending::<anyhow::Result<()>>().await
    };
    tokio::select! {
        sent = send => sent,
        answer = answer => {
            answer?;
            Ok(())
        }
    }
}

async fn bodies(target: String, bytes: usize) -> anyhow::Result<Begun> {
    let first = unfinished_body(&target, bytes).await?;
    Begun::with(async move {
        let mut stream = Some(first);
        loop {
            if let Some(mut stream) = stream.take() {
                let _ = stream.read_to_end(&mut vec![]).await;
            }
            sleep(PAUSE).await;
            stream = unfinished_body(&target, bytes).await.ok();
        }
    })
}

async fn unfinished_body(target: &str, bytes: usize) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(target).await?;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {MESSAGE}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    // The server may take it slowly, or not at all.
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&vec![b' '; bytes])).await;
    Ok(stream)
}

async fn opening(target: String, first: Vec<u8>) -> anyhow::Result<Begun> {
    let mut stream = TcpStream::connect(&target).await?;
    let answers_pings = first == PREFACE;
    Begun::with(async move {
        // The server may have ended it already, as is its right.
        let _ = stream.write_all(&first).await;
        if answers_pings {
            let _ = answer_pings(&mut stream).await;
        }
        // Nothing is read, and the connection stays open on this side.
        std::future::pending::<()>().await;
        drop(stream);
    })
}

async fn answer_pings(stream: &mut TcpStream) -> std::io::Result<()> {
    const PING: u8 = 6;
    const ACKNOWLEDGES: u8 = 1;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut content = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut content).await?;
        if head[3] == PING && head[4] & ACKNOWLEDGES == 0 {
            head[4] = ACKNOWLEDGES;
            stream.write_all(&[&head[..], &content].concat()).await?;
        }
    }
}

async fn endless_call(target: String, path: String) -> anyhow::Result<Begun> {
    let first = begin_call(&target, &path).await;
    Begun::with(async move {
        let mut call = first.ok();
        loop {
            if let Some((_connection, mut answer)) = call.take() {
                while answer.data().await.is_some_and(|data| data.is_ok()) {}
            }
            sleep(CALLS_AGAIN).await;
            call = begin_call(&target, &path).await.ok();
        }
    })
}

async fn begin_call(target: &str, path: &str) -> anyhow::Result<(SendRequest<bytes::Bytes>, h2::RecvStream)> {
    let mut connection = connect(target).await?.ready().await?;
    let (answer, mut sending) = connection.send_request(post(target, path), false)?;
    // A message without content.
    sending.send_data(bytes::Bytes::from_static(&[0; 5]), true)?;
    Ok((connection, answer.await?.into_body()))
}

async fn resets(target: String) -> anyhow::Result<Begun> {
    let mut bytes = PREFACE.to_vec();
    for index in 0..RESETS {
        let stream = (2 * index + 1).to_be_bytes();
        // GET http / with an authority of one letter; then the code CANCEL.
        let headers = [0x82, 0x86, 0x84, 0x41, 0x01, b'x'];
        bytes.extend([&[0, 0, headers.len() as u8, 1, 5][..], &stream, &headers].concat());
        bytes.extend([&[0, 0, 4, 3, 0][..], &stream, &[0, 0, 0, 8]].concat());
    }
    Begun::with(async move {
        loop {
            if let Ok(mut stream) = TcpStream::connect(&target).await {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.read_to_end(&mut vec![]).await;
            }
        }
    })
}
