//! Connections: who is there, who is gone, whom to dial.

use std::{collections::BTreeMap, time::Instant};

use libp2p::{
    Multiaddr, PeerId, identify, rendezvous,
    swarm::{
        ConnectionId, DialError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use swarm_types::Transport;
use tokio::sync::oneshot;

use super::{Node, Peer, SWEEP_EVERY, log, node_id, now_ms};
use crate::{
    behaviour::{self, BehaviourEvent},
    calls::describe::Follower,
    peers::{lines, membership::TOMBSTONE},
    transport::{address, heartbeat::Sign},
};

/// A stranger that does not say within this that it belongs here is sent away.
const IDENTIFY_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);
/// Handles that wait for connections; more are answered at once that there is none.
const MAX_AWAITED: usize = 1024;

impl Node {
    pub(super) fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_open(peer_id, connection_id, endpoint.get_remote_address());
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                self.on_closed(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_dial_failed(connection_id, peer_id, &error);
            }
            SwarmEvent::NewListenAddr { .. }
            | SwarmEvent::ExpiredListenAddr { .. }
            | SwarmEvent::ListenerClosed { .. } => self.on_addresses(),
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener has trouble"),
            SwarmEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(%error, "an incoming connection failed");
            }
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identified(peer_id, &info);
            }
            BehaviourEvent::Kad(event) => self.on_dht(event),
            BehaviourEvent::RendezvousClient(event) => self.on_registrations(event),
            BehaviourEvent::Heartbeat(Sign::Silent { peer, connection }) => self.on_closed(peer, connection),
            BehaviourEvent::Heartbeat(Sign::RoundTrip { peer, time }) => {
                self.links.answered(&peer, time);
                self.metrics.answered(time);
            }
            _ => {}
        }
    }

    fn on_open(&mut self, peer: PeerId, connection: ConnectionId, address: &Multiaddr) {
        let now = Instant::now();
        let transport = address::transport(address).unwrap_or(Transport::Tcp);
        self.metrics.opened(transport);
        self.dialer.connected(peer, now);
        if self.entries.connected(peer, connection).is_some() {
            tracing::info!(%peer, "entered the swarm");
        }
        let node = node_id(&peer);
        if let Some(known) = self.peers.get_mut(&peer) {
            known.connections.insert(connection, transport);
        } else {
            let address = address::dialable(address).unwrap_or_else(|| address.clone());
            log(lines::connected(&node, transport, &address));
            self.welcome(peer, connection, transport, now);
        }
        let best = self.peers[&peer].connections.values().min().copied().unwrap_or(transport);
        log(self.membership.connected(&node, best, now));
    }

    /// The first connection to a peer.
    fn welcome(&mut self, peer: PeerId, connection: ConnectionId, transport: Transport, now: Instant) {
        self.epoch += 1;
        self.links.add(peer);
        let follower = Follower {
            peer,
            epoch: self.epoch,
            links: self.links.clone(),
            keys: self.keys.clone(),
            metrics: self.metrics.clone(),
            heard: self.hearing.clone(),
            warned: false,
        };
        let follower = self.services.spawn(follower.run()).abort_handle();
        let connections = BTreeMap::from([(connection, transport)]);
        let state = Peer { connections, epoch: self.epoch, since: now, identified: false, follower };
        self.peers.insert(peer, state);
        for (_, answer) in self.awaited.extract_if(.., |(awaited, _)| *awaited == peer) {
            let _ = answer.send(true);
        }
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let Some(transport) = known.connections.remove(&connection) else { return };
        self.metrics.closed(transport);
        if let Some(best) = known.connections.values().min().copied() {
            log(self.membership.connected(&node_id(&peer), best, Instant::now()));
        } else {
            known.follower.abort();
            self.peers.remove(&peer);
            self.farewell(peer);
        }
    }

    /// The last connection to a peer is gone.
    fn farewell(&mut self, peer: PeerId) {
        let now = Instant::now();
        self.links.remove(&peer);
        self.dialer.disconnected(&peer, TOMBSTONE, now);
        self.entries.disconnected(&peer, now);
        self.registrations.remove(&peer);
        // Questions to the dead would hold up all others.
        self.swarm.behaviour_mut().kad.remove_peer(&peer);
        let node = node_id(&peer);
        log([lines::disconnected(&node)]);
        log(self.membership.disconnected(&node, now));
    }

    fn on_identified(&mut self, peer: PeerId, info: &identify::Info) {
        let now = Instant::now();
        if info.protocol_version != behaviour::swarm_version(self.keys.cluster()) {
            return self.send_away(peer, &info.protocol_version);
        }
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let news = !std::mem::replace(&mut known.identified, true);
        let addresses = address::dialable_all(&info.listen_addrs);
        self.dialer.learn(peer, &addresses, TOMBSTONE, now);
        let quic = |address: &&Multiaddr| address::transport(address) == Some(Transport::Quic);
        let only_tcp = !addresses.iter().any(|address| quic(&address));
        for address in addresses.iter().filter(|address| only_tcp || quic(address)) {
            self.swarm.behaviour_mut().kad.add_address(&peer, address.clone());
        }
        if self.entries.contains(&peer) && info.protocols.contains(&rendezvous::PROTOCOL_NAME) {
            self.registrations.add(peer, now);
        }
        if news {
            self.queries.hurry(now);
            self.publisher.peer_joined(now);
        }
    }

    /// The peer belongs to another swarm, or to none.
    fn send_away(&mut self, peer: PeerId, version: &str) {
        self.metrics.refused_because("foreign_swarm");
        if self.entries.contains(&peer) {
            let expected = behaviour::swarm_version(self.keys.cluster());
            tracing::warn!(%peer, is = version, %expected, "this entry belongs to another swarm, check --cluster");
            self.entries.foreign(&peer, Instant::now());
        }
        self.dialer.forget(&peer);
        // Gone already: nothing to close.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    /// Makes all dials that are due.
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

    fn on_dial_failed(&mut self, connection: ConnectionId, peer: Option<PeerId>, error: &DialError) {
        let now = Instant::now();
        tracing::debug!(?peer, %error, "dial failed");
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
            tracing::warn!(address = %failure.address, %error, "cannot enter the swarm here yet, going on trying");
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

    /// A handle wants to reach a peer.
    pub(super) fn connect(&mut self, peer: PeerId, answer: oneshot::Sender<bool>) {
        let now = Instant::now();
        if self.peers.contains_key(&peer) {
            let _ = answer.send(true);
        } else if self.dialer.knows(&peer) && self.awaited.len() < MAX_AWAITED {
            self.awaited.push((peer, answer));
            self.dialer.hurry(&peer, now);
            self.dial(now);
        } else {
            let _ = answer.send(false);
        }
    }

    /// Forgets what is over.
    pub(super) fn sweep(&mut self, now: Instant) {
        debug_assert!(SWEEP_EVERY < IDENTIFY_WITHIN);
        self.filter.sweep(self.swarm.behaviour_mut().kad.store_mut(), now, now_ms());
        self.dialer.expire(now);
        self.awaited.retain(|(_, answer)| !answer.is_closed());
        log(self.membership.expire(now));
        let late = |peer: &Peer| !peer.identified && now.duration_since(peer.since) > IDENTIFY_WITHIN;
        let strangers: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| late(peer)).map(|(id, _)| *id).collect();
        for stranger in strangers {
            self.send_away(stranger, "unknown");
        }
    }
}
