//! Byte streams between peers, on connections that are open: the ground that gRPC stands on, and what torrents are
//! exchanged by.
//!
//! Streams are opened on the peer's oldest connection of the transport that suits them, and on its oldest when there is
//! none of that; incoming ones go into a bounded queue. What does not fit is reset and counted, as is what comes while
//! nobody listens. Never dials.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, OnceLock, Weak},
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use swarm_types::Transport;
use tokio::sync::{mpsc, oneshot};

use super::stream::{PeerInfo, PeerListener, PeerStream, Place};
use crate::{admission::roster::Roster, metrics::Metrics, peer, transport::address};

/// Agreeing on the protocol takes one round trip.
const NEGOTIATE_WITHIN: Duration = Duration::from_secs(3);

/// A peer opens one stream for all its calls, and another when that one broke. For torrents, a few side by side.
const MAX_PER_PEER: usize = 4;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("not connected")]
    NotConnected,
    #[error("does not take part in this swarm")]
    Unsupported,
    #[error("did not agree on the protocol in time")]
    Timeout,
    #[error("connection broke: {0}")]
    Io(std::io::Error),
}

/// Someone waits for a stream.
#[derive(Debug)]
pub(crate) struct OpenRequest(pub(crate) oneshot::Sender<Result<Stream, OpenError>>);

/// Where the incoming streams of one protocol go. Until somebody listens, and when that one has stopped, they are
/// closed as they come: nothing waits that nobody will read, and the peer knows at once.
#[derive(Debug, Default)]
pub(crate) struct Intake(Arc<OnceLock<mpsc::Sender<PeerStream>>>);

/// The place of the one who may listen. It does not keep the node's streams going.
#[derive(Clone, Debug)]
pub(crate) struct Seat(Weak<OnceLock<mpsc::Sender<PeerStream>>>);

/// The intakes of all protocols that are byte streams.
#[derive(Debug, Default)]
pub(crate) struct Intakes {
    pub(crate) grpc: Intake,
    pub(crate) torrents: Intake,
    pub(crate) watches: Intake,
}

impl Intake {
    pub(crate) fn seat(&self) -> Seat {
        Seat(Arc::downgrade(&self.0))
    }

    /// Whether the stream is on its way to somebody.
    fn hand_over(&self, stream: PeerStream) -> bool {
        self.0.get().is_some_and(|queue| queue.try_send(stream).is_ok())
    }
}

impl Seat {
    /// The streams that come from now on, of which so many may wait. Nothing when somebody has listened before, or the
    /// node has left.
    pub(crate) fn listen(&self, waiting: usize) -> Option<PeerListener> {
        let intake = self.0.upgrade()?;
        let (queue, streams) = mpsc::channel(waiting);
        intake.set(queue).ok()?;
        Some(PeerListener::new(streams))
    }
}

/// Opens and accepts the streams of one protocol.
pub(crate) struct Streams {
    protocol: StreamProtocol,
    /// Where they are opened when the peer has both.
    suits: Transport,
    intake: Intake,
    roster: Roster,
    metrics: Metrics,
    /// Of each peer, the oldest first.
    connections: HashMap<PeerId, Vec<(ConnectionId, Transport)>>,
    /// The streams that each peer has opened: as many as the place has owners.
    in_use: HashMap<PeerId, Weak<Place>>,
    requests: VecDeque<(PeerId, ConnectionId, OpenRequest)>,
}

impl Streams {
    /// Incoming streams go to the intake, whatever they come by.
    pub(crate) fn new(
        protocol: StreamProtocol,
        suits: Transport,
        intake: Intake,
        roster: Roster,
        metrics: Metrics,
    ) -> Self {
        let (connections, in_use) = (HashMap::new(), HashMap::new());
        Self { protocol, suits, intake, roster, metrics, connections, in_use, requests: VecDeque::new() }
    }

    /// Asks for a stream to a connected peer.
    pub(crate) fn open(&mut self, peer: PeerId, request: OpenRequest) {
        match self.connection(&peer) {
            Some(connection) => self.requests.push_back((peer, connection, request)),
            None => {
                // Whoever asked may have gone meanwhile.
                let _ = request.0.send(Err(OpenError::NotConnected));
            }
        }
    }

    /// Whether anything has come by a stream that the peer has opened, not longer ago than this.
    pub(crate) fn was_read_within(&self, peer: &PeerId, time: Duration) -> bool {
        let place = self.in_use.get(peer).and_then(Weak::upgrade);
        place.is_some_and(|place| place.is_within(time))
    }

    fn connection(&self, peer: &PeerId) -> Option<ConnectionId> {
        let all = self.connections.get(peer)?;
        let suiting = all.iter().find(|(_, transport)| *transport == self.suits);
        suiting.or(all.first()).map(|(connection, _)| *connection)
    }

    fn hand_over(&mut self, peer: PeerId, stream: Stream) {
        // Nobody is connected who has not proven its role.
        let Some(role) = self.roster.role(&peer) else { return };
        let Some(place) = self.place(peer) else {
            self.metrics.streams_dropped.inc();
            return;
        };
        let peer = PeerInfo { node: peer::node_id(&peer), role };
        let stream = PeerStream::new(peer, stream, self.metrics.clone()).in_place(place);
        if !self.intake.hand_over(stream) {
            self.metrics.streams_dropped.inc();
        }
    }

    /// A place for one more stream of the peer's, if there is one.
    fn place(&mut self, peer: PeerId) -> Option<Arc<Place>> {
        let in_use = self.in_use.entry(peer).or_default();
        if in_use.strong_count() >= MAX_PER_PEER {
            return None;
        }
        Some(in_use.upgrade().unwrap_or_else(|| {
            let first = Arc::new(Place::default());
            *in_use = Arc::downgrade(&first);
            first
        }))
    }

    fn handler(&self) -> Handler {
        Handler { protocol: self.protocol.clone(), requests: VecDeque::new(), accepted: VecDeque::new() }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(opened) => {
                let over = address::transport(opened.endpoint.get_remote_address());
                let opened_one = (opened.connection_id, over.unwrap_or(Transport::Tcp));
                self.connections.entry(opened.peer_id).or_default().push(opened_one);
            }
            FromSwarm::ConnectionClosed(closed) => {
                let Some(connections) = self.connections.get_mut(&closed.peer_id) else { return };
                connections.retain(|(connection, _)| *connection != closed.connection_id);
                if connections.is_empty() {
                    self.connections.remove(&closed.peer_id);
                    self.in_use.retain(|_, in_use| in_use.strong_count() > 0);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, stream: THandlerOutEvent<Self>) {
        self.hand_over(peer, stream);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.requests.pop_front() {
            Some((peer_id, connection, event)) => {
                let handler = NotifyHandler::One(connection);
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event })
            }
            None => Poll::Pending,
        }
    }
}

/// The streams of one connection.
pub(crate) struct Handler {
    protocol: StreamProtocol,
    requests: VecDeque<OpenRequest>,
    /// Handed on one by one; libp2p agrees on no more at the same time than it allows.
    accepted: VecDeque<Stream>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenRequest;
    type ToBehaviour = Stream;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenRequest;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    /// Members of the swarm stay connected whether they have something to say or not.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn on_behaviour_event(&mut self, request: Self::FromBehaviour) {
        self.requests.push_back(request);
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        if let Some(stream) = self.accepted.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        match self.requests.pop_front() {
            Some(request) => {
                let upgrade = ReadyUpgrade::new(self.protocol.clone());
                let protocol = SubstreamProtocol::new(upgrade, request).with_timeout(NEGOTIATE_WITHIN);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            None => Poll::Pending,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                self.accepted.push_back(stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info }) => {
                let _ = info.0.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => OpenError::Timeout,
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Io(error) => OpenError::Io(error),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = info.0.send(Err(error));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use libp2p::{
        core::ConnectedPoint,
        swarm::{ConnectionClosed, behaviour::ConnectionEstablished},
    };

    use super::*;

    fn streams(suits: Transport) -> Streams {
        let protocol = StreamProtocol::new("/test");
        Streams::new(protocol, suits, Intake::default(), Roster::default(), Metrics::default())
    }

    fn by(transport: Transport) -> ConnectedPoint {
        let address = match transport {
            Transport::Quic => "/ip4/10.0.0.1/udp/1/quic-v1",
            Transport::Tcp => "/ip4/10.0.0.1/tcp/1",
        };
        let address: Multiaddr = address.parse().unwrap();
        ConnectedPoint::Listener { local_addr: address.clone(), send_back_addr: address }
    }

    fn opened(streams: &mut Streams, peer_id: PeerId, number: usize, transport: Transport) {
        streams.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id,
            connection_id: ConnectionId::new_unchecked(number),
            endpoint: &by(transport),
            failed_addresses: &[],
            other_established: 0,
        }));
    }

    fn closed(streams: &mut Streams, peer_id: PeerId, number: usize, transport: Transport) {
        streams.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id,
            connection_id: ConnectionId::new_unchecked(number),
            endpoint: &by(transport),
            cause: None,
            remaining_established: 0,
        }));
    }

    /// The connection on which a stream is opened.
    fn goes_by(streams: &mut Streams, peer: PeerId) -> Option<ConnectionId> {
        let (answer, _asked) = oneshot::channel();
        streams.open(peer, OpenRequest(answer));
        let asked = std::future::poll_fn(|cx| streams.poll(cx)).now_or_never()?;
        match asked {
            ToSwarm::NotifyHandler { handler: NotifyHandler::One(connection), .. } => Some(connection),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_stream_goes_by_the_transport_that_suits_it_where_the_peer_has_it() {
        use Transport::{Quic, Tcp};
        let peer = PeerId::random();
        for (suits, alone, suiting) in [(Quic, Tcp, Quic), (Tcp, Quic, Tcp)] {
            let mut streams = streams(suits);
            assert_eq!(goes_by(&mut streams, peer), None, "not connected");
            for (number, transport) in [(1, alone), (2, alone), (3, suiting), (4, suiting)] {
                opened(&mut streams, peer, number, transport);
                let expected = if number < 3 { 1 } else { 3 };
                let expected = Some(ConnectionId::new_unchecked(expected));
                assert_eq!(goes_by(&mut streams, peer), expected, "{suits:?} after {number}");
            }
            for (number, transport, next) in [(3, suiting, 4), (4, suiting, 1), (1, alone, 2)] {
                closed(&mut streams, peer, number, transport);
                let expected = Some(ConnectionId::new_unchecked(next));
                assert_eq!(goes_by(&mut streams, peer), expected, "{suits:?} without {number}");
            }
        }
    }
}
