//! What the node knows of torrents.

use libp2p::PeerId;
use swarm_types::HeldTorrent;
use tokio::sync::watch;

use crate::{
    directory::{holder::Holder, lookups::Lookups, records::Keys},
    metrics::Metrics,
    peers::holdings::Holdings,
};

/// Torrents that this node holds, that its peers hold, and that it asks for.
pub(super) struct Torrents {
    /// What the service says that it holds.
    pub(super) wanted: watch::Receiver<Vec<HeldTorrent>>,
    pub(super) holder: Holder,
    pub(super) lookups: Lookups,
    pub(super) holdings: Holdings,
}

impl Torrents {
    pub(super) fn new(
        keys: &Keys,
        me: PeerId,
        metrics: &Metrics,
        wanted: watch::Receiver<Vec<HeldTorrent>>,
    ) -> Self {
        let lookups = Lookups::new(keys.clone(), me, metrics.clone());
        Self { wanted, holder: Holder::new(keys.clone()), lookups, holdings: Holdings::default() }
    }
}
