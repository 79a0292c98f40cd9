//! What the node knows of torrents.

use libp2p::PeerId;
use tokio::sync::watch;

use crate::{
    directory::{holder::Holder, lookups::Lookups, records::Keys},
    metrics::Metrics,
    peers::holdings::{Holdings, OwnFiles},
};

/// Torrents that this node holds or wants, that its peers hold or want, and that it asks the DHT for.
pub(super) struct Torrents {
    /// What the service says that it holds and wants.
    pub(super) own: watch::Receiver<OwnFiles>,
    pub(super) holder: Holder,
    pub(super) lookups: Lookups,
    pub(super) holdings: Holdings,
}

impl Torrents {
    pub(super) fn new(keys: &Keys, me: PeerId, metrics: &Metrics, own: watch::Receiver<OwnFiles>) -> Self {
        let lookups = Lookups::new(keys.clone(), me, metrics.clone());
        Self { own, holder: Holder::new(keys.clone()), lookups, holdings: Holdings::default() }
    }
}
