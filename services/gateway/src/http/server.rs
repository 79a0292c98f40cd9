//! The HTTP port: accepts connections, bounded in number and patience, and ends them in order.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Each connection holds some buffers; more connections wait for one to end.
const MAX_CONNECTIONS: usize = 1024;
/// A client that sends no head for so long sends none.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A dead client is noticed within the sum of both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// After an error of the listener itself, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Event streams never end by themselves; after this they are cut off.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// An HTTP port that is open but not served yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl HttpServer {
    /// Opens the port; 0 takes a free one.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let message = format!("cannot open the HTTP port {address} (--http-listen): {error}");
            io::Error::new(error.kind(), message)
        })?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then lets running requests end within a second.
    pub(crate) async fn serve(self, routes: Router, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        let accept = async {
            loop {
                let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        connections.spawn(serve_one(stream, routes.clone(), stop.clone(), place));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = stop.cancelled() => {}
        }
        connections.close();
        // What is left is dropped with its task when the runtime ends.
        let _ = timeout(SHUTDOWN_GRACE, connections.wait()).await;
    }
}

async fn serve_one(stream: TcpStream, routes: Router, stop: CancellationToken, _place: OwnedSemaphorePermit) {
    // Events must not wait for an acknowledgement of the ones before.
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS);
    let service = TowerToHyperService::new(routes);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection broke");
    }
}
