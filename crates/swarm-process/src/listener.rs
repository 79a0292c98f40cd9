//! The one way a process serves TCP: HTTP and gRPC ports accept, bound, time and end their connections here.
//!
//! What a request means is the routes' business.

mod bounds;
mod half_open;
mod lane;
mod pace;
mod places;
mod tls;
mod turns;

use std::{
    future::pending,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use axum::{Extension, Router, middleware};
use futures::FutureExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tower::Layer;

pub use bounds::Bounds;
use half_open::{HalfOpen, Socket};
pub(crate) use lane::Lane;
use pace::{Pace, Paced};
use places::{Place, Places};
pub use tls::{Tls, TlsConfig};

use crate::shares::GONE_WITHIN;

/// A dead client is noticed within the sum of both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that may come at one moment. To whom it is full, it is closed for a second, until the client's system
/// tries again; systems have a bound of their own, usually this one.
const BACKLOG: u32 = 4096;
/// First and longest pause after an error of the port itself, as when no file descriptors are left.
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Event streams and watchers never end by themselves; after this they are cut off.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// What a client may send on one stream before somebody reads it, and on all streams of one connection. Windows of both
/// sizes may be full for a moment on every connection, when more comes than there are cores to read it.
const STREAM_WINDOW: u32 = 32 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of a request's head, over HTTP/1 and HTTP/2 alike. Web servers take 8 to 32 KiB.
const MAX_HEAD: u32 = 16 << 10;
/// Bytes of an answer that are kept for one stream while its client does not read.
const SEND_BUFFER: usize = 64 << 10;

/// Where the client of a request is. Requests that came by no listener all have the same.
#[must_use]
pub fn client_of(request: &http::Extensions) -> IpAddr {
    let client = request.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    client.map_or(Ipv4Addr::UNSPECIFIED.into(), |client| client.ip())
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
        let tcp = listen(address).map_err(|error| {
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
        let places = Places::new(bounds);
        let server = Server { tls, ..Server::new(routes, bounds, stop.clone()) };
        let (connections, cut_off) = (TaskTracker::new(), CancellationToken::new());
        let _cut_off_when_dropped = cut_off.clone().drop_guard();
        let accepting = async {
            loop {
                let (stream, address) = accept(&tcp, &places).await;
                let place = places.enter(address).await;
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

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Otherwise a port that was in use a moment ago cannot be had again; on Windows it means that others may take it.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // Connections have it from here.
    socket.set_send_buffer_size(UNREAD)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Bytes of answers that the system keeps for a client that does not read them; left to itself it keeps megabytes.
const UNREAD: u32 = 256 << 10;

/// The next connection. Errors of the port do not end it.
async fn accept(tcp: &TcpListener, places: &Places) -> (TcpStream, IpAddr) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    let mut pause = MIN_PAUSE;
    loop {
        match tcp.accept().await {
            Ok((stream, client)) => return (stream, client.ip()),
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
        protocol
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.head)
            .max_buf_size(MAX_HEAD as usize);
        protocol
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(bounds.streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .max_send_buf_size(SEND_BUFFER);
        let routes = routes.layer(middleware::from_fn(turns::hold));
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
        S: AsyncRead + AsyncWrite + Socket + Unpin + Send + 'static,
    {
        let routes = Extension(place.clone()).layer(self.routes.clone());
        let routes = Extension(Lane::default()).layer(Extension(ends).layer(routes));
        let service = TowerToHyperService::new(routes);
        let pace = Pace::new();
        let stream = TokioIo::new(Paced { stream: HalfOpen::new(stream, place.clone()), pace: pace.clone() });
        let mut connection = pin!(self.protocol.serve_connection(stream, service));
        let ended = tokio::select! {
            // A request that is here already must not be lost for want of a moment to read it.
            biased;
            ended = connection.as_mut() => ended,
            () = self.told_to_end(&place) => {
                connection.as_mut().graceful_shutdown();
                let told = Instant::now();
                loop {
                    let end = self.grace_ends(&place, &pace, told);
                    match timeout_at(end, connection.as_mut()).await {
                        Ok(ended) => break ended,
                        // Something went on meanwhile.
                        Err(_) if self.grace_ends(&place, &pace, told) > end => {}
                        Err(_) => break Ok(()),
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection broke");
        }
    }

    /// When a connection that was `told` to end is cut off, unless something goes on by then.
    fn grace_ends(&self, place: &Place, pace: &Pace, told: Instant) -> Instant {
        // To whoever never asked anything no answer is under way.
        if !place.has_asked() {
            return told;
        }
        let written = pace.now();
        let idle_since = place.waits_since().max(written.last);
        let idle_ends = match written.blocked {
            // The client reads slowly, or not at all.
            true => (idle_since + self.head).max(told + GONE_WITHIN),
            // All is written, as far as one can see.
            false => told.max(idle_since) + GONE_WITHIN,
        };
        // One answer that nobody reads does not keep a connection on which others go on.
        let stall_ends = place.longest_stall().map(|since| told.max(since) + self.head);
        stall_ends.map_or(idle_ends, |stall_ends| idle_ends.min(stall_ends))
    }

    async fn told_to_end(&self, place: &Place) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = place.dismissed() => {}
            () = place.silent_for(self.head) => {}
        }
    }
}
