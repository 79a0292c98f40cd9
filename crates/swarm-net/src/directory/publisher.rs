//! Putting the node's announcements into the DHT: as records that carry them and as provider records that every
//! replica of a shard can have at the same time.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::kad::{PutRecordError, PutRecordResult, QueryId, Quorum, Record, RecordKey};

use crate::{directory::records::Kad, metrics::Metrics};

/// Life of a record. Dead workers' records are gone after it; the living renew theirs. Each renewal asks some dozen
/// nodes, and nobody is served by a record, only found, so it is not short. Clocks may differ by some minutes.
pub(crate) const RECORD_TTL: Duration = Duration::from_secs(9 * 60);
/// Records are renewed at a third of their life, so two lost renewals do not hide a worker.
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(180);
/// A lone node tries again this much later, or as soon as it has a peer.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(2);
/// A change of what is offered is in the records so long after they were published last: peers that are connected hear
/// of it at once, others need only find the worker.
const CHANGED_EVERY: Duration = Duration::from_secs(10);
/// Peers that connect together are served by one attempt.
pub(crate) const DEBOUNCE: Duration = Duration::from_millis(30);

/// What the node has in the DHT.
#[derive(Debug)]
pub(crate) struct Publisher {
    metrics: Metrics,
    provided: HashSet<RecordKey>,
    running: HashSet<QueryId>,
    /// Nothing to publish when absent.
    due: Option<Instant>,
    published: Option<Instant>,
    failing: bool,
}

impl Publisher {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            provided: HashSet::new(),
            running: HashSet::new(),
            due: None,
            published: None,
            failing: false,
        }
    }

    /// The announcements have changed: publish soon.
    pub(crate) fn changed(&mut self, now: Instant) {
        let earliest = self.published.filter(|_| !self.failing).map_or(now, |last| last + CHANGED_EVERY);
        let at = earliest.max(now);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Whether to sign and publish now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// A peer that could store something is connected. What is on its way need not begin again: it asks dozens.
    pub(crate) fn peer_joined(&mut self, now: Instant) {
        if self.failing
            && self.running.is_empty()
            && let Some(due) = &mut self.due
        {
            *due = (*due).min(now + DEBOUNCE);
        }
    }

    /// Publishes these records and that the node provides their keys, and nothing else any more.
    pub(crate) fn publish(&mut self, kad: &mut Kad, records: HashMap<RecordKey, Vec<u8>>, now: Instant) {
        let provided: HashSet<RecordKey> = records.keys().cloned().collect();
        for gone in self.provided.difference(&provided) {
            kad.stop_providing(gone);
            kad.remove_record(gone);
        }
        self.due = (!records.is_empty()).then_some(now + RENEW_EVERY);
        self.published = Some(now);
        for (key, value) in records {
            let expires = Some(now + RECORD_TTL);
            let record = Record { key, value, publisher: None, expires };
            match kad.put_record(record, Quorum::One) {
                Ok(query) => drop(self.running.insert(query)),
                Err(error) => tracing::warn!(%error, "this node's own record does not fit its store"),
            }
        }
        for key in &provided {
            if let Err(error) = kad.start_providing(key.clone()) {
                tracing::warn!(%error, "this node's own provider record does not fit its store");
            }
        }
        self.provided = provided;
    }

    /// Takes the outcome of publishing a record.
    pub(crate) fn on_put(&mut self, id: QueryId, result: &PutRecordResult, now: Instant) {
        if !self.running.remove(&id) {
            return;
        }
        let stored = match result {
            Ok(_) => true,
            Err(PutRecordError::QuorumFailed { success, .. } | PutRecordError::Timeout { success, .. }) => {
                self.metrics.quorum_failed();
                !success.is_empty()
            }
        };
        self.failing = !stored;
        if self.failing
            && let Some(due) = &mut self.due
        {
            *due = (*due).min(now + RETRY_AFTER);
        }
    }

    /// The node leaves: it provides nothing any more.
    pub(crate) fn leave(&mut self, kad: &mut Kad) {
        for key in std::mem::take(&mut self.provided) {
            kad.stop_providing(&key);
            kad.remove_record(&key);
        }
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{PeerId, kad};
    use swarm_types::ShardId;

    use super::*;
    use crate::directory::records::{self, Keys};

    #[test]
    fn what_is_on_its_way_is_not_begun_again_for_each_peer_that_comes() {
        let (me, keys, now) = (PeerId::random(), Keys::new("c".into(), 8), Instant::now());
        let mut kad = kad::Behaviour::new(me, records::store(&keys, me));
        let mut publisher = Publisher::new(Metrics::default());
        let key = keys.shard(ShardId(1));
        let mut publish = |publisher: &mut Publisher| {
            publisher.publish(&mut kad, HashMap::from([(key.clone(), b"a record".to_vec())]), now);
            *publisher.running.iter().next().expect("a question of the DHT")
        };
        let alone = publish(&mut publisher);
        let quorum = std::num::NonZeroUsize::MIN;
        let failed = Err(PutRecordError::QuorumFailed { key: key.clone(), success: vec![], quorum });
        publisher.on_put(alone, &failed, now);
        assert!(!publisher.is_due(now + DEBOUNCE) && publisher.is_due(now + RETRY_AFTER));
        publisher.peer_joined(now);
        assert!(publisher.is_due(now + DEBOUNCE));
        publish(&mut publisher);
        publisher.peer_joined(now);
        assert!(!publisher.is_due(now + RETRY_AFTER), "its outcome is waited for");
    }
}
