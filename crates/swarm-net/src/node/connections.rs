//! Connections: who is there, who is gone, whom to dial.

use std::time::{Duration, Instant};

use libp2p::{
    PeerId,
    core::ConnectedPoint,
    identify,
    swarm::{
        ConnectionId, DialError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use swarm_types::Transport;

use super::{
    Node,
    connected::{Connection, Peer, what_it_says},
    log, node_id, now_ms,
    watching::ACQUAINTED,
};
use crate::{
    behaviour::BehaviourEvent,
    metrics::Gone,
    peers::{dialer::Dial, membership::TOMBSTONE, news::News},
    transport::{address, heartbeat::Sign},
};

/// Two between whom nothing has gone for so long have no session together.
const AT_REST: Duration = Duration::from_secs(10);

impl Node {
    pub(super) fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_open(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, endpoint, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                let transport = address::transport(endpoint.get_remote_address()).unwrap_or(Transport::Tcp);
                self.on_closed(peer_id, connection_id, what_it_says(transport, cause.as_ref()));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_dial_failed(connection_id, peer_id, &error);
            }
            SwarmEvent::NewListenAddr { .. } | SwarmEvent::ListenerClosed { .. } => self.on_addresses(),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.on_addresses();
                self.has_moved(&address, Instant::now());
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener has trouble"),
            SwarmEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(%error, "an incoming connection failed");
            }
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, connection_id, info, .. }) => {
                self.on_identified(peer_id, connection_id, &info);
            }
            BehaviourEvent::Kad(event) => self.on_dht(event),
            BehaviourEvent::RendezvousClient(event) => self.on_registrations(event),
            BehaviourEvent::Heartbeat(Sign::Silent { peer, connection }) => {
                self.on_closed(peer, connection, Some(Gone::Silent));
            }
            BehaviourEvent::Heartbeat(Sign::RoundTrip { peer, time }) => {
                self.links.answered(&peer, time);
                self.metrics.answered(time);
            }
            _ => {}
        }
    }

    /// A connection is open, and its peer admitted: it would not be here otherwise.
    fn on_open(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let (now, address) = (Instant::now(), endpoint.get_remote_address());
        let Some(role) = self.roster.role(&peer) else {
            self.swarm.close_connection(connection);
            return;
        };
        self.stirred = now;
        let newcomer = !self.peers.contains_key(&peer);
        let (dialable, incoming) = (address::dialable(address), endpoint.is_listener());
        let mut is_life_line = self.swarm.behaviour().heartbeat.is_life_line(&connection);
        if newcomer && is_life_line {
            // What it was opened beside has just ended.
            if !incoming {
                self.entries.failed(connection, now);
                self.dialer.failed(&peer, now);
                self.swarm.close_connection(connection);
                return;
            }
            self.swarm.behaviour_mut().heartbeat.stands_alone(connection, peer, address);
            is_life_line = false;
        }
        let transport = address::transport(address).unwrap_or(Transport::Tcp);
        self.metrics.opened(transport);
        self.dialer.connected(peer, now);
        let was_entry = self.entries.contains(&peer);
        let is_entry = self.entries.connected(peer, connection).is_some();
        let dialled = dialable.clone().filter(|_| !incoming);
        let opened = Connection {
            transport,
            remote: address.clone(),
            dialled,
            is_life_line,
            since: now,
            listens: vec![],
        };
        let met_before = self.peers.get(&peer).and_then(Peer::first_met);
        self.peers.entry(peer).or_default().connections.insert(connection, opened);
        if newcomer {
            let address = dialable.as_ref().unwrap_or(address).clone();
            log([News::Connected { node: node_id(&peer), transport, address }]);
            self.welcome(peer, role, now);
        } else if is_entry && !was_entry {
            // It had dialled this node first, and is known as an entry only now.
            self.enter_by(&peer, role, now);
        }
        self.is_there(&peer);
        if !is_life_line && met_before.is_some_and(|since| now.duration_since(since) >= ACQUAINTED) {
            self.watch_closely(peer);
        }
        self.line_opened(peer, connection, now);
        self.tell_transport(&peer, now);
    }

    /// `gone`: what that says of the peer, if not this node has closed it.
    pub(super) fn on_closed(&mut self, peer: PeerId, connection: ConnectionId, gone: Option<Gone>) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let Some(closed) = known.connections.remove(&connection) else { return };
        if !known.is_there() {
            let heartbeat = &mut self.swarm.behaviour_mut().heartbeat;
            for (line, address) in known.let_lines_stand_alone() {
                heartbeat.stands_alone(line, peer, &address);
            }
        }
        let (is_there, quic, tcp) = (known.is_there(), known.has(Transport::Quic), known.has(Transport::Tcp));
        self.metrics.closed(closed.transport);
        if !is_there {
            return self.farewell(peer, gone);
        }
        if gone.is_some() {
            self.probe_duplicates(peer);
        }
        if !quic {
            self.life_lines.forget(&peer);
        } else if !tcp && closed.transport == Transport::Tcp {
            self.line_ended(peer, &closed, gone.is_some());
        }
        self.tell_transport(&peer, Instant::now());
    }

    /// The last connection to a peer is gone, but for life lines.
    fn farewell(&mut self, peer: PeerId, gone: Option<Gone>) {
        let now = Instant::now();
        self.stirred = now;
        let Some(known) = self.peers.remove(&peer) else { return };
        for (connection, line) in known.connections {
            self.metrics.closed(line.transport);
            self.swarm.close_connection(connection);
        }
        self.life_lines.forget(&peer);
        self.is_lost(&peer, gone, now);
        if let Some(how) = gone {
            self.metrics.gone(how);
        }
        self.dialer.disconnected(&peer, TOMBSTONE, now);
        self.entries.disconnected(&peer, now);
        // Questions to the dead would hold up all others.
        self.swarm.behaviour_mut().kad.remove_peer(&peer);
        log([News::Disconnected(node_id(&peer))]);
        if known.member.is_some() {
            self.dismiss(&peer, gone.is_none() || known.leaves, now);
        }
    }

    /// Makes the dials that are due, in a turn that came so late.
    pub(super) fn dial_in_turn(&mut self, now: Instant, late: Duration) {
        self.dialer.turn_was_late(late);
        self.dial(now);
    }

    /// Makes the dials that are due.
    pub(super) fn dial(&mut self, now: Instant) {
        for dial in self.entries.due(now) {
            let connection = dial.connection_id();
            if let Err(error) = self.swarm.dial(dial) {
                self.on_dial_failed(connection, None, &error);
            }
        }
        for dial in self.dialer.due(now) {
            let condition = PeerCondition::DisconnectedAndNotDialing;
            let opts = DialOpts::peer_id(dial.peer).condition(condition);
            // Without addresses of its own, those that the DHT has for the peer.
            let opts =
                if dial.addresses.is_empty() { opts.build() } else { opts.addresses(dial.addresses).build() };
            let connection = opts.connection_id();
            if let Err(error) = self.swarm.dial(opts) {
                self.on_dial_failed(connection, Some(dial.peer), &error);
            }
        }
    }

    /// Dials those by QUIC who are connected by TCP alone.
    fn upgrade(&mut self, now: Instant) {
        let alone = |known: &Peer| known.member.is_some() && !known.has(Transport::Quic);
        let alone = self.peers.iter().filter(|(_, known)| alone(known)).map(|(peer, _)| *peer).collect();
        for Dial { peer, addresses } in self.dialer.due_by_quic(&alone, now) {
            let dial = DialOpts::peer_id(peer).condition(PeerCondition::NotDialing).addresses(addresses);
            if let Err(error) = self.swarm.dial(dial.build()) {
                tracing::debug!(%peer, %error, "not by QUIC");
            }
        }
    }

    /// Closes what two that dialled each other at once have too much of, once nothing runs by it. The node with the
    /// smaller id does.
    fn close_duplicates(&mut self, now: Instant) {
        for (peer, known) in self.peers.iter().filter(|(peer, _)| self.me < **peer) {
            let duplicates = known.duplicates(ACQUAINTED, now);
            let streams = &self.swarm.behaviour().streams;
            if duplicates.is_empty()
                || self.watching.distrusts(peer)
                || self.links.was_called_within(peer, AT_REST)
                || streams.was_read_within(peer, AT_REST)
            {
                continue;
            }
            for connection in duplicates {
                tracing::debug!(%peer, "one connection by QUIC is enough");
                self.swarm.close_connection(connection);
            }
        }
    }

    /// One of a peer's connections has ended. Of several by QUIC some may have ended with it, and others live: two
    /// processes may have one identity.
    fn probe_duplicates(&mut self, peer: PeerId) {
        let Some(known) = self.peers.get(&peer) else { return };
        let by_quic: Vec<ConnectionId> = known.over(Transport::Quic).collect();
        if by_quic.len() > 1 {
            let heartbeat = &mut self.swarm.behaviour_mut().heartbeat;
            by_quic.into_iter().for_each(|connection| heartbeat.probe(connection, peer));
        }
    }

    fn on_dial_failed(&mut self, connection: ConnectionId, peer: Option<PeerId>, error: &DialError) {
        let now = Instant::now();
        tracing::debug!(?peer, %error, "dial failed");
        if self.life_lines.failed(connection, now) {
            return;
        }
        if matches!(error, DialError::DialPeerConditionFalse(_)) {
            return self.on_dial_postponed(connection, peer, now);
        }
        self.metrics.dial_failed();
        if matches!(error, DialError::LocalPeerId { .. }) {
            self.entries.is_self(connection, now);
        }
        if let Some(failure) = self.entries.failed(connection, now)
            && failure.first
        {
            let error = why(error);
            tracing::warn!(address = %failure.address, error, "cannot enter the swarm here yet, going on trying");
        }
        let Some(peer) = peer else { return };
        self.dialer.failed(&peer, now);
        if !self.peers.contains_key(&peer) {
            self.swarm.behaviour_mut().kad.remove_peer(&peer);
        }
    }

    /// Another dial to the peer is under way, whose outcome counts.
    fn on_dial_postponed(&mut self, connection: ConnectionId, peer: Option<PeerId>, now: Instant) {
        self.entries.postponed(connection, now);
        if let Some(peer) = peer {
            self.dialer.postponed(&peer, now);
        }
    }

    /// Forgets what is over.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.filter.sweep(self.swarm.behaviour_mut().kad.store_mut(), now, now_ms());
        self.dialer.expire(now);
        self.awaited.retain(|(_, answer)| !answer.is_closed());
        log(self.membership.expire(now));
        self.check_proofs(now);
        self.note_members();
        self.check_lines(now);
        self.settle_lines(now);
        self.close_duplicates(now);
        self.upgrade(now);
        self.expire_missed(now);
        self.look_for_twins(now);
        self.rewatch();
    }
}

/// Why a dial failed, in one line and without what it says twice. Which address it was is told beside it.
fn why(error: &DialError) -> String {
    match error {
        DialError::Transport(errors) => {
            let causes: Vec<_> = errors.iter().map(|(_, error)| root(error).to_string()).collect();
            in_one_line(&causes.join("\n"))
        }
        other => in_one_line(&other.to_string()),
    }
}

/// What is below all that only passes it on.
fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    error.source().map_or(error, root)
}

fn in_one_line(error: &str) -> String {
    let mut parts: Vec<&str> = vec![];
    let told = |part: &'_ &str| !part.is_empty();
    for part in error.lines().map(|line| line.trim_matches([' ', '-', ':'])).filter(told) {
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use libp2p::TransportError;

    use super::*;

    #[test]
    fn an_error_of_several_lines_is_told_in_one_without_what_it_repeats() {
        let lines = "Multiple dial errors occurred:\n - Handshake failed\n - Handshake failed\n\n";
        assert_eq!(in_one_line(lines), "Multiple dial errors occurred: Handshake failed");
        let refused = || TransportError::Other(io::Error::from(io::ErrorKind::ConnectionRefused));
        let address = |port: u16| format!("/ip4/10.0.0.1/tcp/{port}").parse().expect("an address");
        let twice = DialError::Transport(vec![(address(1), refused()), (address(2), refused())]);
        assert_eq!(why(&twice), "connection refused");
    }
}
