//! Keeps a behaviour's panic from ending the node.
//!
//! libp2p's rendezvous client (0.18) panics when a server answers with a message that is no answer, or with a
//! lifetime beyond the clock. What comes from outside must not end a node, so it runs inside of this.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

/// A behaviour that may panic while it handles what a peer sent. It is then used no more.
pub(crate) struct Guard<B> {
    inner: B,
    broken: bool,
}

impl<B> Guard<B> {
    pub(crate) fn new(inner: B) -> Self {
        Self { inner, broken: false }
    }

    /// The behaviour, unless it broke.
    pub(crate) fn get(&mut self) -> Option<&mut B> {
        (!self.broken).then_some(&mut self.inner)
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Guard<B> {
    type ConnectionHandler = B::ConnectionHandler;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if !self.broken {
            self.inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        if !self.broken {
            self.inner.on_connection_handler_event(peer, connection, event);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if self.broken {
            return Poll::Pending;
        }
        // After a panic the behaviour is not touched again, so no broken state is seen.
        catch_unwind(AssertUnwindSafe(|| self.inner.poll(cx))).unwrap_or_else(|_| {
            self.broken = true;
            tracing::error!("a peer broke the rendezvous protocol; going on by the DHT alone");
            Poll::Pending
        })
    }
}
