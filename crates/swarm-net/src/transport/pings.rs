//! Pings on one connection, by libp2p's handler, which has one pace for ever: another one takes its place when the pace
//! is to change.

use std::{
    fmt,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, ping,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, ConnectionId, NetworkBehaviour, SubstreamProtocol,
        THandler, THandlerOutEvent, handler::ConnectionEvent,
    },
};

type Handler = THandler<ping::Behaviour>;
type In = <Handler as ConnectionHandler>::InboundProtocol;
type Out = <Handler as ConnectionHandler>::OutboundProtocol;

/// Pings the peer, and answers its pings.
pub(crate) struct Pings(Handler);

impl Pings {
    /// At the behaviour's pace.
    pub(crate) fn of(behaviour: &mut ping::Behaviour, connection: ConnectionId, peer: PeerId) -> Self {
        // It gives all connections the same handler, wherever they go.
        let (near, far) = (Multiaddr::empty(), Multiaddr::empty());
        let handler = behaviour.handle_established_inbound_connection(connection, peer, &near, &far);
        Self(handler.expect("pings deny no connection"))
    }
}

impl fmt::Debug for Pings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pings").finish_non_exhaustive()
    }
}

impl ConnectionHandler for Pings {
    /// What pings from now on.
    type FromBehaviour = Self;
    type ToBehaviour = THandlerOutEvent<ping::Behaviour>;
    type InboundProtocol = In;
    type OutboundProtocol = Out;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<In> {
        self.0.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.0.connection_keep_alive()
    }

    fn on_behaviour_event(&mut self, other: Self) {
        // A ping that is under way is lost, on either side; libp2p takes one for none.
        *self = other;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Out, (), Self::ToBehaviour>> {
        self.0.poll(cx)
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<In, Out>) {
        self.0.on_connection_event(event);
    }
}
