//! Pings peers: to know how far they are, and to notice that one on a TCP connection is silent.
//!
//! QUIC connections notice by themselves, late, by their idle timeout. TCP has none, and a failed ping is reported only
//! after more than ten seconds, so what counts here is the age of the last ping that was answered, or of the last
//! bytes that came: behind a large step on a slow link, the answers themselves are late. A connection that was dialled
//! by name lives by pings alone, because its socket is not known here.
//!
//! A TCP connection that is opened beside one by QUIC is a life line: silence on it means nothing, because QUIC notices
//! that. Which ones are is decided here, where connections are seen in the order in which libp2p has them. Who was
//! dialled may be wrong about that: the peer may have lost the one by QUIC, and this node may not know it yet. So a
//! line like that can be made a connection of its own, and one that was first can become a line.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    ping,
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use swarm_types::Transport;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::transport::{activity::Activity, address, pings::Pings};

/// Three of these fit into the silence that is taken for death, so a lost or late one does not kill.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Who says nothing for so long is gone, whatever its machine says.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(14);
/// What was beside something that has ended may be as dead: its peer has so long for the first answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// On life lines pings keep what stands between from forgetting them.
const PING_SELDOM_EVERY: Duration = Duration::from_secs(60);
/// On QUIC they only measure how far those are who are not watched.
const PING_RARELY_EVERY: Duration = Duration::from_secs(5 * 60);
/// Who has sent anything within this time is not silent.
const HEARD_WITHIN: Duration = Duration::from_millis(800);
/// A late answer is still an answer, as long as the connection lives.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What pings tell of a peer.
#[derive(Debug)]
pub(crate) enum Sign {
    /// It answered.
    RoundTrip { peer: PeerId, time: Duration },
    /// It has not answered for too long; its connection is being closed.
    Silent { peer: PeerId, connection: ConnectionId },
}

/// Pings peers.
pub(crate) struct Heartbeat {
    /// Often, for TCP alone; also takes the answers of the others.
    often: ping::Behaviour,
    /// Gives handlers that ping now and then, for life lines.
    seldom: ping::Behaviour,
    /// The same, for QUIC.
    rarely: ping::Behaviour,
    watched: HashMap<ConnectionId, Watched>,
    /// The connections by QUIC of each peer that has one.
    quic: HashMap<PeerId, HashSet<ConnectionId>>,
    life_lines: HashSet<ConnectionId>,
    activity: Activity,
    events: VecDeque<ToSwarm<Sign, Pings>>,
    check: Interval,
}

/// A connection whose silence is noticed here.
struct Watched {
    peer: PeerId,
    socket: Option<SocketAddr>,
    /// When pings began.
    since: Instant,
    /// How long it may be silent after that; after the first sign of life it is as long as any may.
    first_within: Duration,
    /// When a ping was last answered.
    answered: Option<Instant>,
    /// The first answer is all that is wanted of it.
    is_probed: bool,
}

impl Watched {
    fn new(peer: PeerId, socket: Option<SocketAddr>, first_within: Duration, now: Instant) -> Self {
        Self { peer, socket, since: now, first_within, answered: None, is_probed: false }
    }

    /// `bytes`: when any last came.
    fn is_silent(&self, bytes: Option<Instant>, now: Instant) -> bool {
        match bytes.max(self.answered).filter(|sign| *sign > self.since) {
            Some(sign) => now.duration_since(sign) > SILENT_AFTER,
            None => now.duration_since(self.since) > self.first_within,
        }
    }
}

impl Heartbeat {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new(activity: Activity) -> Self {
        let every = |interval| {
            let config = ping::Config::new().with_interval(interval).with_timeout(PING_TIMEOUT);
            ping::Behaviour::new(config)
        };
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            often: every(PING_EVERY),
            seldom: every(PING_SELDOM_EVERY),
            rarely: every(PING_RARELY_EVERY),
            watched: HashMap::new(),
            quic: HashMap::new(),
            life_lines: HashSet::new(),
            activity,
            events: VecDeque::new(),
            check,
        }
    }

    /// Whether the connection was opened beside one by QUIC.
    pub(crate) fn is_life_line(&self, connection: &ConnectionId) -> bool {
        self.life_lines.contains(connection)
    }

    /// Whether anything has just come from the peer over TCP.
    pub(crate) fn is_heard(&self, peer: &PeerId) -> bool {
        let sockets = self
            .watched
            .values()
            .filter(|watched| watched.peer == *peer)
            .filter_map(|watched| watched.socket);
        let mut last = sockets.filter_map(|socket| self.activity.last(socket));
        last.any(|last| last.elapsed() < HEARD_WITHIN)
    }

    /// `address` is the peer's.
    fn watch(&mut self, connection: ConnectionId, peer: PeerId, address: &Multiaddr) -> Pings {
        if address::transport(address) == Some(Transport::Quic) {
            return Pings::of(&mut self.rarely, connection, peer);
        }
        if self.quic.contains_key(&peer) {
            self.life_lines.insert(connection);
            return Pings::of(&mut self.seldom, connection, peer);
        }
        let socket = address::tcp_socket(address);
        self.watched.insert(connection, Watched::new(peer, socket, SILENT_AFTER, Instant::now()));
        Pings::of(&mut self.often, connection, peer)
    }

    /// What was opened beside another connection is a connection of its own from now on, and pinged like one. `address`
    /// is the peer's.
    pub(crate) fn stands_alone(&mut self, connection: ConnectionId, peer: PeerId, address: &Multiaddr) {
        self.life_lines.remove(&connection);
        let watched = Watched::new(peer, address::tcp_socket(address), ANSWERS_WITHIN, Instant::now());
        self.watched.insert(connection, watched);
        let pings = Pings::of(&mut self.often, connection, peer);
        self.change(connection, peer, pings);
    }

    /// What was a connection of its own is one beside another from now on.
    pub(crate) fn becomes_a_line(&mut self, connection: ConnectionId, peer: PeerId) {
        self.watched.remove(&connection);
        self.life_lines.insert(connection);
        let pings = Pings::of(&mut self.seldom, connection, peer);
        self.change(connection, peer, pings);
    }

    /// A connection by QUIC may be dead: it is closed unless the peer answers a ping on it soon.
    pub(crate) fn probe(&mut self, connection: ConnectionId, peer: PeerId) {
        let watched = Watched::new(peer, None, ANSWERS_WITHIN, Instant::now());
        self.watched.insert(connection, Watched { is_probed: true, ..watched });
        let pings = Pings::of(&mut self.often, connection, peer);
        self.change(connection, peer, pings);
    }

    /// A ping was answered.
    fn answered(&mut self, connection: ConnectionId, peer: PeerId) {
        let Some(watched) = self.watched.get_mut(&connection) else { return };
        watched.answered = Some(Instant::now());
        if watched.is_probed {
            self.watched.remove(&connection);
            let pings = Pings::of(&mut self.rarely, connection, peer);
            self.change(connection, peer, pings);
        }
    }

    fn change(&mut self, connection: ConnectionId, peer_id: PeerId, event: Pings) {
        let handler = NotifyHandler::One(connection);
        self.events.push_back(ToSwarm::NotifyHandler { peer_id, handler, event });
    }

    fn forget(&mut self, connection: &ConnectionId) {
        self.watched.remove(connection);
        self.life_lines.remove(connection);
    }

    fn close_silent(&mut self, now: Instant) {
        let bytes = |watched: &Watched| watched.socket.and_then(|socket| self.activity.last(socket));
        let silent: Vec<_> = self
            .watched
            .iter()
            .filter(|(_, watched)| watched.is_silent(bytes(watched), now))
            .map(|(connection, watched)| (*connection, watched.peer))
            .collect();
        for (connection, peer) in silent {
            self.watched.remove(&connection);
            self.events.push_back(ToSwarm::GenerateEvent(Sign::Silent { peer, connection }));
            let connection = CloseConnection::One(connection);
            self.events.push_back(ToSwarm::CloseConnection { peer_id: peer, connection });
        }
    }
}

impl NetworkBehaviour for Heartbeat {
    type ConnectionHandler = Pings;
    type ToSwarm = Sign;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.watch(connection, peer, remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.watch(connection, peer, address))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match &event {
            FromSwarm::ConnectionEstablished(opened)
                if address::transport(opened.endpoint.get_remote_address()) == Some(Transport::Quic) =>
            {
                self.quic.entry(opened.peer_id).or_default().insert(opened.connection_id);
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.forget(&closed.connection_id);
                if let Some(quic) = self.quic.get_mut(&closed.peer_id) {
                    quic.remove(&closed.connection_id);
                    if quic.is_empty() {
                        self.quic.remove(&closed.peer_id);
                    }
                }
            }
            // Denied by another behaviour after this one had agreed.
            FromSwarm::DialFailure(failure) => self.forget(&failure.connection_id),
            FromSwarm::ListenFailure(failure) => self.forget(&failure.connection_id),
            _ => {}
        }
        self.often.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.often.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        while let Poll::Ready(event) = self.often.poll(cx) {
            let ToSwarm::GenerateEvent(ping::Event { peer, connection, result: Ok(time) }) = event else {
                continue;
            };
            self.answered(connection, peer);
            self.events.push_back(ToSwarm::GenerateEvent(Sign::RoundTrip { peer, time }));
        }
        while self.check.poll_tick(cx).is_ready() {
            self.close_silent(Instant::now());
        }
        match self.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_left_alone_has_little_time_for_its_first_sign_and_then_as_much_as_any() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut line = Watched::new(PeerId::random(), None, ANSWERS_WITHIN, start);
        assert!(!line.is_silent(None, at(1.9)));
        assert!(line.is_silent(None, at(2.1)), "nobody has answered");
        assert!(line.is_silent(Some(start), at(2.1)), "what came before says nothing");
        assert!(!line.is_silent(Some(at(1.0)), at(14.9)), "bytes are a sign");
        line.answered = Some(at(1.5));
        assert!(!line.is_silent(None, at(15.4)));
        assert!(line.is_silent(Some(at(1.0)), at(15.6)), "the last one counts");
        assert!(!line.is_silent(Some(at(10.0)), at(15.6)));
        let other = Watched::new(PeerId::random(), None, SILENT_AFTER, start);
        assert!(!other.is_silent(None, at(13.9)));
        assert!(other.is_silent(None, at(14.1)));
    }
}
