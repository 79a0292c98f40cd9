//! How many connections may wait for their admission: few in all, fewer from one address. No IO and no clock of its
//! own.
//!
//! Who belongs here needs its place for some round trips. So when places run out, the connection that has had one for
//! longest gives it up; only one that is new is spared, and then it is the newcomer that goes and comes again.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, multiaddr::Protocol};
use tokio_util::sync::CancellationToken;

pub(crate) const MAX_WAITING: usize = 64;
/// Several nodes may stand behind one address, and each comes twice: by QUIC, and soon after with a life line.
pub(crate) const MAX_PER_ADDRESS: usize = 16;
/// A handshake and two round trips, with some patience for a busy machine.
const SPARED: Duration = Duration::from_millis(500);

/// Who waits. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doors(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    /// Oldest first.
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    from: Option<IpAddr>,
    since: Instant,
    evicted: CancellationToken,
}

/// A place at the door, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    doors: Doors,
    number: u64,
    evicted: CancellationToken,
}

impl Doors {
    /// A place for a connection from there, if there is one.
    pub(crate) fn enter(&self, address: &Multiaddr, now: Instant) -> Option<Place> {
        let (mut inner, from) = (self.inner(), network(address));
        inner.make_room(MAX_PER_ADDRESS, now, |waiting| waiting.from == from)?;
        inner.make_room(MAX_WAITING, now, |_| true)?;
        let (number, evicted) = (inner.next, CancellationToken::new());
        inner.next += 1;
        inner.waiting.insert(number, Waiting { from, since: now, evicted: evicted.clone() });
        Some(Place { doors: self.clone(), number, evicted })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Leaves less than `most` of those; nothing when none can go.
    fn make_room(&mut self, most: usize, now: Instant, of: impl Fn(&Waiting) -> bool) -> Option<()> {
        let mut those = self.waiting.iter().filter(|(_, waiting)| of(waiting));
        let Some((number, oldest)) = those.next() else { return Some(()) };
        if 1 + those.count() < most {
            return Some(());
        }
        if now.duration_since(oldest.since) < SPARED {
            return None;
        }
        oldest.evicted.cancel();
        let number = *number;
        self.waiting.remove(&number);
        Some(())
    }
}

impl Place {
    /// Resolves when another needs the place.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doors.inner().waiting.remove(&self.number);
    }
}

/// What one host can choose addresses from: of IPv6 that is 64 bits.
fn network(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => Some(ip.into()),
            None => Some(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn from(host: usize) -> Multiaddr {
        address(&format!("/ip4/10.0.{}.{}/tcp/1", host / 256, host % 256))
    }

    #[test]
    fn of_one_address_the_oldest_gives_its_place_up_unless_it_is_new() {
        let (doors, start, here) = (Doors::default(), Instant::now(), from(1));
        let places: Vec<_> = (0..MAX_PER_ADDRESS).map(|_| doors.enter(&here, start).unwrap()).collect();
        assert!(doors.enter(&here, start).is_none(), "all are new");
        assert!(doors.enter(&from(2), start).is_some(), "others are not kept out");
        let later = start + SPARED;
        let newcomer = doors.enter(&here, later);
        assert!(newcomer.is_some() && places[0].evicted.is_cancelled());
        assert!(!places[1].evicted.is_cancelled());
        drop(places);
        assert_eq!(doors.inner().waiting.len(), 1);
    }

    #[test]
    fn a_crowd_from_everywhere_has_places_with_a_bound() {
        let (doors, start) = (Doors::default(), Instant::now());
        let crowd: Vec<_> = (0..2 * MAX_WAITING).map(|host| doors.enter(&from(host), start)).collect();
        assert_eq!(crowd.iter().flatten().count(), MAX_WAITING);
        assert!(doors.enter(&from(0), start + SPARED).is_some(), "the oldest goes");
        assert!(doors.inner().waiting.len() <= MAX_WAITING);
    }

    #[test]
    fn a_host_with_many_addresses_is_one() {
        assert_eq!(
            network(&address("/ip6/2001:db8::1/tcp/1")),
            network(&address("/ip6/2001:db8::2/udp/1/quic-v1"))
        );
        assert_ne!(
            network(&address("/ip6/2001:db8::1/tcp/1")),
            network(&address("/ip6/2001:db8:0:1::1/tcp/1"))
        );
        assert_eq!(network(&address("/ip6/::ffff:10.0.0.1/tcp/1")), network(&address("/ip4/10.0.0.1/tcp/1")));
    }
}
