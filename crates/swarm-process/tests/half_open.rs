//! Clients that close their sending side, and clients that have left.

// What fails here fails a test.
#![allow(clippy::unwrap_used)]

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::{get, post},
};
use futures::{StreamExt, stream};
use swarm_process::listener::{Bounds, Listener};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Long enough for anything that should come at all.
const SOON: Duration = Duration::from_secs(20);
const LARGE: usize = 8 << 20;
const INTERIM: [u8; 25] = *b"HTTP/1.1 100 Continue\r\n\r\n";

struct Port {
    address: SocketAddr,
    /// Lets the slow answers come.
    go: Arc<Notify>,
    asked: mpsc::Receiver<()>,
    dropped: mpsc::Receiver<()>,
    _stop: DropGuard,
}

/// Tells when it is dropped.
struct Held(mpsc::Sender<()>);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

async fn port() -> Port {
    let (go, (asks, asked), (drops, dropped)) = (Arc::new(Notify::new()), mpsc::channel(8), mpsc::channel(8));
    let (wait, began) = (go.clone(), asks.clone());
    let slow = move || async move {
        began.send(()).await.unwrap();
        wait.notified().await;
        "at last"
    };
    let hang = move || async move {
        let _held = Held(drops);
        asks.send(()).await.unwrap();
        pending::<()>().await;
    };
    let large = || async {
        let pieces = stream::iter(0..LARGE >> 16).then(|_| async {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1 << 16]))
        });
        Body::from_stream(pieces)
    };
    let routes = Router::new()
        .route("/slow", get(slow))
        .route("/hang", get(hang))
        .route("/large", get(large))
        .route("/body", post(|body: Bytes| async move { format!("{} bytes", body.len()) }));
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "HTTP", "--http", Bounds::default());
    let listener = listener.await.unwrap();
    let (address, stop) = (listener.local_addr(), CancellationToken::new());
    tokio::spawn(listener.serve(routes, stop.clone()));
    Port { address, go, asked, dropped, _stop: stop.drop_guard() }
}

/// Asks and sends no more.
async fn asks(port: &Port, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    stream
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = vec![];
    timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the connection is ended").unwrap();
    String::from_utf8(rest).unwrap()
}

#[tokio::test]
async fn who_closes_its_sending_side_gets_its_answer() {
    let mut port = port().await;
    let mut client = asks(&port, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    timeout(SOON, port.asked.recv()).await.unwrap();
    let mut interim = [0; 25];
    timeout(SOON, client.read_exact(&mut interim)).await.expect("it is asked whether it reads").unwrap();
    assert_eq!(interim, INTERIM);
    port.go.notify_one();
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("at last"), "{answer}");

    let mut client = asks(&port, "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").await;
    assert!(rest(&mut client).await.ends_with("3 bytes"));
}

#[tokio::test]
async fn who_closes_its_sending_side_gets_a_large_answer_and_the_ones_that_follow() {
    let port = port().await;
    let twice = "GET /large HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
    let mut client = asks(&port, &twice).await;
    let all = rest(&mut client).await;
    assert_eq!(all.matches("HTTP/1.1 200").count(), 2);
    assert_eq!(all.bytes().filter(|byte| *byte == b'x').count(), 2 * LARGE);
}

#[tokio::test]
async fn what_is_made_for_who_has_left_ends() {
    let mut port = port().await;
    for version in ["1.1", "1.0"] {
        let client = asks(&port, &format!("GET /hang HTTP/{version}\r\nHost: x\r\n\r\n")).await;
        timeout(SOON, port.asked.recv()).await.unwrap();
        drop(client);
        timeout(SOON, port.dropped.recv()).await.expect("it is noticed");
    }
}

#[tokio::test]
async fn half_a_request_is_not_waited_for() {
    let port = port().await;
    for half in ["GET / HT", "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na"] {
        let all = rest(&mut asks(&port, half).await).await;
        assert!(!all.contains("200 OK"), "{all}");
    }
}
