//! What the node keeps of a peer while it is connected.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr,
    swarm::{ConnectionError, ConnectionId},
};
use swarm_types::Transport;
use tokio::task::AbortHandle;

use crate::metrics::Gone;

/// A connected peer.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    /// Once it is admitted.
    pub(super) member: Option<Member>,
    /// It has said that it leaves: whoever loses it from now on does not miss it.
    pub(super) leaves: bool,
}

pub(super) struct Connection {
    pub(super) transport: Transport,
    /// The peer's end.
    pub(super) remote: Multiaddr,
    /// Where this node reached the peer; nothing when the peer has dialled.
    pub(super) dialled: Option<Multiaddr>,
    /// It was opened beside one by QUIC, and its silence is not noticed.
    pub(super) is_life_line: bool,
    pub(super) since: Instant,
    /// Where the peer listens, as it has said over this connection.
    pub(super) listens: Vec<Multiaddr>,
}

/// What this node keeps up with an admitted peer.
pub(super) struct Member {
    /// Tells this time of being a member from the ones before.
    pub(super) epoch: u64,
    /// Listens to its descriptions.
    pub(super) follower: AbortHandle,
    /// It was said that its clock, or this node's, is wrong.
    pub(super) clock_told: bool,
}

impl Peer {
    /// Its connections over a transport.
    pub(super) fn over(&self, transport: Transport) -> impl Iterator<Item = ConnectionId> {
        let over = self.connections.iter().filter(move |(_, one)| one.transport == transport);
        over.map(|(connection, _)| *connection)
    }

    pub(super) fn has(&self, transport: Transport) -> bool {
        self.over(transport).next().is_some()
    }

    /// Since when it has been connected.
    pub(super) fn first_met(&self) -> Option<Instant> {
        self.connections.values().map(|one| one.since).min()
    }

    /// Only who dialled a line knows that it is one: the peer may have lost what was beside it before this node did,
    /// and then it is all that the peer has. Gives those that it dialled; from now on they are connections of their
    /// own. If they were lines, the peer closes them.
    pub(super) fn let_lines_stand_alone(&mut self) -> Vec<(ConnectionId, Multiaddr)> {
        let lines = self.connections.iter_mut().filter(|(_, one)| one.is_life_line && one.dialled.is_none());
        lines
            .map(|(connection, line)| {
                line.is_life_line = false;
                (*connection, line.remote.clone())
            })
            .collect()
    }

    /// Two that met by TCP and have been connected by QUIC for so long need TCP as a life line alone. Gives what was a
    /// connection of its own; from now on it is a line.
    pub(super) fn turn_into_lines(&mut self, settled: Duration, now: Instant) -> Vec<ConnectionId> {
        let is_settled =
            |one: &Connection| one.transport == Transport::Quic && now.duration_since(one.since) >= settled;
        if !self.connections.values().any(is_settled) {
            return vec![];
        }
        let own = |one: &Connection| one.transport == Transport::Tcp && !one.is_life_line;
        let own = self.connections.iter_mut().filter(|(_, one)| own(one));
        own.map(|(connection, one)| {
            one.is_life_line = true;
            *connection
        })
        .collect()
    }

    /// Whether anything is left whose silence would be noticed. Life lines alone are nothing.
    pub(super) fn is_there(&self) -> bool {
        self.connections.values().any(|one| !one.is_life_line)
    }
}

impl Drop for Member {
    /// Who is no member any more is followed no more.
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// What the end of a connection says of its peer; nothing when this node closed it. libp2p hides the error's type, so
/// it is told by its text.
pub(super) fn what_it_says(transport: Transport, cause: Option<&ConnectionError>) -> Option<Gone> {
    let cause = cause?.to_string();
    Some(match transport {
        Transport::Quic if cause.contains("by peer: ") => Gone::Left,
        Transport::Quic => Gone::Silent,
        // Yamux says the same after a goodbye and after the end of the process.
        Transport::Tcp if cause.contains("connection is closed") => Gone::Left,
        Transport::Tcp => Gone::Closed,
    })
}
