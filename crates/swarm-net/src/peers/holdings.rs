//! Which torrents the connected peers hold, as they say themselves. No IO and no clock of its own.

use std::{collections::BTreeMap, sync::Arc};

use swarm_types::{HeldTorrent, NodeId};
use tokio::sync::watch;

/// What each peer holds that holds anything.
pub type PeerTorrents = BTreeMap<NodeId, Vec<HeldTorrent>>;

/// What all peers hold, for those who want to watch it.
#[derive(Debug, Default)]
pub(crate) struct Holdings(watch::Sender<Arc<PeerTorrents>>);

impl Holdings {
    /// All of it, now and on every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<PeerTorrents>> {
        self.0.subscribe()
    }

    /// A connected peer says what it holds: this and nothing else.
    pub(crate) fn described(&self, node: &NodeId, torrents: Vec<HeldTorrent>) {
        if torrents.is_empty() {
            return self.gone(node);
        }
        self.0.send_if_modified(|all| {
            let changed = all.get(node).is_none_or(|before| *before != torrents);
            if changed {
                Arc::make_mut(all).insert(node.clone(), torrents);
            }
            changed
        });
    }

    /// The last connection to a peer is gone.
    pub(crate) fn gone(&self, node: &NodeId) {
        self.0.send_if_modified(|all| {
            let there = all.contains_key(node);
            if there {
                Arc::make_mut(all).remove(node);
            }
            there
        });
    }
}

#[cfg(test)]
mod tests {
    use swarm_types::fixture::held_torrent;

    use super::*;

    #[test]
    fn watchers_hear_what_changes_and_nothing_else() {
        let holdings = Holdings::default();
        let mut watching = holdings.subscribe();
        let mut changed = || {
            let changed = watching.has_changed().expect("the sender lives");
            changed.then(|| watching.borrow_and_update().values().map(Vec::len).collect::<Vec<_>>())
        };
        let [one, other]: [NodeId; 2] = ["12D3KooWa", "12D3KooWb"].map(|id| id.parse().expect("base58"));
        holdings.described(&one, vec![]);
        assert_eq!(changed(), None, "who holds nothing is no news");
        holdings.described(&one, vec![held_torrent(1)]);
        holdings.described(&other, vec![held_torrent(1), held_torrent(2)]);
        assert_eq!(changed(), Some(vec![1, 2]));
        holdings.described(&one, vec![held_torrent(1)]);
        assert_eq!(changed(), None);
        holdings.described(&one, vec![]);
        assert_eq!(changed(), Some(vec![2]));
        holdings.gone(&other);
        assert_eq!(changed(), Some(vec![]));
    }
}
