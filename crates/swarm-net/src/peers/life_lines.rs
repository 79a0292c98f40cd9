//! Life lines: beside QUIC two members of whom one watches the other keep one TCP connection, because a kernel closes
//! the TCP sockets of a process that ends at once, and says nothing of its UDP sockets. When this node dials for one,
//! and whom it asks when one has ended. No IO and no clock of its own.
//!
//! Who watches dials. A line that ends proves nothing: what stands between the nodes may have cut it. So the peer is
//! doubted until somebody has asked at its TCP port.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use swarm_types::Transport;

use crate::transport::address;

/// A line is dialled so long after its peer was welcomed, and up to `SPREAD` later: joining goes first, and the nodes
/// of a mesh do not dial all at once.
const EARLIEST: Duration = Duration::from_millis(200);
const SPREAD: Duration = Duration::from_millis(300);
/// Pause after a failed dial; doubles up to the bound below. A peer whose TCP port is closed stays like that for long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// A dial of which nothing is heard for so long is over: connecting takes less.
const DIAL_WITHIN: Duration = Duration::from_secs(15);
/// A line that lived for so long had no trouble: the next one is made at once.
const STEADY: Duration = Duration::from_secs(60);
/// Each is an open file, of which a process has 1024 on many systems, and the ports for clients want most of them.
pub(crate) const MAX_LINES: usize = 256;
/// For a peer's kernel to answer: so many round trips to it, because queues may have grown since that was measured, and
/// never less than a busy machine needs to wake up.
const ROUND_TRIPS: u32 = 6;
const LEAST_PATIENCE: Duration = Duration::from_millis(60);
const MOST_PATIENCE: Duration = Duration::from_secs(1);

/// The life lines of all members that are connected by QUIC.
#[derive(Debug)]
pub(crate) struct LifeLines {
    me: PeerId,
    lines: HashMap<PeerId, LifeLine>,
}

#[derive(Debug)]
struct LifeLine {
    state: State,
    /// Where the peer listens by TCP, as it said over this connection. What others say of it may be older than it is.
    told: Vec<Multiaddr>,
    /// Dials that failed and lines that ended early, since there was a steady one.
    failures: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// If it is to be dialled, not before then.
    Waiting(Instant),
    Dialling(ConnectionId, Instant),
    Open(Instant),
}

impl LifeLines {
    pub(crate) fn new(me: PeerId) -> Self {
        Self { me, lines: HashMap::new() }
    }

    /// The peer is connected by QUIC: it may have a line.
    pub(crate) fn want(&mut self, peer: PeerId, now: Instant) {
        let state = State::Waiting(now + moment(&self.me, &peer));
        self.lines.entry(peer).or_insert(LifeLine { state, told: vec![], failures: 0 });
    }

    /// The peer says where it listens. Where that is somewhere else than before, there is hope again.
    pub(crate) fn told(&mut self, peer: &PeerId, addresses: &[Multiaddr], now: Instant) {
        let by_tcp = |address: &&Multiaddr| address::transport(address) == Some(Transport::Tcp);
        let told: Vec<_> = addresses.iter().filter(by_tcp).cloned().collect();
        let at = now + moment(&self.me, peer);
        let Some(line) = self.lines.get_mut(peer).filter(|line| line.told != told) else { return };
        line.told = told;
        line.failures = 0;
        if let State::Waiting(until) = line.state {
            line.state = State::Waiting(until.min(at));
        }
    }

    /// Where the peer listens by TCP.
    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.lines.get(peer).map(|line| line.told.clone()).unwrap_or_default()
    }

    /// The peers to dial now, of those that this node watches.
    pub(crate) fn due(&self, watches: impl Fn(&PeerId) -> bool, now: Instant) -> Vec<PeerId> {
        let due = |line: &LifeLine| matches!(line.state, State::Waiting(at) if at <= now);
        let due = self.lines.iter().filter(|(peer, line)| due(line) && watches(peer)).map(|(peer, _)| *peer);
        due.take(MAX_LINES.saturating_sub(self.held())).collect()
    }

    /// A dial has begun.
    pub(crate) fn dialling(&mut self, peer: &PeerId, connection: ConnectionId, now: Instant) {
        if let Some(line) = self.lines.get_mut(peer) {
            line.state = State::Dialling(connection, now);
        }
    }

    /// The peer could not be dialled: it has told no TCP address, or not yet.
    pub(crate) fn unreachable(&mut self, peer: &PeerId, now: Instant) {
        if let Some(line) = self.lines.get_mut(peer) {
            line.failures = line.failures.saturating_add(1);
            line.state = State::Waiting(now + pause(line.failures, Duration::ZERO));
        }
    }

    /// A dial failed. False when it was for no line.
    pub(crate) fn failed(&mut self, connection: ConnectionId, now: Instant) -> bool {
        let is_it =
            |line: &LifeLine| matches!(line.state, State::Dialling(dialled, _) if dialled == connection);
        let dialled = self.lines.iter().find(|(_, line)| is_it(line));
        let Some((peer, _)) = dialled else { return false };
        let peer = *peer;
        self.unreachable(&peer, now);
        true
    }

    /// There is a TCP connection to a peer that is to have one, whoever dialled. False when this node has
    /// as many as it may.
    pub(crate) fn opened(&mut self, peer: &PeerId, now: Instant) -> bool {
        let others = self.lines.iter().filter(|(id, line)| *id != peer && line.is_held()).count();
        let Some(line) = self.lines.get_mut(peer) else { return true };
        if !matches!(line.state, State::Open(_)) {
            line.state = State::Open(now);
        }
        others < MAX_LINES
    }

    /// The last TCP connection to a peer has ended. The next one is made soon, unless they keep ending early.
    pub(crate) fn ended(&mut self, peer: &PeerId, now: Instant) {
        let first = moment(&self.me, peer);
        let Some(line) = self.lines.get_mut(peer) else { return };
        if matches!(line.state, State::Open(since) if now.duration_since(since) >= STEADY) {
            line.failures = 0;
        }
        line.state = State::Waiting(now + pause(line.failures, first));
        line.failures = line.failures.saturating_add(1);
    }

    /// There is no TCP connection to the peer, whatever was heard of one.
    pub(crate) fn has_none(&mut self, peer: &PeerId, now: Instant) {
        match self.lines.get(peer).map(|line| line.state) {
            Some(State::Open(_)) => self.ended(peer, now),
            Some(State::Dialling(_, since)) if now.duration_since(since) >= DIAL_WITHIN => {
                self.unreachable(peer, now);
            }
            _ => {}
        }
    }

    /// The peer is not connected by QUIC any more.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.lines.remove(peer);
    }

    fn held(&self) -> usize {
        self.lines.values().filter(|line| line.is_held()).count()
    }
}

impl LifeLine {
    fn is_held(&self) -> bool {
        matches!(self.state, State::Open(_) | State::Dialling(..))
    }
}

/// The pause after so many failures; `first` after none.
fn pause(failures: u32, first: Duration) -> Duration {
    match failures.checked_sub(1) {
        None => first,
        Some(more) => FIRST_PAUSE.saturating_mul(1 << more.min(10)).min(LONGEST_PAUSE),
    }
}

/// When this pair's line is dialled: the ends of ids are as good as drawn by chance, and always the same.
fn moment(me: &PeerId, peer: &PeerId) -> Duration {
    let last = |id: &PeerId| id.to_bytes().last().copied().unwrap_or_default();
    EARLIEST + SPREAD * u32::from(last(me) ^ last(peer)) / 256
}

/// How long a peer's kernel may take to answer, by how far the peer is.
pub(crate) fn patience(round_trip: Option<Duration>) -> Duration {
    (round_trip.unwrap_or_default() * ROUND_TRIPS).clamp(LEAST_PATIENCE, MOST_PATIENCE)
}

/// Where to ask whether a peer's process is still there, by a connection to it, open or ended: where this node had
/// dialled by TCP, or where the peer says that it listens on the host that it is connected from. What it says of other
/// hosts may lead nowhere, and that would prove nothing. None when nobody can be asked.
pub(crate) fn where_to_ask(remote: &Multiaddr, dialled: bool, told: &[Multiaddr]) -> Vec<SocketAddr> {
    if let (true, Some(socket)) = (dialled, address::tcp_socket(remote)) {
        return vec![socket];
    }
    let Some(from) = address::ip(remote) else { return vec![] };
    let on_its_host = |socket: &SocketAddr| is_same_host(socket.ip(), from);
    told.iter().filter_map(address::tcp_socket).filter(on_its_host).collect()
}

/// A machine has more than one loopback address.
fn is_same_host(one: IpAddr, other: IpAddr) -> bool {
    one == other || (one.is_loopback() && other.is_loopback())
}

#[cfg(test)]
mod tests;
