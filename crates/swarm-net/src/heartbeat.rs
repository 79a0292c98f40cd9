//! Notices that a peer on a TCP connection is silent.
//!
//! QUIC connections notice by themselves, by their idle timeout. TCP has none, and a failed ping is reported only
//! after more than ten seconds, so what counts here is the age of the last ping that was answered.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    ping,
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::toggle::Toggle,
    },
};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::address::{self, Transport};

/// Three of these fit into the silence that is taken for death, so a lost or late one does not kill.
const PING_EVERY: Duration = Duration::from_millis(400);
/// With the check below this keeps detection under two seconds.
const SILENT_AFTER: Duration = Duration::from_millis(1500);
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// A late answer is still an answer, as long as the connection lives.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The peer has not answered for too long; its connection is being closed.
#[derive(Debug)]
pub(crate) struct Silent {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
}

type Ping = Toggle<ping::Behaviour>;

/// Pings peers that are connected by TCP.
pub(crate) struct Heartbeat {
    on: Ping,
    /// Gives handlers that do nothing, for QUIC.
    off: Ping,
    heard: HashMap<ConnectionId, (PeerId, Instant)>,
    events: VecDeque<ToSwarm<Silent, THandlerInEvent<Ping>>>,
    check: Interval,
}

impl Heartbeat {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new() -> Self {
        let config = ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_TIMEOUT);
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            on: Some(ping::Behaviour::new(config)).into(),
            off: None.into(),
            heard: HashMap::new(),
            events: VecDeque::new(),
            check,
        }
    }

    fn watch(&mut self, connection: ConnectionId, peer: PeerId, address: &Multiaddr) -> &mut Ping {
        if address::transport(address) == Some(Transport::Quic) {
            return &mut self.off;
        }
        self.heard.insert(connection, (peer, Instant::now()));
        &mut self.on
    }

    fn close_silent(&mut self, now: Instant) {
        let silent: Vec<_> = self
            .heard
            .iter()
            .filter(|(_, (_, heard))| now.duration_since(*heard) > SILENT_AFTER)
            .map(|(connection, (peer, _))| (*connection, *peer))
            .collect();
        for (connection, peer) in silent {
            self.heard.remove(&connection);
            self.events.push_back(ToSwarm::GenerateEvent(Silent { peer, connection }));
            let connection = CloseConnection::One(connection);
            self.events.push_back(ToSwarm::CloseConnection { peer_id: peer, connection });
        }
    }
}

impl NetworkBehaviour for Heartbeat {
    type ConnectionHandler = THandler<Ping>;
    type ToSwarm = Silent;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.watch(connection, peer, local)
            .handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let ping = self.watch(connection, peer, address);
        ping.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match &event {
            FromSwarm::ConnectionClosed(closed) => {
                self.heard.remove(&closed.connection_id);
            }
            // Denied by another behaviour after this one had agreed.
            FromSwarm::DialFailure(failure) => {
                self.heard.remove(&failure.connection_id);
            }
            FromSwarm::ListenFailure(failure) => {
                self.heard.remove(&failure.connection_id);
            }
            _ => {}
        }
        self.on.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.on.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        while let Poll::Ready(event) = self.on.poll(cx) {
            if let ToSwarm::GenerateEvent(ping::Event { connection, result: Ok(_), .. }) = event
                && let Some((_, heard)) = self.heard.get_mut(&connection)
            {
                *heard = Instant::now();
            }
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
