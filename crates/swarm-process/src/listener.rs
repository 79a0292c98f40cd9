//! The one way a process serves TCP: HTTP and gRPC ports accept, bound, time and end their connections here.
//!
//! What a request means is the routes' business.

mod places;
mod tls;

use std::{future::pending, io, net::SocketAddr, pin::pin, time::Duration};

use axum::{Extension, Router, middleware};
use futures::FutureExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tower::Layer;

use places::{Place, Places};
pub use tls::{Tls, TlsConfig};

/// A dead client is noticed within the sum of both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// First and longest pause after an error of the port itself, as when no file descriptors are left.
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Event streams and watchers never end by themselves; after this they are cut off.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// How many connections a port holds, and how long it waits for what they bring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Connections at once; each holds some buffers. 0 counts as one.
    pub connections: usize,
    /// Requests at once on one HTTP/2 connection; more wait.
    pub streams: u32,
    /// A client that has sent no whole head of a request for so long, on a new connection or after an answer by
    /// HTTP/1, sends none. On a connection that is to end, it has as long to read the rest of its last answer.
    pub head: Duration,
    /// When places run short, a new connection is not ended for another before this: its request may be on its way.
    pub spared: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 1024,
            streams: 128,
            head: Duration::from_secs(30),
            spared: Duration::from_secs(1),
        }
    }
}

/// A TCP port that is open but not served yet.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    bounds: Bounds,
    tls: Option<Tls>,
}

impl Listener {
    /// Opens the port; 0 takes a free one. `name` and `flag` say which it is in an error.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn bind(address: SocketAddr, name: &str, flag: &str, bounds: Bounds) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await.map_err(|error| {
            let message = format!("cannot open the {name} port {address} ({flag}): {error}");
            io::Error::new(error.kind(), message)
        })?;
        let address = tcp.local_addr()?;
        Ok(Self { tcp, address, bounds, tls: None })
    }

    /// With it the port speaks nothing else than TLS.
    #[must_use]
    pub fn secured(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then closes the port and lets running requests end within a second. When this is dropped,
    /// its connections are cut off.
    pub async fn serve(self, routes: Router, stop: CancellationToken) {
        let Self { tcp, bounds, tls, .. } = self;
        let (tls, following) = tls.map(Tls::split).unzip();
        let places = Places::new(bounds.connections, bounds.spared);
        let server = Server { tls, ..Server::new(routes, bounds, stop.clone()) };
        let (connections, cut_off) = (TaskTracker::new(), CancellationToken::new());
        let _cut_off_when_dropped = cut_off.clone().drop_guard();
        let accepting = async {
            loop {
                let stream = accept(&tcp, &places).await;
                let place = places.take().await;
                let connection = server.clone().serve(stream, place);
                connections.spawn(cut_off.clone().run_until_cancelled_owned(connection));
            }
        };
        tokio::select! {
            () = accepting => {}
            () = following.unwrap_or_else(|| pending().boxed()) => {}
            () = stop.cancelled() => {}
        }
        // Whoever comes now is refused at once instead of waiting for nobody.
        drop(tcp);
        connections.close();
        let _ = timeout(SHUTDOWN_GRACE, connections.wait()).await;
    }
}

/// The next connection. Errors of the port do not end it.
async fn accept(tcp: &TcpListener, places: &Places) -> TcpStream {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    let mut pause = MIN_PAUSE;
    loop {
        match tcp.accept().await {
            Ok((stream, _)) => return stream,
            // Of one client, which left before its turn came.
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) => {
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // It may be file descriptors that are missing; one connection's is enough to go on.
                places.make_room();
                sleep(pause).await;
                pause = MAX_PAUSE.min(2 * pause);
            }
        }
    }
}

/// What the connections of one port have in common. Cheap to clone.
#[derive(Clone)]
struct Server {
    routes: Router,
    protocol: Builder<TokioExecutor>,
    head: Duration,
    stop: CancellationToken,
    tls: Option<tls::Current>,
}

impl Server {
    fn new(routes: Router, bounds: Bounds, stop: CancellationToken) -> Self {
        let mut protocol = Builder::new(TokioExecutor::new());
        protocol.http1().timer(TokioTimer::new()).header_read_timeout(bounds.head);
        protocol
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(bounds.streams);
        let routes = routes.layer(middleware::from_fn(places::hold));
        Self { routes, protocol, head: bounds.head, stop, tls: None }
    }

    /// A connection that was accepted. The handshake of TLS belongs to the time that a client has for its first
    /// request.
    async fn serve(self, stream: TcpStream, place: Place) {
        // Events must not wait for an acknowledgement of the ones before.
        let _ = stream.set_nodelay(true);
        let ends = stream.connect_info();
        let Some(tls) = self.tls.clone() else { return self.talk(stream, ends, place).await };
        let secured = tokio::select! {
            secured = tls.accept(stream) => secured,
            () = self.told_to_end(&place) => return,
        };
        match secured {
            // In a box, so that connections without TLS are no larger.
            Ok(stream) => Box::pin(self.talk(stream, ends, place)).await,
            Err(error) => tracing::debug!(%error, "a connection was not secured"),
        }
    }

    /// Speaks HTTP/1 or HTTP/2 as the client does, until one side ends it.
    async fn talk<S>(self, stream: S, ends: TcpConnectInfo, place: Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let routes = Extension(place.clone()).layer(self.routes.clone());
        let service = TowerToHyperService::new(Extension(ends).layer(routes));
        let mut connection = pin!(self.protocol.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.told_to_end(&place) => {
                connection.as_mut().graceful_shutdown();
                let told = Instant::now();
                loop {
                    let end = self.grace_ends(&place, told);
                    match timeout_at(end, connection.as_mut()).await {
                        Ok(ended) => break ended,
                        // Requests were in hand meanwhile.
                        Err(_) if self.grace_ends(&place, told) > end => {}
                        Err(_) => break Ok(()),
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection broke");
        }
    }

    /// When a connection that was `told` to end is cut off, unless it has a request in hand by then.
    fn grace_ends(&self, place: &Place, told: Instant) -> Instant {
        // To whoever never asked anything no answer is under way.
        let grace = if place.has_asked() { self.head } else { Duration::ZERO };
        told.max(place.busy_until()) + grace
    }

    async fn told_to_end(&self, place: &Place) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = place.dismissed() => {}
            () = place.silent_for(self.head) => {}
        }
    }
}
