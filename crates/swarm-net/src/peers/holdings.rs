//! Which torrents the connected peers hold, and which sources they want, as they say themselves. No IO and no clock of
//! its own.

use std::{collections::BTreeMap, sync::Arc};

use swarm_types::{HeldTorrent, NodeId, WantedSource};
use tokio::sync::watch;

/// What each peer holds that holds anything.
pub type PeerTorrents = BTreeMap<NodeId, Vec<HeldTorrent>>;
/// What each peer wants that wants anything.
pub type PeerWants = BTreeMap<NodeId, Vec<WantedSource>>;

/// What a node says of model files.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnFiles {
    pub(crate) held: Vec<HeldTorrent>,
    pub(crate) wanted: Vec<WantedSource>,
}

/// What all peers hold and want, for those who want to watch it.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    pub(crate) torrents: Told<HeldTorrent>,
    pub(crate) wanted: Told<WantedSource>,
}

impl Holdings {
    /// The last connection to a peer is gone.
    pub(crate) fn gone(&self, node: &NodeId) {
        self.torrents.gone(node);
        self.wanted.gone(node);
    }
}

/// What peers tell of one kind of thing.
#[derive(Debug)]
pub(crate) struct Told<T>(watch::Sender<Arc<BTreeMap<NodeId, Vec<T>>>>);

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self(watch::Sender::default())
    }
}

impl<T: Clone + PartialEq> Told<T> {
    /// All of it, now and on every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<BTreeMap<NodeId, Vec<T>>>> {
        self.0.subscribe()
    }

    /// A connected peer tells: this and nothing else.
    pub(crate) fn described(&self, node: &NodeId, told: Vec<T>) {
        if told.is_empty() {
            return self.gone(node);
        }
        self.0.send_if_modified(|all| {
            let changed = all.get(node).is_none_or(|before| *before != told);
            if changed {
                Arc::make_mut(all).insert(node.clone(), told);
            }
            changed
        });
    }

    fn gone(&self, node: &NodeId) {
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
        let holdings = Told::default();
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
