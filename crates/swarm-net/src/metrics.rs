//! What the network counts.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use swarm_types::Transport;

use crate::{admission::exchange::NotAdmitted, directory::signed::Refused};

/// Counters of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    lookups: Family<LookupLabels, Counter>,
    refused: Family<CauseLabels, Counter>,
    connections: Family<TransportLabels, Gauge>,
    dials_failed: Counter,
    peers_gone: Family<CauseLabels, Counter>,
    to_prove_again: Gauge,
    /// Streams for which there was no room in the queue, or nobody to take them.
    pub(crate) streams_dropped: Counter,
    round_trips: Histogram,
    /// Bytes in streams from and to peers, of gRPC and of torrents.
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
}

impl Default for Metrics {
    /// At zero, also what has not happened yet: a series that begins with its first event hides that event.
    fn default() -> Self {
        let metrics = Self {
            lookups: Family::default(),
            refused: Family::default(),
            connections: Family::default(),
            dials_failed: Counter::default(),
            peers_gone: Family::default(),
            to_prove_again: Gauge::default(),
            streams_dropped: Counter::default(),
            // 50 µs on a machine to 1.6 s around the world.
            round_trips: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            received: Counter::default(),
            sent: Counter::default(),
        };
        for outcome in Lookup::ALL {
            let _ = metrics.lookups.get_or_create(&LookupLabels { outcome: outcome.name() });
        }
        for cause in Refused::CAUSES.into_iter().chain(NotAdmitted::CAUSES).chain([WITHDRAWN]) {
            let _ = metrics.refused.get_or_create(&CauseLabels { cause });
        }
        for how in Gone::ALL {
            let _ = metrics.peers_gone.get_or_create(&CauseLabels { cause: how.name() });
        }
        for transport in [Transport::Quic, Transport::Tcp] {
            let _ = metrics.connections.get_or_create(&TransportLabels { transport: transport.name() });
        }
        metrics
    }
}

/// A member was sent away that was admitted by a secret that is withdrawn.
pub(crate) const WITHDRAWN: &str = "secret_withdrawn";

/// How a question to the DHT, or a record's way into it, ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lookup {
    Found,
    NotFound,
    Timeout,
    QuorumFailed,
}

impl Lookup {
    const ALL: [Self; 4] = [Self::Found, Self::NotFound, Self::Timeout, Self::QuorumFailed];

    fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NotFound => "not_found",
            Self::Timeout => "timeout",
            Self::QuorumFailed => "quorum_failed",
        }
    }
}

/// How it was noticed that a peer is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gone {
    /// The kernel of its machine has closed what it had open.
    Closed,
    /// Nothing came for too long.
    Silent,
    /// It has said so.
    Left,
}

impl Gone {
    const ALL: [Self; 3] = [Self::Closed, Self::Silent, Self::Left];

    fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Left => "left",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct LookupLabels {
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct TransportLabels {
    transport: &'static str,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "dht_operations",
            "DHT lookups and announcements by outcome; not_found and quorum_failed fall as peers join",
            self.lookups.clone(),
        );
        registry.register(
            "announcements_refused",
            "announcements and records that were not believed, and peers that were sent away, by cause",
            self.refused.clone(),
        );
        registry.register("connections", "open connections to peers, by transport", self.connections.clone());
        registry.register(
            "members_to_prove_again",
            "members that were admitted by a secret that was withdrawn, and have not proven another yet",
            self.to_prove_again.clone(),
        );
        registry.register("dials_failed", "attempts to reach a peer that failed", self.dials_failed.clone());
        registry.register(
            "peers_gone",
            "peers that were noticed as gone, by cause: closed (the kernel of its machine says so), silent, left",
            self.peers_gone.clone(),
        );
        registry.register(
            "streams_dropped",
            "incoming streams for which there was no room, or nobody to take them",
            self.streams_dropped.clone(),
        );
        let round_trips = self.round_trips.clone();
        registry.register_with_unit(
            "round_trip",
            "from a ping to a peer to its answer",
            Unit::Seconds,
            round_trips,
        );
        let streams = "bytes in streams from peers, of gRPC and of torrents";
        registry.register_with_unit("stream_received", streams, Unit::Bytes, self.received.clone());
        let streams = "bytes in streams to peers, of gRPC and of torrents";
        registry.register_with_unit("stream_sent", streams, Unit::Bytes, self.sent.clone());
    }

    pub(crate) fn looked_up(&self, outcome: Lookup) {
        self.lookups.get_or_create(&LookupLabels { outcome: outcome.name() }).inc();
    }

    pub(crate) fn quorum_failed(&self) {
        self.looked_up(Lookup::QuorumFailed);
    }

    /// What is only older than what is known is nobody's fault: who keeps records for others may lack the latest.
    pub(crate) fn refused(&self, refused: &Refused) {
        if !matches!(refused, Refused::Outdated) {
            self.refused_because(refused.cause());
        }
    }

    pub(crate) fn refused_because(&self, cause: &'static str) {
        self.refused.get_or_create(&CauseLabels { cause }).inc();
    }

    pub(crate) fn opened(&self, transport: Transport) {
        self.connections.get_or_create(&TransportLabels { transport: transport.name() }).inc();
    }

    pub(crate) fn closed(&self, transport: Transport) {
        self.connections.get_or_create(&TransportLabels { transport: transport.name() }).dec();
    }

    pub(crate) fn gone(&self, how: Gone) {
        self.peers_gone.get_or_create(&CauseLabels { cause: how.name() }).inc();
    }

    pub(crate) fn answered(&self, after: Duration) {
        self.round_trips.observe(after.as_secs_f64());
    }

    pub(crate) fn to_prove_again(&self, members: usize) {
        self.to_prove_again.set(i64::try_from(members).unwrap_or(i64::MAX));
    }

    pub(crate) fn dial_failed(&self) {
        self.dials_failed.inc();
    }
}
