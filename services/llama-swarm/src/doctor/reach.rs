//! Whether a node can be reached at a multiaddress, without being a node.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use swarm_types::Transport;
use tokio::{
    net::{TcpStream, UdpSocket, lookup_host},
    time::timeout,
};

/// Half a dozen round trips around the world.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Shorter first packets are not answered (RFC 9000, section 14.1).
const MIN_INITIAL_BYTES: usize = 1200;
/// Versions of this form are reserved to make a server tell which it speaks (RFC 9000, section 15).
const UNKNOWN_VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];
const CONNECTION_ID: [u8; 8] = *b"llamaswm";

/// A multiaddress of a node, as far as it says where to knock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerAddress {
    host: String,
    port: u16,
    transport: Transport,
}

/// The ways to a node that is named as in `--rendezvous`, best first: `HOST:PORT`, or
/// `/ip4|ip6|dns|dns4|dns6/HOST/udp/PORT/quic-v1` or `…/tcp/PORT`, each with or without `/p2p/PEER`.
///
/// # Errors
/// When it is neither.
pub(crate) fn ways(text: &str) -> Result<Vec<PeerAddress>> {
    let both = || {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let way = |transport| PeerAddress { host: host.to_owned(), port, transport };
        (!host.is_empty()).then(|| vec![way(Transport::Quic), way(Transport::Tcp)])
    };
    let found = if text.starts_with('/') { multiaddress(text).map(|one| vec![one]) } else { both() };
    found.ok_or_else(|| anyhow!("{text:?} is neither HOST:PORT nor like /dns4/HOST/udp/4001/quic-v1"))
}

fn multiaddress(text: &str) -> Option<PeerAddress> {
    let parts: Vec<_> = text.split('/').collect();
    let (kind, host, port, transport) = match parts.as_slice() {
        ["", kind, host, "udp", port, "quic-v1", rest @ ..] if is_peer(rest) => {
            (kind, host, port, Transport::Quic)
        }
        ["", kind, host, "tcp", port, rest @ ..] if is_peer(rest) => (kind, host, port, Transport::Tcp),
        _ => return None,
    };
    Some(PeerAddress { host: host_of(kind, host)?, port: port.parse().ok()?, transport })
}

fn is_peer(rest: &[&str]) -> bool {
    matches!(rest, [] | ["p2p", _])
}

fn host_of(kind: &str, host: &str) -> Option<String> {
    let valid = match kind {
        "ip4" => host.parse::<std::net::Ipv4Addr>().is_ok(),
        "ip6" => host.parse::<std::net::Ipv6Addr>().is_ok(),
        "dns" | "dns4" | "dns6" => !host.is_empty(),
        _ => false,
    };
    valid.then(|| host.to_owned())
}

impl PeerAddress {
    /// Whether the way is QUIC, as it should be.
    pub(crate) fn is_quic(&self) -> bool {
        self.transport == Transport::Quic
    }

    /// Succeeds when somebody speaks the address's transport there.
    ///
    /// # Errors
    /// Says what does not work: the name, or the way to it.
    pub(crate) async fn knock(&self) -> Result<()> {
        let found = timeout(ANSWER_TIMEOUT, lookup_host((self.host.as_str(), self.port))).await;
        let found = found.with_context(|| format!("the name {} is not resolved in time", self.host))?;
        let mut found = found.with_context(|| format!("the name {} cannot be resolved", self.host))?;
        let address = found.next().with_context(|| format!("the name {} has no address", self.host))?;
        let answered = match self.transport {
            Transport::Quic => timeout(ANSWER_TIMEOUT, knock_quic(address)).await,
            Transport::Tcp => {
                timeout(ANSWER_TIMEOUT, async { Ok(TcpStream::connect(address).await.map(drop)?) }).await
            }
        };
        answered.with_context(|| format!("no answer from {address} within {} s", ANSWER_TIMEOUT.as_secs()))?
    }
}

/// Asks for a version that nobody speaks: every QUIC server answers with those it does speak.
async fn knock_quic(address: SocketAddr) -> Result<()> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    socket.send(&first_packet()).await?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).await?;
    let versions = offered_versions(&answer[..length])?;
    ensure!(versions.contains(&1), "it speaks QUIC versions {versions:?}, not version 1");
    Ok(())
}

/// A long-header packet of an unknown version (RFC 8999, section 5.1), padded to the length of a first packet.
fn first_packet() -> Vec<u8> {
    let id_length = [CONNECTION_ID.len() as u8];
    let mut packet =
        [&[0xc0][..], &UNKNOWN_VERSION, &id_length, &CONNECTION_ID, &id_length, &CONNECTION_ID].concat();
    packet.resize(MIN_INITIAL_BYTES, 0);
    packet
}

/// The list in a version negotiation packet (RFC 8999, section 6).
fn offered_versions(packet: &[u8]) -> Result<Vec<u32>> {
    let Some((&[first, v0, v1, v2, v3], rest)) = packet.split_first_chunk::<5>() else {
        bail!("not a QUIC answer")
    };
    ensure!(first & 0x80 != 0 && [v0, v1, v2, v3] == [0; 4], "not a QUIC version negotiation");
    let rest = skip_connection_id(rest).and_then(skip_connection_id).context("a QUIC answer cut short")?;
    let (versions, _) = rest.as_chunks::<4>();
    Ok(versions.iter().map(|version| u32::from_be_bytes(*version)).collect())
}

fn skip_connection_id(packet: &[u8]) -> Option<&[u8]> {
    let (length, rest) = packet.split_first()?;
    rest.get(usize::from(*length)..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_entries_are_read_as_nodes_read_them() {
        let way = |host: &str, transport| PeerAddress { host: host.into(), port: 4001, transport };
        let read = |text: &str| ways(text).ok();
        let quic = way("rendezvous.lan", Transport::Quic);
        assert_eq!(read("/dns4/rendezvous.lan/udp/4001/quic-v1"), Some(vec![quic.clone()]));
        assert_eq!(read("/dns4/rendezvous.lan/udp/4001/quic-v1/p2p/12D3KooWa"), Some(vec![quic.clone()]));
        assert_eq!(read("/ip6/::1/tcp/4001"), Some(vec![way("::1", Transport::Tcp)]));
        assert_eq!(read("rendezvous.lan:4001"), Some(vec![quic, way("rendezvous.lan", Transport::Tcp)]));
        for wrong in [
            "",
            "rendezvous.lan",
            "/ip4/rendezvous.lan/udp/4001/quic-v1",
            "/ip4/1.2.3.4/udp/4001",
            "/dns4//tcp/1",
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_version_negotiation_is_understood_and_noise_is_not() {
        let negotiation =
            [&[0x80, 0, 0, 0, 0, 1, 7, 2, 8, 9][..], &[0, 0, 0, 1], &[0x6b, 0x33, 0x43, 0xcf]].concat();
        assert_eq!(offered_versions(&negotiation).expect("valid"), [1, 0x6b33_43cf]);
        for length in 0..10 {
            assert!(offered_versions(&negotiation[..length]).is_err(), "cut at {length}");
        }
        assert!(offered_versions(&first_packet()).is_err());
    }

    #[tokio::test]
    async fn a_silent_port_is_said_to_be_silent() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let port = silent.local_addr().expect("bound").port();
        let ways = ways(&format!("/ip4/127.0.0.1/udp/{port}/quic-v1")).expect("valid");
        let error = ways[0].knock().await.expect_err("nobody answers");
        assert!(error.to_string().contains("no answer"), "{error}");
    }
}
