//! Nodes that use one identity: a disk that was cloned, an image with a key in it. What either does reaches only some
//! others, and nothing fails by itself, so it must be said. No IO and no clock of its own.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

/// Who has moved is still told of at the old place for so long, and connected from there.
const MOVING: Duration = Duration::from_secs(75);
/// It is said again as often.
const SAY_EVERY: Duration = Duration::from_secs(10 * 60);

/// What was seen and said of nodes with one identity.
#[derive(Debug)]
pub(crate) struct Twins {
    me: PeerId,
    /// Since when this node listens where it does.
    settled: Instant,
    said: HashMap<PeerId, Instant>,
}

impl Twins {
    pub(crate) fn new(me: PeerId, now: Instant) -> Self {
        Self { me, settled: now, said: HashMap::new() }
    }

    /// This node listens elsewhere now.
    pub(crate) fn moved(&mut self, now: Instant) {
        self.settled = now;
    }

    /// This node is said to listen there. Gives where, if that is somebody else, and not said already.
    pub(crate) fn told_of_me(
        &mut self,
        there: &[Multiaddr],
        mine: &[Multiaddr],
        now: Instant,
    ) -> Option<Multiaddr> {
        let foreign = there.iter().all(|address| !mine.contains(address));
        let other = there.first().filter(|_| foreign && now.duration_since(self.settled) >= MOVING)?;
        let me = self.me;
        self.is_to_be_said(me, now).then(|| other.clone())
    }

    /// A peer has connections over which it says to listen at these places, open since then. Gives two places, if they
    /// are not of one process, and it was not said already.
    pub(crate) fn connected<'a>(
        &mut self,
        peer: PeerId,
        told: impl IntoIterator<Item = (Instant, &'a [Multiaddr])>,
        now: Instant,
    ) -> Option<[Multiaddr; 2]> {
        let lasting = told
            .into_iter()
            .filter(|(since, listens)| now.duration_since(*since) >= MOVING && !listens.is_empty());
        let mut lasting = lasting.map(|(_, listens)| listens);
        let first = lasting.next()?;
        let other = lasting.find(|listens| listens.iter().all(|address| !first.contains(address)))?;
        self.is_to_be_said(peer, now).then(|| [first[0].clone(), other[0].clone()])
    }

    fn is_to_be_said(&mut self, peer: PeerId, now: Instant) -> bool {
        self.said.retain(|_, at| now.duration_since(*at) < SAY_EVERY);
        self.said.insert(peer, now).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Vec<Multiaddr> {
        vec![format!("/ip4/10.0.0.1/udp/{port}/quic-v1").parse().unwrap()]
    }

    #[test]
    fn who_hears_of_itself_at_another_place_for_long_has_a_twin() {
        let (start, me) = (Instant::now(), PeerId::random());
        let mut twins = Twins::new(me, start);
        let late = start + MOVING;
        assert_eq!(twins.told_of_me(&at(2), &at(1), start), None, "it was there itself a moment ago");
        assert_eq!(twins.told_of_me(&at(1), &at(1), late), None);
        assert_eq!(twins.told_of_me(&at(2), &at(1), late), Some(at(2)[0].clone()));
        assert_eq!(twins.told_of_me(&at(2), &at(1), late), None, "it was said");
        twins.moved(late + SAY_EVERY);
        assert_eq!(twins.told_of_me(&at(2), &at(1), late + SAY_EVERY), None);
    }

    #[test]
    fn a_peer_that_lasts_at_two_places_is_two() {
        let (start, peer) = (Instant::now(), PeerId::random());
        let mut twins = Twins::new(PeerId::random(), start);
        let late = start + MOVING;
        let (one, other, nowhere) = (at(1), at(2), vec![]);
        let mut says = |told: &[(Instant, &[Multiaddr])]| twins.connected(peer, told.iter().copied(), late);
        assert_eq!(says(&[(start, &one), (start, &one)]), None, "both had dialled");
        assert_eq!(says(&[(start, &one), (late, &other)]), None, "it has just moved");
        assert_eq!(says(&[(start, &one), (start, &nowhere)]), None, "it has not said where yet");
        assert_eq!(says(&[(start, &one), (start, &other)]), Some([one[0].clone(), other[0].clone()]));
        assert_eq!(says(&[(start, &one), (start, &other)]), None, "it was said");
    }
}
