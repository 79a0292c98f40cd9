//! Streams of peers that are not admitted yet: kept for the moment until they are, within bounds.

use std::collections::HashMap;

use libp2p::{PeerId, swarm::ConnectionId};

use crate::admission::MAX_STRANGERS;

/// A peer opens one stream for all its calls, and another when that one broke.
const MAX_PER_PEER: usize = 4;
/// A stream for each peer that may wait for its admission.
const MAX_IN_ALL: usize = MAX_STRANGERS;

/// Streams that wait for their peer's admission.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    streams: HashMap<PeerId, Vec<(ConnectionId, T)>>,
}

impl<T> Waiting<T> {
    pub(crate) fn new() -> Self {
        Self { streams: HashMap::new() }
    }

    /// Keeps a stream. False when there is no room; the stream is dropped then, which resets it.
    pub(crate) fn keep(&mut self, peer: PeerId, connection: ConnectionId, stream: T) -> bool {
        let in_all: usize = self.streams.values().map(Vec::len).sum();
        let of_peer = self.streams.get(&peer).map_or(0, Vec::len);
        let room = in_all < MAX_IN_ALL && of_peer < MAX_PER_PEER;
        if room {
            self.streams.entry(peer).or_default().push((connection, stream));
        }
        room
    }

    /// A peer's streams, in the order in which they came.
    pub(crate) fn take(&mut self, peer: &PeerId) -> impl Iterator<Item = T> + use<T> {
        self.streams.remove(peer).unwrap_or_default().into_iter().map(|(_, stream)| stream)
    }

    /// A connection is closed, and its streams with it.
    pub(crate) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) {
        let Some(streams) = self.streams.get_mut(peer) else { return };
        streams.retain(|(of, _)| *of != connection);
        if streams.is_empty() {
            self.streams.remove(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    #[test]
    fn streams_are_given_once_and_in_order_unless_their_connection_closed() {
        let (mut waiting, peer) = (Waiting::new(), PeerId::random());
        for (number, stream) in [(1, "a"), (2, "b"), (1, "c"), (2, "d")] {
            assert!(waiting.keep(peer, connection(number), stream));
        }
        waiting.closed(&peer, connection(2));
        assert_eq!(waiting.take(&peer).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(waiting.take(&peer).count(), 0);
        assert!(waiting.keep(peer, connection(3), "e"));
        waiting.closed(&peer, connection(3));
        assert!(waiting.streams.is_empty(), "nothing is left of those who are gone");
    }

    #[test]
    fn neither_a_peer_nor_a_crowd_has_room_without_end() {
        let (mut waiting, greedy) = (Waiting::new(), PeerId::random());
        let kept = (0..2 * MAX_PER_PEER).filter(|_| waiting.keep(greedy, connection(0), ())).count();
        assert_eq!(kept, MAX_PER_PEER);
        let kept = (0..2 * MAX_IN_ALL).filter(|_| waiting.keep(PeerId::random(), connection(0), ())).count();
        assert_eq!(kept, MAX_IN_ALL - MAX_PER_PEER);
        let _ = waiting.take(&greedy);
        assert!(waiting.keep(PeerId::random(), connection(0), ()), "there is room again");
    }
}
