//! The transports: QUIC, and TCP with Noise and Yamux: beside QUIC as a life line, and alone where QUIC does not get
//! through. Names are resolved.

use std::time::Duration;

use libp2p::{
    PeerId, Transport as _,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, timeout::TransportTimeout},
        upgrade::Version,
    },
    dns,
    identity::Keypair,
    noise, quic, tcp, yamux,
};

use self::{abrupt::Abrupt, activity::Activity, fresh_port::FreshPort};
use crate::{NetError, admission::gate::Gate};

mod abrupt;
pub(crate) mod activity;
pub(crate) mod address;
mod fresh_port;
pub(crate) mod guard;
pub(crate) mod heartbeat;
pub(crate) mod knock;
pub(crate) mod pings;

/// A silent peer that nobody watches and nobody misses is gone after this. A process that ends is noticed by life
/// lines, a machine that vanishes by those who watch it.
const QUIC_IDLE_MS: u32 = 60_000;
/// Each costs both ends, on every connection of a full mesh. What stands between must not forget a connection: that
/// takes two minutes at least (RFC 4787, REQ-5). The first one that is not answered begins the idle time again, within
/// which it is sent again and again, so lost packets do not kill.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(45);
/// Bounded by the idle time as well.
const QUIC_HANDSHAKE: Duration = Duration::from_secs(2);
/// Bytes of one stream that may come in before they are read: 20 MB/s at 50 ms. What strangers may fill is this times
/// their number.
const QUIC_STREAM_WINDOW: u32 = 1024 * 1024;
/// The same of all streams of a connection.
const QUIC_CONNECTION_WINDOW: u32 = 4 * QUIC_STREAM_WINDOW;
/// Resolving a name, connecting and agreeing on keys.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// What a connection is once it is set up.
type Connection = (PeerId, StreamMuxerBox);

/// Connections to members: whoever is not admitted at the gate has none. Must be called inside a tokio runtime.
pub(crate) fn build(key: &Keypair, activity: &Activity, gate: &Gate) -> Result<Boxed<Connection>, NetError> {
    Ok(gate.around(ungated(key, activity)?).boxed())
}

/// Connections to anybody. Resolves names as the machine is set up to. Must be called inside a tokio runtime.
pub(crate) fn ungated(key: &Keypair, activity: &Activity) -> Result<Boxed<Connection>, NetError> {
    let transport = match dns::tokio::Transport::system(quic_and_tcp(key, activity)?) {
        Ok(resolving) => resolving.boxed(),
        Err(error) => {
            tracing::warn!(%error, "host names cannot be resolved, IP addresses can be used");
            quic_and_tcp(key, activity)?
        }
    };
    Ok(TransportTimeout::new(transport, CONNECT_WITHIN).boxed())
}

fn quic_and_tcp(key: &Keypair, activity: &Activity) -> Result<Boxed<Connection>, NetError> {
    let quic = quic::tokio::Transport::new(quic_config(key))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let noise = noise::Config::new(key).map_err(|error| NetError::Start(error.to_string()))?;
    let activity = activity.clone();
    let tcp = FreshPort(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)))
        .map(move |stream, end| activity.watch(stream, address::tcp_socket(end.get_remote_address())))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Abrupt::new(muxer))));
    Ok(quic.or_transport(tcp).map(|either, _| either.into_inner()).boxed())
}

fn quic_config(key: &Keypair) -> quic::Config {
    let mut config = quic::Config::new(key);
    config.max_idle_timeout = QUIC_IDLE_MS;
    config.keep_alive_interval = QUIC_KEEP_ALIVE;
    config.handshake_timeout = QUIC_HANDSHAKE;
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_CONNECTION_WINDOW;
    config
}
