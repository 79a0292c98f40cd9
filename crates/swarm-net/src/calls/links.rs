//! The ways to admitted peers: one gRPC channel to each, inside a libp2p stream, and streams for torrents.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use hyper_util::rt::TokioIo;
use libp2p::PeerId;
use tokio::{
    runtime::Handle,
    sync::{OnceCell, mpsc, oneshot},
    time::timeout,
};
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tower::{
    layer::util::{Identity, Stack},
    service_fn,
};

use crate::{
    NetError, Role,
    calls::{
        bounds::{BoundsLayer, MethodLimit},
        last::Last,
        stream::{PeerInfo, PeerStream},
        streams::OpenRequest,
    },
    command::Command,
    metrics::Metrics,
    peer,
};

/// HTTP/2's window for what comes back of one call.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// For what comes back of all calls of one connection.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// For what comes in by all calls of one connection: what a peer can make this node hold of messages that are not read.
const CALLS_WINDOW: u32 = 32 * 1024 * 1024;
/// Of this, the least that one call gets, and the most: a step of a long prompt fits in, so one round trip does not
/// throttle it.
const CALL_WINDOW: (u32, u32) = (64 * 1024, 4 * 1024 * 1024);
/// Calls at once on one connection besides those of sessions; more wait.
const OTHER_CALLS: u32 = 32;
/// A session that begins again opens its calls while the old ones end.
const CALLS_A_SESSION: u32 = 4;
/// A stream on an open connection takes one or two round trips.
pub(crate) const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// What peers may ask of a node.
#[derive(Clone, Copy, Default, Debug)]
pub struct PeerCalls {
    /// Sessions that one peer may have at the same time, each with large messages under way.
    pub sessions: u32,
    /// The methods whose requests are more than one message of 4 KiB.
    pub limits: &'static [MethodLimit],
}

/// A tonic server with the settings that suit streams from peers, whose calls are small ones. Add the services and
/// serve a [`PeerListener`](crate::PeerListener) with it.
#[must_use]
pub fn peer_server() -> Server<Stack<BoundsLayer, Identity>> {
    peer_server_for(PeerCalls::default())
}

/// The same for a node that has sessions. What one peer can make it hold by one connection: 32 MiB that are not read
/// yet, 16 MiB of large messages that are not whole, and of each other call 64 KiB.
#[must_use]
pub fn peer_server_for(calls: PeerCalls) -> Server<Stack<BoundsLayer, Identity>> {
    let PeerCalls { sessions, limits } = calls;
    let (least, most) = CALL_WINDOW;
    // All of them together must not use up the connection's window: a message that is being read has to go on coming.
    let (call, connection) = match CALLS_WINDOW.checked_div(sessions) {
        Some(share) => {
            let call = share.clamp(least, most);
            (call, CALLS_WINDOW.max(call.saturating_mul(sessions)))
        }
        None => (least, OTHER_CALLS * least),
    };
    Server::builder()
        .initial_stream_window_size(call)
        .initial_connection_window_size(connection)
        .max_concurrent_streams(OTHER_CALLS.saturating_add(sessions.saturating_mul(CALLS_A_SESSION)))
        .layer(BoundsLayer::new(limits))
}

/// The channels to all admitted peers. Cheap to clone; does not keep the node running.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    commands: mpsc::WeakSender<Command>,
    channels: Arc<Mutex<HashMap<PeerId, Arc<Link>>>>,
    /// Of the thread that has the connections: what a channel sends is handed to no other.
    network: Handle,
    metrics: Metrics,
}

/// The way to one peer.
#[derive(Debug)]
struct Link {
    /// Made at the first call, shared by all.
    channel: OnceCell<Channel>,
    /// When a service last wanted its channel.
    called: Last,
    /// Smoothed, in µs; 0 before the first was measured.
    round_trip_us: AtomicU32,
    /// As the peer has proven it.
    role: Role,
}

/// How far a peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundTrip {
    /// What kind of node it is.
    pub role: Role,
    /// From a message to its answer.
    pub time: Duration,
}

impl Links {
    pub(crate) fn new(commands: mpsc::WeakSender<Command>, network: Handle, metrics: Metrics) -> Self {
        Self { commands, channels: Arc::default(), network, metrics }
    }

    /// A peer is admitted.
    pub(crate) fn add(&self, peer: PeerId, role: Role) {
        let link = || {
            Arc::new(Link {
                channel: OnceCell::new(),
                called: Last::default(),
                round_trip_us: AtomicU32::new(0),
                role,
            })
        };
        self.channels().entry(peer).or_insert_with(link);
    }

    /// The last connection to an admitted peer is gone; its channel is of no use.
    pub(crate) fn remove(&self, peer: &PeerId) {
        self.channels().remove(peer);
    }

    /// Whether there is a connection to run a channel on.
    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.channels().contains_key(peer)
    }

    /// All admitted peers that are connected.
    pub(crate) fn peers(&self) -> Vec<PeerId> {
        self.channels().keys().copied().collect()
    }

    /// Whether there is a connection to anybody.
    pub(crate) fn any(&self) -> bool {
        !self.channels().is_empty()
    }

    /// A service wants the peer's channel: the two work together.
    pub(crate) fn called(&self, peer: &PeerId) {
        if let Some(link) = self.channels().get(peer) {
            link.called.note();
        }
    }

    /// Whether a service wanted the peer's channel not longer ago than this.
    pub(crate) fn was_called_within(&self, peer: &PeerId, time: Duration) -> bool {
        self.channels().get(peer).is_some_and(|link| link.called.is_within(time))
    }

    /// A ping was answered. Single ones vary much, so each counts for an eighth, as in TCP (RFC 6298).
    pub(crate) fn answered(&self, peer: &PeerId, after: Duration) {
        let Some(link) = self.channels().get(peer).cloned() else { return };
        let new = u32::try_from(after.as_micros()).unwrap_or(u32::MAX).max(1);
        let smoothed = match link.round_trip_us.load(Ordering::Relaxed) {
            0 => new,
            old => ((u64::from(old) * 7 + u64::from(new)) / 8) as u32,
        };
        link.round_trip_us.store(smoothed.max(1), Ordering::Relaxed);
    }

    /// How far an admitted peer is, if that was measured.
    pub(crate) fn round_trip(&self, peer: &PeerId) -> Option<Duration> {
        let micros = self.channels().get(peer)?.round_trip_us.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros.into()))
    }

    /// How far the admitted peers are, those where that was measured.
    pub(crate) fn round_trips(&self) -> Vec<(PeerId, RoundTrip)> {
        let channels = self.channels();
        let all =
            channels.iter().map(|(peer, link)| (*peer, link, link.round_trip_us.load(Ordering::Relaxed)));
        let measured = all.filter(|(_, _, micros)| *micros > 0);
        let round_trip = |(peer, link, micros): (_, &Arc<Link>, u32)| {
            (peer, RoundTrip { role: link.role, time: Duration::from_micros(micros.into()) })
        };
        measured.map(round_trip).collect()
    }

    /// The channel to an admitted peer.
    pub(crate) async fn channel(&self, peer: PeerId) -> Result<Channel, NetError> {
        let link = self.channels().get(&peer).cloned();
        let link = link.ok_or_else(|| NetError::NotConnected(peer::node_id(&peer)))?;
        let connect = || async {
            let connecting = self.network.spawn(connect(self.clone(), peer, link.role));
            connecting.await.map_err(|_| NetError::Left)?
        };
        Ok(link.channel.get_or_try_init(connect).await?.clone())
    }

    /// A stream to an admitted peer by which to watch it.
    pub(crate) async fn watch_stream(&self, peer: PeerId) -> io::Result<PeerStream> {
        let role = self.channels().get(&peer).map(|link| link.role);
        let role = role.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "not connected"))?;
        let info = PeerInfo { node: peer::node_id(&peer), role };
        open_stream(self.clone(), peer, info, Command::OpenWatch).await
    }

    /// A stream for torrents to an admitted peer.
    pub(crate) async fn torrent_stream(&self, peer: PeerId) -> Result<PeerStream, NetError> {
        let node = peer::node_id(&peer);
        let role = self.channels().get(&peer).map(|link| link.role);
        let role = role.ok_or_else(|| NetError::NotConnected(node.clone()))?;
        let info = PeerInfo { node: node.clone(), role };
        let opened = open_stream(self.clone(), peer, info, Command::OpenTorrent).await;
        opened.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => NetError::Timeout { node, within: OPEN_WITHIN },
            _ => NetError::Stream { node, message: with_sources(&error) },
        })
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<PeerId, Arc<Link>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A channel that opens a stream to the peer now, and another one should HTTP/2 on it end while the peer stays
/// admitted.
async fn connect(links: Links, peer: PeerId, role: Role) -> Result<Channel, NetError> {
    let node = peer::node_id(&peer);
    let info = PeerInfo { node: node.clone(), role };
    let open = service_fn(move |_: Uri| {
        let (links, info) = (links.clone(), info.clone());
        async move { open_stream(links, peer, info, Command::Open).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://peer.invalid")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    match timeout(OPEN_WITHIN, endpoint.connect_with_connector(open)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(NetError::Stream { node, message: with_sources(&error) }),
        Err(_) => Err(NetError::Timeout { node, within: OPEN_WITHIN }),
    }
}

/// Opens a stream of the protocol that the command is for.
async fn open_stream(
    links: Links,
    peer: PeerId,
    info: PeerInfo,
    open: fn(PeerId, OpenRequest) -> Command,
) -> io::Result<PeerStream> {
    let left = || io::Error::new(io::ErrorKind::NotConnected, "this node has left the swarm");
    let (answer, stream) = oneshot::channel();
    let commands = links.commands.upgrade().ok_or_else(left)?;
    commands.send(open(peer, OpenRequest(answer))).await.map_err(|_| left())?;
    drop(commands);
    match timeout(OPEN_WITHIN, stream).await {
        Ok(Ok(Ok(stream))) => Ok(PeerStream::new(info, stream, links.metrics)),
        Ok(Ok(Err(error))) => Err(io::Error::new(io::ErrorKind::NotConnected, error)),
        Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection closed")),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// tonic's errors say little without their causes.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
