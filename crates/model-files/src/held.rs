//! What this node says that it holds.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use model_torrent::Store;
use swarm_net::SwarmNet;
use swarm_types::{HeldTorrent, Source};
use tokio::sync::Notify;

/// The stores of this node, each with its model's name. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holdings {
    held: Arc<Mutex<Vec<Holding>>>,
    added: Arc<Notify>,
}

#[derive(Debug)]
struct Holding {
    name: String,
    source: Option<Source>,
    store: Weak<Store>,
}

impl Holdings {
    /// Until the store is dropped. The name is shown to people; the source is where the model is known to come from.
    pub(crate) fn add(&self, name: &str, source: Option<Source>, store: &Arc<Store>) {
        let holding = Holding { name: name.to_owned(), source, store: Arc::downgrade(store) };
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(holding);
        self.added.notify_one();
    }

    /// Resolves when something was added. Cancel safe.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    /// Says it to the swarm.
    pub(crate) fn tell(&self, net: &SwarmNet, told: &mut Vec<HeldTorrent>) {
        let now = self.now();
        if now != *told {
            net.hold(now.clone());
            *told = now;
        }
    }

    fn now(&self) -> Vec<HeldTorrent> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|holding| holding.store.strong_count() > 0);
        let torrent = |holding: &Holding| {
            let store = holding.store.upgrade()?;
            let layout = store.metainfo().layout();
            Some(HeldTorrent {
                info_hash: store.metainfo().info_hash(),
                name: holding.name.clone(),
                bytes: layout.total(),
                pieces_held: store.here().count(),
                pieces: layout.pieces(),
                source: holding.source.clone(),
            })
        };
        held.iter().filter_map(torrent).collect()
    }
}
