//! Holds every new connection until its peer is admitted: a transport around the transports. What comes out of it is a
//! member's connection, and the swarm with all its protocols sees no other.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Transport,
    core::{
        muxing::{StreamMuxerBox, StreamMuxerExt},
        transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    },
};
use tokio::time::timeout;

use super::{
    doors::{Doors, Place},
    exchange::{self, NotAdmitted, Own, Proof},
    keyring::Keyring,
    roster::{Proven, Roster},
};
use crate::{Role, metrics::Metrics};

/// For a connection to be set up and its peer to be admitted.
pub(crate) const ADMIT_WITHIN: Duration = Duration::from_secs(3);
/// What goes on is told once in so long for each cause.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What a connection is once it is set up.
type Connection = (PeerId, StreamMuxerBox);
type Upgrade = Pin<Box<dyn Future<Output = Result<Connection, NotAdmitted>> + Send>>;

/// Admits peers. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    me: PeerId,
    role: Role,
    protocol: StreamProtocol,
    ring: Keyring,
    roster: Roster,
    doors: Doors,
    metrics: Metrics,
    warned: Mutex<HashMap<&'static str, Instant>>,
}

impl Gate {
    pub(crate) fn new(
        me: PeerId,
        role: Role,
        protocol: StreamProtocol,
        (ring, roster): (Keyring, Roster),
        metrics: Metrics,
    ) -> Self {
        let (doors, warned) = (Doors::default(), Mutex::default());
        Self(Arc::new(Inner { me, role, protocol, ring, roster, doors, metrics, warned }))
    }

    /// Puts the gate around a transport.
    pub(crate) fn around<T>(&self, inner: T) -> Gated<T> {
        Gated { inner, gate: self.clone() }
    }

    async fn incoming<F, E>(self, setup: F, place: Place) -> Result<Connection, NotAdmitted>
    where
        F: Future<Output = Result<Connection, E>>,
        E: std::error::Error + Send + Sync + 'static,
    {
        let admission = async {
            let (peer, mut muxer) = setup.await.map_err(broken)?;
            let proof = self.hear(&mut muxer, peer).await;
            Ok((peer, muxer, proof))
        };
        let (peer, muxer, proof) = tokio::select! {
            admitted = timeout(ADMIT_WITHIN, admission) => admitted.unwrap_or(Err(NotAdmitted::Late))?,
            () = place.evicted() => return Err(NotAdmitted::Crowded),
        };
        self.enter(peer, proof?);
        Ok((peer, muxer))
    }

    async fn outgoing<F, E>(self, setup: F) -> Result<Connection, NotAdmitted>
    where
        F: Future<Output = Result<Connection, E>>,
        E: std::error::Error + Send + Sync + 'static,
    {
        let (peer, mut muxer) = setup.await.map_err(broken)?;
        let proof = timeout(ADMIT_WITHIN, self.ask(&mut muxer, peer)).await;
        self.enter(peer, proof.unwrap_or(Err(NotAdmitted::Late))?);
        Ok((peer, muxer))
    }

    /// The listener's side. A peer that opens a second stream before it is admitted is none of us.
    async fn hear(&self, muxer: &mut StreamMuxerBox, peer: PeerId) -> Result<Proof, NotAdmitted> {
        let stream = poll_fn(|cx| muxer.poll_inbound_unpin(cx)).await?;
        let own = self.own();
        let mut exchange = pin!(exchange::listen(stream, &own, peer));
        poll_fn(|cx| {
            if let Poll::Ready(ended) = exchange.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            // This also drives the connection.
            match ready!(muxer.poll_inbound_unpin(cx)) {
                Ok(_) => Poll::Ready(Err(NotAdmitted::Protocol("a second stream"))),
                // What it leaves behind may still be read.
                Err(_) => exchange.as_mut().poll(cx),
            }
        })
        .await
    }

    /// The dialer's side. What the listener opens right after it has admitted this node waits in the connection.
    async fn ask(&self, muxer: &mut StreamMuxerBox, peer: PeerId) -> Result<Proof, NotAdmitted> {
        let stream = poll_fn(|cx| {
            let opened = muxer.poll_outbound_unpin(cx);
            if opened.is_pending() {
                drive(muxer, cx)?;
            }
            opened
        })
        .await?;
        let own = self.own();
        let mut exchange = pin!(exchange::dial(stream, &own, peer));
        poll_fn(|cx| {
            let asked = exchange.as_mut().poll(cx);
            if asked.is_pending() && drive(muxer, cx).is_err() {
                return exchange.as_mut().poll(cx);
            }
            asked
        })
        .await
    }

    fn own(&self) -> Own {
        let Inner { me, role, protocol, ring, .. } = &*self.0;
        Own { peer: *me, role: *role, protocol: protocol.clone(), keys: ring.keys() }
    }

    fn enter(&self, peer: PeerId, Proof { role, key }: Proof) {
        self.0.roster.enter(peer, Proven { role, key, at: Instant::now() });
    }

    /// Counts who is kept out, and tells of it now and then.
    fn refused(&self, address: &Multiaddr, why: &NotAdmitted) {
        // A connection that did not come about is no stranger.
        if matches!(why, NotAdmitted::Broken(_)) {
            return;
        }
        self.0.metrics.refused_because(why.cause());
        tracing::debug!(%address, %why, "not admitted");
        let now = Instant::now();
        let mut warned = self.0.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let due = warned.get(why.cause()).is_none_or(|last| now.duration_since(*last) >= WARN_EVERY);
        if due {
            warned.insert(why.cause(), now);
            tracing::warn!(%address, "a peer was not admitted: it {why}");
        }
    }
}

/// Lets the connection work. Its streams end with it.
fn drive(muxer: &mut StreamMuxerBox, cx: &mut Context<'_>) -> io::Result<()> {
    match muxer.poll_unpin(cx) {
        Poll::Ready(Err(error)) => Err(error),
        // A new address of the peer is of no interest.
        Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> NotAdmitted {
    NotAdmitted::Broken(io::Error::other(error))
}

/// A transport whose connections are those of members.
pub(crate) struct Gated<T> {
    inner: T,
    gate: Gate,
}

impl<T> Transport for Gated<T>
where
    T: Transport<Output = Connection> + Unpin,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    type Output = Connection;
    type Error = NotAdmitted;
    type ListenerUpgrade = Upgrade;
    type Dial = Upgrade;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<NotAdmitted>> {
        self.inner.listen_on(id, address).map_err(|error| error.map(broken))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Upgrade, TransportError<NotAdmitted>> {
        let setup = self.inner.dial(address.clone(), options).map_err(|error| error.map(broken))?;
        let gate = self.gate.clone();
        Ok(Box::pin(async move {
            let admitted = gate.clone().outgoing(setup).await;
            admitted.inspect_err(|why| gate.refused(&address, why))
        }))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Upgrade, NotAdmitted>> {
        let event = ready!(Pin::new(&mut self.inner).poll(cx));
        let address = match &event {
            TransportEvent::Incoming { send_back_addr, .. } => send_back_addr.clone(),
            _ => Multiaddr::empty(),
        };
        let gate = self.gate.clone();
        let admit = |setup| -> Upgrade {
            let place = gate.0.doors.enter(&address, Instant::now());
            Box::pin(async move {
                let admitted = match place {
                    Some(place) => gate.clone().incoming(setup, place).await,
                    None => Err(NotAdmitted::Crowded),
                };
                admitted.inspect_err(|why| gate.refused(&address, why))
            })
        };
        Poll::Ready(event.map_upgrade(admit).map_err(broken))
    }
}
