//! A node to enter by, as it is written on the command line and in invitations.

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::{NetError, transport::address};

/// A node to enter by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryAddress {
    /// Tried one after the other.
    pub(crate) addresses: Vec<Multiaddr>,
    /// Who must answer there, when that was said.
    pub(crate) peer: Option<PeerId>,
}

impl EntryAddress {
    /// One that names QUIC is also tried by TCP.
    pub(crate) fn at(address: Multiaddr, peer: Option<PeerId>) -> Self {
        let fallback = address::tcp_twin(&address);
        Self { addresses: [address].into_iter().chain(fallback).collect(), peer }
    }
}

pub(crate) fn entry(text: &str) -> Result<EntryAddress, NetError> {
    if text.starts_with('/') { entry_multiaddr(text) } else { entry_host_port(text) }
}

fn entry_multiaddr(text: &str) -> Result<EntryAddress, NetError> {
    let setting = "--rendezvous";
    let mut parsed: Multiaddr =
        text.parse().map_err(|error| NetError::config(setting, format!("{text:?}: {error}")))?;
    let peer = match parsed.iter().last() {
        Some(Protocol::P2p(peer)) => {
            parsed.pop();
            Some(peer)
        }
        _ => None,
    };
    match address::dialable(&parsed) {
        Some(address) => Ok(EntryAddress::at(address, peer)),
        None => Err(NetError::config(setting, format!("{text:?} cannot be dialled"))),
    }
}

fn entry_host_port(text: &str) -> Result<EntryAddress, NetError> {
    let syntax =
        || NetError::config("--rendezvous", format!("{text:?} is neither host:port nor a multiaddress"));
    let (host, port) = text.trim().rsplit_once(':').ok_or_else(syntax)?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(syntax)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let host = match host.parse::<std::net::IpAddr>() {
        Ok(ip) => Protocol::from(ip),
        Err(_) if !host.is_empty() && host.chars().all(name_allowed) => Protocol::Dns(host.into()),
        Err(_) => return Err(syntax()),
    };
    let quic = Multiaddr::empty().with(host).with(Protocol::Udp(port)).with(Protocol::QuicV1);
    Ok(EntryAddress::at(quic, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        entry(text).unwrap().addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_entry_is_a_multiaddress_or_host_and_port() {
        let quic_then_tcp = ["/dns4/host/udp/4001/quic-v1", "/dns4/host/tcp/4001"];
        assert_eq!(addresses("/dns4/host/udp/4001/quic-v1"), quic_then_tcp);
        assert_eq!(addresses("/dns4/host/tcp/4001"), ["/dns4/host/tcp/4001"]);
        let both = ["/dns/host/udp/4001/quic-v1", "/dns/host/tcp/4001"];
        assert_eq!(addresses("host:4001"), both);
        assert_eq!(addresses("[::1]:4001"), ["/ip6/::1/udp/4001/quic-v1", "/ip6/::1/tcp/4001"]);
        let peer = PeerId::random();
        let named = entry(&format!("/ip4/10.0.0.1/tcp/4001/p2p/{peer}")).unwrap();
        assert_eq!(named.peer, Some(peer));
        assert_eq!(named.addresses[0].to_string(), "/ip4/10.0.0.1/tcp/4001");
        let named = entry(&format!("/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{peer}")).unwrap();
        assert_eq!((named.peer, named.addresses.len()), (Some(peer), 2));
        for wrong in ["host", "host:0", "host:99999", "a b:1", "/ip4/1.2.3.4", "/ip4/0.0.0.0/tcp/1", ":1"] {
            assert!(entry(wrong).is_err(), "{wrong}");
        }
    }
}
