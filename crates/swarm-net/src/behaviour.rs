//! The protocols a node speaks, put together.

use std::{num::NonZeroUsize, time::Duration};

use libp2p::{
    StreamProtocol,
    connection_limits::{self, ConnectionLimits},
    identify,
    identity::Keypair,
    kad::{self, BucketInserts, Caching, Mode, StoreInserts},
    rendezvous::{client, server},
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};
use swarm_types::Transport;

use crate::{
    NetError, Role,
    admission::roster::Roster,
    calls::streams::{Intakes, Streams},
    directory::{
        publisher::RECORD_TTL,
        records::{self, Kad, Keys},
        registrations,
    },
    metrics::Metrics,
    transport::{activity::Activity, guard::Guard, heartbeat::Heartbeat},
};

/// A question that nobody answers ends here.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Refreshes the routing table; new peers do that too.
const BOOTSTRAP_EVERY: Duration = Duration::from_secs(5 * 60);
/// Nodes that hold a record, and that a question goes to before it is answered. A question about each shard from each
/// node of a large swarm that starts is most of what it costs; eight holders are not gone all at once.
const HOLDERS: NonZeroUsize = NonZeroUsize::new(8).expect("it is above none");
/// Answers may carry the provider records of all replicas.
const MAX_DHT_MESSAGE: usize = 64 * 1024;
/// A mesh of some hundred nodes, each with its life line; more is a flood.
const MAX_INCOMING: u32 = 1024;
const MAX_CONNECTIONS: u32 = 2048;
/// Both may have dialled, over both transports; a life line; and a new one by which to prove oneself again.
pub(crate) const MAX_PER_PEER: u32 = 6;
/// Dials that run at the same time. How many may come in at the same time is decided by `admission::doors`.
const MAX_DIALS: u32 = 64;
/// A registration of a rendezvous server: shorter ones would be renewed too often, longer ones outlive workers.
const MIN_REGISTRATION_S: u64 = 5;
const MAX_REGISTRATIONS: usize = 2048;

/// All protocols of a node.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) kad: Kad,
    pub(crate) streams: Streams,
    pub(crate) torrent_streams: Streams,
    pub(crate) watch_streams: Streams,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) rendezvous_client: registrations::Client,
    rendezvous_server: Toggle<server::Behaviour>,
}

/// The byte streams between members, by what runs on them.
pub(crate) struct MemberStreams {
    grpc: Streams,
    torrents: Streams,
    watches: Streams,
}

impl MemberStreams {
    pub(crate) fn new(
        cluster: &str,
        intakes: Intakes,
        roster: &Roster,
        metrics: &Metrics,
    ) -> Result<Self, NetError> {
        let streams =
            |protocol, suits, intake| Streams::new(protocol, suits, intake, roster.clone(), metrics.clone());
        // A step is a few packets, and QUIC lets none wait for another stream's.
        let grpc = streams(stream_protocol(cluster)?, Transport::Quic, intakes.grpc);
        // The kernel cuts bulk into packets and puts it together, for less of the processor than QUIC takes.
        let torrents = streams(protocol(cluster, "torrent")?, Transport::Tcp, intakes.torrents);
        // What is watched is what gRPC goes by.
        let watches = streams(protocol(cluster, "watch")?, Transport::Quic, intakes.watches);
        Ok(Self { grpc, torrents, watches })
    }
}

impl Behaviour {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new(
        key: &Keypair,
        keys: &Keys,
        role: Role,
        streams: MemberStreams,
        activity: Activity,
    ) -> Result<Self, NetError> {
        let server = (role == Role::Rendezvous).then(|| server::Behaviour::new(server_config()));
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits()),
            identify: identify::Behaviour::new(identify_config(key, keys, role)),
            kad: kad(key, keys)?,
            streams: streams.grpc,
            torrent_streams: streams.torrents,
            watch_streams: streams.watches,
            heartbeat: Heartbeat::new(activity),
            rendezvous_client: Guard::new(client::Behaviour::new(key.clone())),
            rendezvous_server: server.into(),
        })
    }

    /// Whether nodes register here.
    pub(crate) fn is_rendezvous(&self) -> bool {
        self.rendezvous_server.is_enabled()
    }

    /// From now on no connection is made, whoever wants one: questions to the DHT that still run would dial.
    pub(crate) fn close(&mut self) {
        *self.limits.limits_mut() = ConnectionLimits::default()
            .with_max_pending_incoming(Some(0))
            .with_max_pending_outgoing(Some(0))
            .with_max_established(Some(0));
    }
}

/// What nodes of this cluster call themselves.
fn swarm_version(cluster: &str) -> String {
    format!("/llama-swarm/{cluster}/1.0.0")
}

/// The protocol that gRPC runs on.
pub(crate) fn stream_protocol(cluster: &str) -> Result<StreamProtocol, NetError> {
    protocol(cluster, "grpc")
}

fn protocol(cluster: &str, name: &str) -> Result<StreamProtocol, NetError> {
    StreamProtocol::try_from_owned(format!("/llama-swarm/{cluster}/{name}/1.0.0"))
        .map_err(|error| NetError::Start(error.to_string()))
}

fn limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_outgoing(Some(MAX_DIALS))
        .with_max_established_incoming(Some(MAX_INCOMING))
        .with_max_established(Some(MAX_CONNECTIONS))
        .with_max_established_per_peer(Some(MAX_PER_PEER))
}

fn identify_config(key: &Keypair, keys: &Keys, role: Role) -> identify::Config {
    identify::Config::new(swarm_version(keys.cluster()), key.public())
        .with_agent_version(format!("llama-swarm-{}/{}", role.name(), env!("CARGO_PKG_VERSION")))
        .with_push_listen_addr_updates(true)
        // The node keeps its peers' addresses itself.
        .with_cache_size(0)
}

fn kad(key: &Keypair, keys: &Keys) -> Result<Kad, NetError> {
    let mut config = kad::Config::new(protocol(keys.cluster(), "kad")?);
    config
        .set_record_ttl(Some(RECORD_TTL))
        .set_provider_record_ttl(Some(RECORD_TTL))
        .set_replication_factor(HOLDERS)
        // Announcements are renewed with new signatures; the built-in jobs would repeat stale ones.
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_replication_interval(None)
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_caching(Caching::Disabled)
        // Only who is admitted is kept in the routing table and told to others. A question may still go to peers
        // that are named in others' answers.
        .set_kbucket_inserts(BucketInserts::Manual)
        .set_query_timeout(QUERY_TIMEOUT)
        .set_periodic_bootstrap_interval(Some(BOOTSTRAP_EVERY))
        .set_max_packet_size(MAX_DHT_MESSAGE);
    let me = key.public().to_peer_id();
    let mut kad = Kad::with_config(me, records::store(keys, me), config);
    // Every node stores and answers; without this it would wait for a confirmed external address.
    kad.set_mode(Some(Mode::Server));
    Ok(kad)
}

fn server_config() -> server::Config {
    server::Config::default()
        .with_min_ttl(MIN_REGISTRATION_S)
        .with_max_ttl(2 * registrations::TTL.as_secs())
        .with_max_registration_per_peer(2)
        .with_max_registration_total(MAX_REGISTRATIONS)
        .with_max_stored_cookies(MAX_REGISTRATIONS)
}
