//! What an exchange counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::{Registry, Unit},
};

use crate::{causes::Away, error::ExchangeError};

/// Counters of one node, for all that it seeds and fetches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Bytes of pieces that were sent.
    pub sent: Counter,
    /// Bytes of pieces that came, right or wrong.
    pub received: Counter,
    /// Pieces that came and were right; the few that came twice count twice.
    pub verified: Counter,
    /// Pieces that came and were wrong.
    pub wrong: Counter,
    /// Requests of others that were refused.
    pub refused: Counter,
    /// Pieces of this node's own that were wrong when they were to be given to others.
    pub damaged: Counter,
    /// Messages on streams that this node serves, both ways.
    pub messages: Counter,
    /// Bytes of pieces that came from origins, right or wrong.
    pub origin_received: Counter,
    left: Family<CauseLabels, Counter>,
    origin_failures: Family<CauseLabels, Counter>,
}

/// Why a peer was left that was being fetched from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// It sent other bytes than the piece's; it is not asked again.
    Wrong,
    /// It sent what is no message, or not the one that may come.
    Message,
    /// Nothing came of what was asked of it.
    Stalled,
    /// Others give more than four times as much.
    Slow,
    /// The stream broke.
    Broken,
    /// No stream to it could be opened.
    Unreachable,
    /// It went, being busy for example.
    Away,
    /// It has nothing that is needed.
    Useless,
}

impl Left {
    const ALL: [Self; 8] = [
        Self::Wrong,
        Self::Message,
        Self::Stalled,
        Self::Slow,
        Self::Broken,
        Self::Unreachable,
        Self::Away,
        Self::Useless,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Wrong => "wrong_bytes",
            Self::Message => "message",
            Self::Stalled => "stalled",
            Self::Slow => "slow",
            Self::Broken => "broken",
            Self::Unreachable => "unreachable",
            Self::Away => "away",
            Self::Useless => "useless",
        }
    }
}

/// Why an origin gave nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OriginFailure {
    /// It gave other bytes than the piece's; it is not asked again.
    Wrong,
    /// It refuses, gives no ranges, or has another file; it is not asked again.
    Useless,
    /// It could not be reached, or did not answer; it is asked again later.
    Unavailable,
}

impl OriginFailure {
    const ALL: [Self; 3] = [Self::Wrong, Self::Useless, Self::Unavailable];

    fn name(self) -> &'static str {
        match self {
            Self::Wrong => "wrong_bytes",
            Self::Useless => "useless",
            Self::Unavailable => "unavailable",
        }
    }
}

impl From<&ExchangeError> for Left {
    fn from(error: &ExchangeError) -> Self {
        match error {
            ExchangeError::Message { .. } | ExchangeError::OtherTorrent => Self::Message,
            ExchangeError::Away(Away::Idle) => Self::Useless,
            ExchangeError::Away(_) => Self::Away,
            ExchangeError::Silent(_) => Self::Stalled,
            ExchangeError::Torrent(_) => Self::Wrong,
            ExchangeError::Stream(_) | ExchangeError::Ended => Self::Broken,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

impl Default for Metrics {
    /// At zero, also what has not happened yet: a series that begins with its first event hides that event.
    fn default() -> Self {
        let left = Family::<CauseLabels, Counter>::default();
        for cause in Left::ALL {
            let _ = left.get_or_create(&CauseLabels { cause: cause.name() });
        }
        let origin_failures = Family::<CauseLabels, Counter>::default();
        for cause in OriginFailure::ALL {
            let _ = origin_failures.get_or_create(&CauseLabels { cause: cause.name() });
        }
        let [sent, received, verified, wrong, refused, damaged, messages, origin_received] =
            std::array::from_fn(|_| Counter::default());
        Self {
            sent,
            received,
            verified,
            wrong,
            refused,
            damaged,
            messages,
            origin_received,
            left,
            origin_failures,
        }
    }
}

impl Metrics {
    /// Makes the counters known under these names.
    pub fn register(&self, registry: &mut Registry) {
        let help = "bytes of model pieces sent to peers";
        registry.register_with_unit("pieces_sent", help, Unit::Bytes, self.sent.clone());
        let help = "bytes of model pieces that came from peers";
        registry.register_with_unit("pieces_received", help, Unit::Bytes, self.received.clone());
        registry.register("pieces_verified", "model pieces that came and were right", self.verified.clone());
        registry.register("pieces_wrong", "model pieces that came and were wrong", self.wrong.clone());
        registry.register(
            "pieces_refused",
            "requests of model pieces that were refused",
            self.refused.clone(),
        );
        let help = "model pieces on this node's disk that were wrong when a peer asked for them";
        registry.register("pieces_damaged", help, self.damaged.clone());
        registry.register(
            "piece_messages",
            "messages on streams that pieces are served on, both ways",
            self.messages.clone(),
        );
        let help = "peers that model pieces were fetched from and that were left, by cause";
        registry.register("piece_peers_left", help, self.left.clone());
        let help = "bytes of model pieces that came from a hub";
        registry.register_with_unit("origin_received", help, Unit::Bytes, self.origin_received.clone());
        let help = "times that a hub did not give a model piece, by cause";
        registry.register("origin_failures", help, self.origin_failures.clone());
    }

    /// How many peers were left for this cause.
    #[must_use]
    pub fn left(&self, cause: Left) -> u64 {
        self.left.get_or_create(&CauseLabels { cause: cause.name() }).get()
    }

    /// How often an origin gave nothing for this cause.
    #[must_use]
    pub fn origin_failures(&self, cause: OriginFailure) -> u64 {
        self.origin_failures.get_or_create(&CauseLabels { cause: cause.name() }).get()
    }

    pub(crate) fn count_origin_failure(&self, cause: OriginFailure) {
        self.origin_failures.get_or_create(&CauseLabels { cause: cause.name() }).inc();
    }

    pub(crate) fn count_left(&self, cause: Left) {
        self.left.get_or_create(&CauseLabels { cause: cause.name() }).inc();
    }
}
