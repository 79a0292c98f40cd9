//! Asking the DHT who holds a torrent, when somebody wants to know.

use std::collections::{BTreeSet, HashMap};

use libp2p::{
    PeerId,
    kad::{GetProvidersOk, GetProvidersResult, QueryId},
};
use swarm_types::ModelDigest;
use tokio::sync::oneshot;

use crate::{
    directory::records::{Kad, Keys},
    metrics::{Lookup, Metrics},
};

/// Questions that wait for answers; who asks more gets none. Each ends within the DHT's own timeout.
const MAX_RUNNING: usize = 64;

/// Where the holders of a torrent are told.
pub(crate) type Answer = oneshot::Sender<Vec<PeerId>>;

/// The questions of one node.
#[derive(Debug)]
pub(crate) struct Lookups {
    keys: Keys,
    me: PeerId,
    metrics: Metrics,
    running: HashMap<QueryId, Asked>,
}

#[derive(Debug)]
struct Asked {
    holders: BTreeSet<PeerId>,
    answer: Answer,
}

impl Lookups {
    pub(crate) fn new(keys: Keys, me: PeerId, metrics: Metrics) -> Self {
        Self { keys, me, metrics, running: HashMap::new() }
    }

    /// Asks who else holds a torrent.
    pub(crate) fn ask(&mut self, kad: &mut Kad, info_hash: &ModelDigest, answer: Answer) {
        if self.running.len() >= MAX_RUNNING {
            // Whoever asked may have gone meanwhile.
            let _ = answer.send(vec![]);
            return;
        }
        let query = kad.get_providers(self.keys.torrent(info_hash));
        self.running.insert(query, Asked { holders: BTreeSet::new(), answer });
    }

    /// Whether it is a question of these.
    pub(crate) fn contains(&self, id: &QueryId) -> bool {
        self.running.contains_key(id)
    }

    /// Takes a step of a question's answer. Gives the holders that it brought to light: nodes that store their records
    /// say so, who may lie, so it is a reason to dial and no more.
    pub(crate) fn on_progress(&mut self, id: QueryId, result: GetProvidersResult, last: bool) -> Vec<PeerId> {
        let Some(asked) = self.running.get_mut(&id) else { return vec![] };
        let timed_out = result.is_err();
        let news = match result {
            Ok(GetProvidersOk::FoundProviders { providers, .. }) => {
                let others = providers.into_iter().filter(|provider| *provider != self.me);
                others.filter(|provider| asked.holders.insert(*provider)).collect()
            }
            _ => vec![],
        };
        if last && let Some(asked) = self.running.remove(&id) {
            self.metrics.looked_up(match (asked.holders.is_empty(), timed_out) {
                (false, _) => Lookup::Found,
                (true, true) => Lookup::Timeout,
                (true, false) => Lookup::NotFound,
            });
            // Whoever asked may have gone meanwhile.
            let _ = asked.answer.send(asked.holders.into_iter().collect());
        }
        news
    }
}
