//! Which multiaddresses this swarm can use, and which it should tell others.

use std::net::{IpAddr, SocketAddr};

use libp2p::{Multiaddr, multiaddr::Protocol};
use swarm_types::Transport;

/// What announcements may carry at most; a machine with many interfaces has more.
const MAX_TOLD: usize = 16;

/// The transport of an address of the form host + `udp/…/quic-v1` or host + `tcp/…`; nothing for any other.
pub(crate) fn transport(address: &Multiaddr) -> Option<Transport> {
    let mut parts = address.iter();
    let host = parts.next()?;
    let known_host = matches!(
        host,
        Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)
    );
    let transport = match (parts.next()?, parts.next()) {
        (Protocol::Udp(_), Some(Protocol::QuicV1)) => Transport::Quic,
        (Protocol::Tcp(_), None | Some(Protocol::P2p(_))) => Transport::Tcp,
        _ => return None,
    };
    let rest_known = match transport {
        Transport::Quic => matches!(parts.next(), None | Some(Protocol::P2p(_))),
        Transport::Tcp => true,
    };
    (known_host && rest_known && parts.next().is_none()).then_some(transport)
}

/// The address without its peer id, when it names a place that can be dialled.
pub(crate) fn dialable(address: &Multiaddr) -> Option<Multiaddr> {
    transport(address)?;
    let usable = address.iter().all(|part| match part {
        Protocol::Ip4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        Protocol::Ip6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        Protocol::Udp(port) | Protocol::Tcp(port) => port != 0,
        _ => true,
    });
    let without_peer = address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
    usable.then_some(without_peer)
}

/// The dialable ones of a peer's addresses, as many as an announcement may carry.
pub(crate) fn dialable_all<'a>(addresses: impl IntoIterator<Item = &'a Multiaddr>) -> Vec<Multiaddr> {
    addresses.into_iter().filter_map(dialable).take(MAX_TOLD).collect()
}

/// The TCP address with the host and port of a QUIC one: where nodes are reached when QUIC does not get through.
pub(crate) fn tcp_twin(quic: &Multiaddr) -> Option<Multiaddr> {
    let mut parts = quic.iter();
    match (parts.next()?, parts.next()?, parts.next()?) {
        (host, Protocol::Udp(port), Protocol::QuicV1) => {
            Some(Multiaddr::empty().with(host).with(Protocol::Tcp(port)))
        }
        _ => None,
    }
}

/// Whether the address is a name, which may lead somewhere else the next time.
pub(crate) fn is_name(address: &Multiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)))
}

/// Whether it stands for every address of the machine.
pub(crate) fn is_unspecified(address: &Multiaddr) -> bool {
    ip(address).is_some_and(|ip| ip.is_unspecified())
}

/// Where an address of the form `/ip…/tcp/…` listens.
pub(crate) fn tcp_socket(address: &Multiaddr) -> Option<SocketAddr> {
    match address.iter().nth(1)? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip(address)?, port)),
        _ => None,
    }
}

/// What to tell others of where this node can be reached: its external addresses first, QUIC before TCP, loopback
/// only when there is nothing else.
pub(crate) fn to_tell(external: &[Multiaddr], listening: &[Multiaddr]) -> Vec<Multiaddr> {
    let mut listening: Vec<Multiaddr> =
        listening.iter().filter_map(dialable).filter(|address| !is_link_local(address)).collect();
    if listening.iter().any(|address| !is_loopback(address)) {
        listening.retain(|address| !is_loopback(address));
    }
    listening.sort_by_key(|address| (transport(address), is_ip6(address)));
    let mut told: Vec<Multiaddr> = Vec::new();
    for address in external.iter().cloned().chain(listening) {
        if !told.contains(&address) && told.len() < MAX_TOLD {
            told.push(address);
        }
    }
    told
}

/// Whether the address leads to the machine it is used on.
pub(crate) fn is_loopback(address: &Multiaddr) -> bool {
    ip(address).is_some_and(|ip| ip.is_loopback())
}

/// Whether the address, or the name in it, can only mean the machine it is used on.
pub(crate) fn is_this_machine(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => name == "localhost",
        _ => is_loopback(address),
    }
}

fn is_ip6(address: &Multiaddr) -> bool {
    ip(address).is_some_and(|ip| ip.is_ipv6())
}

fn is_link_local(address: &Multiaddr) -> bool {
    match ip(address) {
        Some(IpAddr::V4(ip)) => ip.is_link_local(),
        Some(IpAddr::V6(ip)) => ip.is_unicast_link_local(),
        None => false,
    }
}

pub(crate) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_quic_and_tcp_to_a_real_place_are_dialled() {
        let good = ["/ip4/10.0.0.1/udp/4001/quic-v1", "/dns/host/tcp/4001", "/ip6/::1/tcp/1"];
        assert_eq!(dialable_all(&parsed(&good)), parsed(&good));
        let bad = [
            "/ip4/0.0.0.0/tcp/4001",
            "/ip4/10.0.0.1/tcp/0",
            "/ip4/224.0.0.1/udp/1/quic-v1",
            "/ip4/10.0.0.1/udp/4001",
            "/dnsaddr/host/tcp/1",
            "/ip4/10.0.0.1/tcp/1/ws",
            "/unix/sock",
        ];
        assert_eq!(dialable_all(&parsed(&bad)), vec![]);
    }

    #[test]
    fn loopback_is_told_only_when_there_is_nothing_else() {
        let loopback = parsed(&["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1"]);
        assert_eq!(to_tell(&[], &loopback)[0], loopback[1], "QUIC first");
        let mixed = parsed(&["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip6/fe80::1/tcp/1"]);
        assert_eq!(to_tell(&[], &mixed), parsed(&["/ip4/10.0.0.1/tcp/1"]));
        let external = parsed(&["/dns/outside/tcp/1"]);
        assert_eq!(to_tell(&external, &mixed)[0], external[0]);
    }
}
