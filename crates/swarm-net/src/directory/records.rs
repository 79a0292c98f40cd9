//! Keys of the DHT, which records a node believes, and which it stores.

use std::{
    collections::{BTreeSet, HashMap},
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
/// Torrents whose holders are stored for others. More are refused until some are held by nobody.
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
            return Err(Refused::TooMany);
        }
        store.add_provider(record).map_err(|_| Refused::TooMany)?;
        if let Subject::Torrent(info_hash) = subject {
            self.torrents.insert(info_hash);
        }
        Ok(subject)
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
        let (keys, me) = (&self.keys, self.me);
        self.torrents.retain(|info_hash| {
            store.providers(&keys.torrent(info_hash)).iter().any(|holder| holder.provider != me)
        });
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
mod tests {
    use std::time::Duration;

    use libp2p::identity::Keypair;

    use super::*;
    use crate::directory::signed::tests::announcement;

    struct Fixture {
        keys: Keys,
        filter: RecordFilter,
        store: MemoryStore,
    }

    fn fixture(me: &Keypair) -> Fixture {
        let (keys, me) = (Keys::new("c".into(), 8), me.public().to_peer_id());
        Fixture { filter: RecordFilter::new(keys.clone(), me), store: store(&keys, me), keys }
    }

    impl Fixture {
        fn record(&self, by: &Keypair, shard: u32, sequence: u64) -> Record {
            let value = signed::sign(by, "c", &announcement(by, shard, sequence));
            Record::new(self.keys.shard(ShardId(shard)), value)
        }

        fn put(&mut self, source: &Keypair, record: Record) -> Result<Announcement, Refused> {
            self.filter.put(&mut self.store, source.public().to_peer_id(), record, 1000)
        }

        fn stored(&self, shard: u32) -> Vec<u8> {
            self.store.get(&self.keys.shard(ShardId(shard))).unwrap().value.clone()
        }
    }

    #[test]
    fn keys_are_read_only_as_they_are_written() {
        let keys = Keys::new("c".into(), 8);
        assert_eq!(keys.shard(ShardId(3)).as_ref(), b"/llama-cluster/c/shard/3");
        assert_eq!(keys.subject(&keys.shard(ShardId(7))), Some(Subject::Shard(ShardId(7))));
        let (info_hash, digits) = (ModelDigest([0xa5; 32]), "a5".repeat(32));
        let torrent = format!("/llama-cluster/c/torrent/{digits}");
        assert_eq!(keys.torrent(&info_hash).as_ref(), torrent.as_bytes());
        assert_eq!(keys.subject(&keys.torrent(&info_hash)), Some(Subject::Torrent(info_hash)));
        for foreign in [
            torrent.replace("a5", "A5").as_str(),
            torrent.replace("/c/", "/d/").as_str(),
            format!("{torrent}/").as_str(),
            format!("/llama-cluster/c/shard/{digits}").as_str(),
            &torrent[..torrent.len() - 2],
            "/llama-cluster/c/torrent/3",
            "/llama-cluster/c/shard/8",
            "/llama-cluster/c/shard/03",
            "/llama-cluster/d/shard/3",
            "/llama-cluster/c/shard/",
            "/llama-cluster/c/model/3",
            "x",
        ] {
            assert_eq!(keys.subject(&RecordKey::new(&foreign)), None, "{foreign}");
        }
    }

    #[test]
    fn only_a_peers_own_newer_record_is_stored() {
        let (me, worker, liar) =
            (Keypair::generate_ed25519(), Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let mut node = fixture(&me);
        let fresh = node.record(&worker, 3, 5);
        // Anyone may carry a record that its peer has signed.
        assert_eq!(node.put(&liar, fresh.clone()).map(|found| found.sequence), Ok(5));
        assert_eq!(node.stored(3), fresh.value);

        let older = node.record(&worker, 3, 4);
        assert_eq!(node.put(&worker, older), Err(Refused::Outdated));
        let forged = Record {
            value: signed::sign(&liar, "c", &announcement(&worker, 3, 9)),
            ..node.record(&worker, 3, 9)
        };
        assert_eq!(node.put(&liar, forged), Err(Refused::Signature));
        let elsewhere = Record { key: node.keys.shard(ShardId(4)), ..node.record(&worker, 3, 9) };
        assert_eq!(node.put(&worker, elsewhere), Err(Refused::WrongKey));
        let claimed = Record { publisher: Some(liar.public().to_peer_id()), ..node.record(&worker, 3, 9) };
        assert_eq!(node.put(&liar, claimed), Err(Refused::Publisher));
        let oversize = Record { value: vec![b'{'; 1 << 20], ..fresh.clone() };
        assert_eq!(node.put(&liar, oversize), Err(Refused::TooLarge(1 << 20)));
        assert_eq!(node.stored(3), fresh.value, "none of these changed the store");

        let newer = node.record(&worker, 3, 6);
        assert!(node.put(&worker, newer.clone()).is_ok());
        assert_eq!(node.stored(3), newer.value);
    }

    #[test]
    fn a_found_record_older_than_one_that_was_read_is_not_believed_while_that_one_lives() {
        let (me, worker) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let mut node = fixture(&me);
        let (old, new) = (node.record(&worker, 3, 4), node.record(&worker, 4, 5));
        let mut sequence = |record, now_ms| node.filter.read(record, now_ms).map(|told| told.sequence);
        assert_eq!(sequence(&old, 1000), Ok(4));
        assert_eq!(sequence(&new, 1000), Ok(5));
        assert_eq!(sequence(&new, 1000), Ok(5), "the same again is no news and no lie");
        assert_eq!(sequence(&old, 1000), Err(Refused::Outdated), "of another shard that it served before");
        assert_eq!(node.put(&worker, old), Err(Refused::Outdated));
        node.filter.sweep(&mut node.store, Instant::now(), 60_000);
        assert!(node.filter.newest.is_empty(), "what is stale need not be remembered");
    }

    #[test]
    fn another_replicas_record_is_heard_but_does_not_replace_the_nodes_own() {
        let (me, worker) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let mut node = fixture(&me);
        let own = Record { publisher: Some(me.public().to_peer_id()), ..node.record(&me, 3, 1) };
        node.store.put(own.clone()).unwrap();
        let replica = node.record(&worker, 3, 2);
        assert_eq!(node.put(&worker, replica).map(|found| found.sequence), Ok(2));
        assert_eq!(node.stored(3), own.value);
    }

    #[test]
    fn a_flood_of_records_is_cut_off_for_the_flooder_alone() {
        let (me, flooder, worker) =
            (Keypair::generate_ed25519(), Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let mut node = fixture(&me);
        let junk = Record::new(node.keys.shard(ShardId(0)), b"junk".to_vec());
        let causes: BTreeSet<_> =
            (0..400).map(|_| node.put(&flooder, junk.clone()).unwrap_err().cause()).collect();
        assert_eq!(causes, BTreeSet::from(["malformed", "too_many"]));
        let record = node.record(&worker, 0, 1);
        assert!(node.put(&worker, record).is_ok());
        let mut provide = |key: RecordKey| {
            node.filter.provide(&mut node.store, ProviderRecord::new(key, PeerId::random(), vec![]))
        };
        for number in 0..=255 {
            let foreign = RecordKey::new(&format!("/llama-cluster/c/model/{number}"));
            assert_eq!(
                provide(foreign),
                Err(Refused::WrongKey),
                "nothing but shards and torrents is provided here"
            );
        }
        assert_eq!(provide(node.keys.shard(ShardId(7))), Ok(Subject::Shard(ShardId(7))));
    }

    #[test]
    fn holders_of_so_many_torrents_are_stored_until_their_records_expire() {
        let (me, holder) = (Keypair::generate_ed25519(), PeerId::random());
        let (mut node, start) = (fixture(&me), Instant::now());
        let info_hash = |number: usize| ModelDigest([number as u8; 32]);
        let provided = |node: &mut Fixture, number| {
            let key = node.keys.torrent(&info_hash(number));
            let mut record = ProviderRecord::new(key, holder, vec![]);
            record.expires = Some(start + Duration::from_secs(60));
            node.filter.provide(&mut node.store, record)
        };
        for number in 0..MAX_TORRENTS {
            assert_eq!(provided(&mut node, number), Ok(Subject::Torrent(info_hash(number))));
        }
        assert_eq!(provided(&mut node, MAX_TORRENTS), Err(Refused::TooMany));
        assert!(provided(&mut node, 0).is_ok(), "what is stored is renewed");
        let shard = ProviderRecord::new(node.keys.shard(ShardId(7)), holder, vec![]);
        assert!(node.filter.provide(&mut node.store, shard).is_ok(), "no shard is crowded out");
        let own = node.keys.torrent(&info_hash(MAX_TORRENTS));
        let own = ProviderRecord::new(own, me.public().to_peer_id(), vec![]);
        assert!(node.store.add_provider(own).is_ok(), "nor what the node holds itself");

        let record = Record::new(node.keys.torrent(&info_hash(0)), b"who holds it".to_vec());
        assert_eq!(node.filter.read(&record, 1000), Err(Refused::WrongKey), "torrents have no other records");
        node.filter.sweep(&mut node.store, start + Duration::from_secs(61), 1000);
        assert!(node.store.providers(&node.keys.torrent(&info_hash(0))).is_empty());
        assert!(provided(&mut node, MAX_TORRENTS).is_ok(), "there is room again");
    }
}
