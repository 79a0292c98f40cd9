//! The nodes to enter by: dialled until connected and again whenever the connection is lost, for as long as this
//! node lives. No IO and no clock of its own.
//!
//! An entry may come back as another peer: it is an address first.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr, PeerId,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use crate::{entry_address::EntryAddress, peers::dialer::backoff, transport::address};

/// Before an entry is tried again that led by a name to this node itself.
const OWN_PAUSE: Duration = Duration::from_secs(30);

/// All the nodes to enter by.
#[derive(Debug)]
pub(crate) struct Entries(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    address: EntryAddress,
    state: EntryState,
    failures: u32,
}

#[derive(Debug, PartialEq)]
enum EntryState {
    Waiting(Instant),
    Dialling(ConnectionId),
    Connected(PeerId),
    /// The address is this node's own.
    Own,
}

/// A failed dial that was to an entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EntryFailure {
    pub(crate) address: Multiaddr,
    /// The first since it was last connected.
    pub(crate) first: bool,
}

impl Entry {
    /// The addresses take turns.
    fn next_address(&self) -> &Multiaddr {
        &self.address.addresses[self.failures as usize % self.address.addresses.len()]
    }

    fn pause(&self) -> Duration {
        let addresses = u32::try_from(self.address.addresses.len()).unwrap_or(u32::MAX);
        if self.failures.is_multiple_of(addresses) {
            backoff(self.failures / addresses)
        } else {
            Duration::ZERO
        }
    }

    fn dial(&self) -> DialOpts {
        let address = self.next_address().clone();
        match self.address.peer {
            Some(peer) => DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(vec![address])
                .build(),
            None => DialOpts::unknown_peer_id().address(address).build(),
        }
    }
}

impl Entries {
    pub(crate) fn new(addresses: Vec<EntryAddress>, now: Instant) -> Self {
        let entry = |address| Entry { address, state: EntryState::Waiting(now), failures: 0 };
        Self(addresses.into_iter().map(entry).collect())
    }

    /// The dials that are due; they count as started.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<DialOpts> {
        let due = |entry: &&mut Entry| matches!(entry.state, EntryState::Waiting(at) if at <= now);
        self.0
            .iter_mut()
            .filter(due)
            .map(|entry| {
                let dial = entry.dial();
                entry.state = EntryState::Dialling(dial.connection_id());
                dial
            })
            .collect()
    }

    /// A connection is open. Gives the addresses of the entry when it was dialled as one.
    pub(crate) fn connected(&mut self, peer: PeerId, connection: ConnectionId) -> Option<Vec<Multiaddr>> {
        let found = self.0.iter_mut().find(|entry| {
            entry.state == EntryState::Dialling(connection)
                || (entry.address.peer == Some(peer) && !matches!(entry.state, EntryState::Connected(_)))
        })?;
        found.state = EntryState::Connected(peer);
        found.failures = 0;
        Some(found.address.addresses.clone())
    }

    /// The last connection to a peer is closed.
    pub(crate) fn disconnected(&mut self, peer: &PeerId, now: Instant) {
        for entry in self.0.iter_mut().filter(|entry| entry.state == EntryState::Connected(*peer)) {
            entry.state = EntryState::Waiting(now + backoff(1));
        }
    }

    /// A dial failed.
    pub(crate) fn failed(&mut self, connection: ConnectionId, now: Instant) -> Option<EntryFailure> {
        let entry = self.0.iter_mut().find(|entry| entry.state == EntryState::Dialling(connection))?;
        let failure = EntryFailure { address: entry.next_address().clone(), first: entry.failures == 0 };
        entry.failures = entry.failures.saturating_add(1);
        entry.state = EntryState::Waiting(now + entry.pause());
        Some(failure)
    }

    /// A dial was not made because another one to the same peer is under way.
    pub(crate) fn postponed(&mut self, connection: ConnectionId, now: Instant) {
        for entry in self.0.iter_mut().filter(|entry| entry.state == EntryState::Dialling(connection)) {
            entry.state = EntryState::Waiting(now + backoff(1));
        }
    }

    /// A dial reached this node itself: never again, unless by a name, behind which others may be as well.
    pub(crate) fn is_self(&mut self, connection: ConnectionId, now: Instant) {
        for entry in self.0.iter_mut().filter(|entry| entry.state == EntryState::Dialling(connection)) {
            let by_name = address::is_name(entry.next_address());
            entry.state = if by_name { EntryState::Waiting(now + OWN_PAUSE) } else { EntryState::Own };
        }
    }

    /// Whether the peer was entered by.
    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.0.iter().any(|entry| entry.state == EntryState::Connected(*peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(peer: Option<PeerId>, now: Instant) -> Entries {
        entries_at(["/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.1/tcp/1"], peer, now)
    }

    fn entries_at(addresses: [&str; 2], peer: Option<PeerId>, now: Instant) -> Entries {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Entries::new(vec![EntryAddress { addresses, peer }], now)
    }

    fn dial(entries: &mut Entries, now: Instant) -> Option<ConnectionId> {
        entries.due(now).pop().map(|dial| dial.connection_id())
    }

    #[test]
    fn an_entry_is_dialled_for_ever_and_may_come_back_as_another_peer() {
        let mut now = Instant::now();
        let mut entries = entries(None, now);
        let (first, second) = (PeerId::random(), PeerId::random());
        let connection = dial(&mut entries, now).unwrap();
        assert!(entries.connected(first, connection).is_some());
        assert!(entries.contains(&first));
        assert_eq!(dial(&mut entries, now), None);
        entries.disconnected(&first, now);
        for n in 0..20 {
            now += Duration::from_secs(10);
            let connection = dial(&mut entries, now).unwrap();
            let failure = entries.failed(connection, now).unwrap();
            assert_eq!(failure.first, n == 0);
            assert_eq!(failure.address.to_string().contains("tcp"), n % 2 == 1, "addresses take turns");
        }
        now += Duration::from_secs(10);
        let connection = dial(&mut entries, now).unwrap();
        assert!(entries.connected(second, connection).is_some());
        assert!(entries.contains(&second) && !entries.contains(&first));
    }

    #[test]
    fn a_connection_that_the_named_entry_made_itself_counts() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let mut entries = entries(Some(peer), now);
        let other = DialOpts::peer_id(peer).build().connection_id();
        assert!(entries.connected(PeerId::random(), other).is_none());
        assert!(entries.connected(peer, other).is_some());
        assert_eq!(dial(&mut entries, now), None);
    }

    #[test]
    fn an_entry_that_is_the_node_itself_is_left_alone() {
        let now = Instant::now();
        let mut entries = entries(None, now);
        let connection = dial(&mut entries, now).unwrap();
        entries.is_self(connection, now);
        assert_eq!(dial(&mut entries, now + Duration::from_secs(60)), None);
    }

    #[test]
    fn a_name_that_led_to_the_node_itself_is_tried_again_later() {
        let now = Instant::now();
        let mut entries = entries_at(["/dns4/all-nodes/udp/1/quic-v1", "/dns4/all-nodes/tcp/1"], None, now);
        let connection = dial(&mut entries, now).unwrap();
        entries.is_self(connection, now);
        assert_eq!(dial(&mut entries, now + OWN_PAUSE / 2), None);
        assert!(dial(&mut entries, now + OWN_PAUSE).is_some());
    }

    #[test]
    fn a_dial_that_another_one_forestalled_is_no_failure() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let mut entries = entries(Some(peer), now);
        let connection = dial(&mut entries, now).unwrap();
        entries.postponed(connection, now);
        let later = now + Duration::from_secs(10);
        let connection = dial(&mut entries, later).unwrap();
        assert!(entries.failed(connection, later).unwrap().first, "nothing failed before");
    }
}
