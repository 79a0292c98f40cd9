//! Keys of the DHT, which records a node believes, and which it stores.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use libp2p::{
    PeerId,
    kad::{
        self, ProviderRecord, Record, RecordKey,
        store::{MemoryStore, MemoryStoreConfig, RecordStore},
    },
};
use swarm_types::{Announcement, MAX_ANNOUNCEMENT_BYTES, MAX_HELD_TORRENTS, ModelDigest, NodeId, ShardId};

use crate::{
    directory::signed::{self, Refused},
    peer,
};

/// Replicas of one shard, or holders of one torrent, that others can find through the DHT.
const MAX_PROVIDERS: usize = 64;
/// Workers whose newest announcement is remembered; the DHT introduces no more of them than are dialled.
const MAX_WORKERS: usize = 2048;
/// Torrents whose holders are stored for others. Who comes when there are as many takes the place of one that somebody
/// alone holds who alone holds more than the newcomer; otherwise it is refused until some are held by nobody.
const MAX_TORRENTS: usize = 64;

/// The DHT as this node takes part in it.
pub(crate) type Kad = kad::Behaviour<MemoryStore>;

/// What a key stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Subject {
    /// Records and provider records of those who serve it.
    Shard(ShardId),
    /// Provider records of those who hold it.
    Torrent(ModelDigest),
}

/// The keys of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    cluster: String,
    total_shards: u32,
}

impl Keys {
    pub(crate) fn new(cluster: String, total_shards: u32) -> Self {
        Self { cluster, total_shards }
    }

    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(crate) fn total_shards(&self) -> u32 {
        self.total_shards
    }

    pub(crate) fn shard(&self, shard: ShardId) -> RecordKey {
        RecordKey::new(&format!("/llama-cluster/{}/shard/{shard}", self.cluster))
    }

    pub(crate) fn torrent(&self, info_hash: &ModelDigest) -> RecordKey {
        RecordKey::new(&format!("/llama-cluster/{}/torrent/{info_hash}", self.cluster))
    }

    /// What the key stands for; nothing when it is not one of this cluster's keys.
    pub(crate) fn subject(&self, key: &RecordKey) -> Option<Subject> {
        let text = std::str::from_utf8(key.as_ref()).ok()?;
        let rest = text.strip_prefix("/llama-cluster/")?.strip_prefix(self.cluster.as_str())?;
        // Only the one way to write a key is a key.
        if let Some(id) = rest.strip_prefix("/shard/") {
            let shard = id.parse::<u32>().ok().filter(|id| *id < self.total_shards).map(ShardId)?;
            (self.shard(shard) == *key).then_some(Subject::Shard(shard))
        } else {
            let info_hash = rest.strip_prefix("/torrent/")?.parse::<ModelDigest>().ok()?;
            (self.torrent(&info_hash) == *key).then_some(Subject::Torrent(info_hash))
        }
    }

    /// A record's announcement, when it may be believed by itself.
    fn read(&self, record: &Record, now_ms: u64) -> Result<Announcement, Refused> {
        let Some(Subject::Shard(shard)) = self.subject(&record.key) else { return Err(Refused::WrongKey) };
        let announcement = signed::verify(&self.cluster, self.total_shards, &record.value)?;
        if announcement.shard_id != shard {
            return Err(Refused::WrongKey);
        }
        let publisher = record.publisher.map(|publisher| peer::node_id(&publisher));
        if publisher.is_some_and(|publisher| publisher != announcement.peer_id) {
            return Err(Refused::Publisher);
        }
        signed::check_life(&announcement, now_ms)?;
        Ok(announcement)
    }
}

/// An empty store, large enough for this cluster and no larger.
pub(crate) fn store(keys: &Keys, me: PeerId) -> MemoryStore {
    let shards = keys.total_shards as usize;
    let config = MemoryStoreConfig {
        max_records: shards,
        // The store refuses what is as large as its bound.
        max_value_bytes: MAX_ANNOUNCEMENT_BYTES + 1,
        max_providers_per_key: MAX_PROVIDERS,
        // The node's own torrents have room besides those of others.
        max_provided_keys: shards + MAX_TORRENTS + MAX_HELD_TORRENTS,
    };
    MemoryStore::with_config(me, config)
}

/// Decides which records of others this node believes, and which it stores for them.
#[derive(Debug)]
pub(crate) struct RecordFilter {
    keys: Keys,
    me: PeerId,
    /// Of each worker's announcements the newest that is not stale yet.
    newest: HashMap<NodeId, Newest>,
    /// Records taken from each peer since the last [`Self::sweep`].
    taken: HashMap<PeerId, u32>,
    /// Torrents that others hold by what is stored here.
    torrents: BTreeSet<ModelDigest>,
}

/// What an announcement must not be older than.
#[derive(Debug, Clone, Copy)]
struct Newest {
    sequence: u64,
    expires_at_ms: u64,
}

impl RecordFilter {
    pub(crate) fn new(keys: Keys, me: PeerId) -> Self {
        Self { keys, me, newest: HashMap::new(), taken: HashMap::new(), torrents: BTreeSet::new() }
    }

    /// A record's announcement, when it may be believed: its worker has said so, and nothing newer since.
    pub(crate) fn read(&mut self, record: &Record, now_ms: u64) -> Result<Announcement, Refused> {
        let announcement = self.keys.read(record, now_ms)?;
        let newest = Newest { sequence: announcement.sequence, expires_at_ms: announcement.expires_at_ms };
        let full = self.newest.len() >= MAX_WORKERS;
        match self.newest.get_mut(&announcement.peer_id) {
            Some(known) if announcement.sequence < known.sequence => return Err(Refused::Outdated),
            Some(known) => *known = newest,
            None if full => {}
            None => drop(self.newest.insert(announcement.peer_id.clone(), newest)),
        }
        Ok(announcement)
    }

    /// Checks a record that `source` wants stored, and stores it unless that would replace the node's own or a
    /// newer one. Gives what it announces.
    pub(crate) fn put(
        &mut self,
        store: &mut MemoryStore,
        source: PeerId,
        record: Record,
        now_ms: u64,
    ) -> Result<Announcement, Refused> {
        self.count(source)?;
        let announcement = self.read(&record, now_ms)?;
        let stored = store.get(&record.key).map(std::borrow::Cow::into_owned);
        let replaces = match &stored {
            Some(stored) if stored.publisher == Some(self.me) => false,
            Some(stored) => self.newer(&announcement, stored, now_ms)?,
            None => true,
        };
        if replaces {
            store.put(record).map_err(|_| Refused::TooMany)?;
        }
        Ok(announcement)
    }

    /// Stores that a peer provides a shard or holds a torrent. That it is the peer itself that says so, the DHT has
    /// checked.
    pub(crate) fn provide(
        &mut self,
        store: &mut MemoryStore,
        record: ProviderRecord,
    ) -> Result<Subject, Refused> {
        self.count(record.provider)?;
        let subject = self.keys.subject(&record.key).ok_or(Refused::WrongKey)?;
        if let Subject::Torrent(info_hash) = &subject
            && self.torrents.len() >= MAX_TORRENTS
            && !self.torrents.contains(info_hash)
        {
            self.make_room(store, record.provider)?;
        }
        store.add_provider(record).map_err(|_| Refused::TooMany)?;
        if let Subject::Torrent(info_hash) = subject {
            self.torrents.insert(info_hash);
        }
        Ok(subject)
    }

    /// Takes a place from who alone holds the most torrents: one member cannot keep the others out. What several hold
    /// stays, whoever else holds it.
    fn make_room(&mut self, store: &mut MemoryStore, newcomer: PeerId) -> Result<(), Refused> {
        let mut alone: BTreeMap<PeerId, Vec<ModelDigest>> = BTreeMap::new();
        for info_hash in &self.torrents {
            let holders = self.holders(store, info_hash);
            if let [holder] = holders[..] {
                alone.entry(holder).or_default().push(*info_hash);
            }
        }
        let own = alone.get(&newcomer).map_or(0, Vec::len);
        let most = alone.iter().max_by_key(|(_, torrents)| torrents.len());
        let (holder, torrents) =
            most.filter(|(_, torrents)| torrents.len() > own + 1).ok_or(Refused::TooMany)?;
        if let Some(last) = torrents.last() {
            store.remove_provider(&self.keys.torrent(last), holder);
            self.torrents.remove(last);
        }
        Ok(())
    }

    /// Who holds a torrent by what is stored, this node not among them.
    fn holders(&self, store: &MemoryStore, info_hash: &ModelDigest) -> Vec<PeerId> {
        let providers = store.providers(&self.keys.torrent(info_hash));
        providers.iter().map(|holder| holder.provider).filter(|holder| *holder != self.me).collect()
    }

    /// Forgets what has expired. To be called about once a second.
    pub(crate) fn sweep(&mut self, store: &mut MemoryStore, now: Instant, now_ms: u64) {
        self.taken.clear();
        self.newest.retain(|_, newest| newest.expires_at_ms > now_ms);
        store.retain(|_, record| !record.is_expired(now));
        let shards = (0..self.keys.total_shards).map(|id| self.keys.shard(ShardId(id)));
        let torrents = self.torrents.iter().map(|info_hash| self.keys.torrent(info_hash));
        for key in shards.chain(torrents) {
            for provider in store.providers(&key).iter().filter(|provider| provider.is_expired(now)) {
                store.remove_provider(&key, &provider.provider);
            }
        }
        let mut torrents = std::mem::take(&mut self.torrents);
        torrents.retain(|info_hash| !self.holders(store, info_hash).is_empty());
        self.torrents = torrents;
    }

    /// Whether an announcement may take the place of a stored record.
    fn newer(&self, announcement: &Announcement, stored: &Record, now_ms: u64) -> Result<bool, Refused> {
        match self.keys.read(stored, now_ms) {
            Ok(known) if known.peer_id == announcement.peer_id => match announcement.sequence {
                sequence if sequence < known.sequence => Err(Refused::Outdated),
                sequence => Ok(sequence > known.sequence),
            },
            // Of several replicas the last that spoke; all of them are found as providers.
            _ => Ok(true),
        }
    }

    /// Checking a record costs a signature, so nobody may ask for it without end. A worker may serve every shard
    /// and renews each as a record and as a provider; each of its torrents as a provider alone.
    fn count(&mut self, source: PeerId) -> Result<(), Refused> {
        let taken = self.taken.entry(source).or_default();
        *taken += 1;
        if *taken > 64 + 4 * self.keys.total_shards + 2 * MAX_HELD_TORRENTS as u32 {
            Err(Refused::TooMany)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
