//! What is believed and stored, and what is not.

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

fn info_hash(number: usize) -> ModelDigest {
    ModelDigest([number as u8; 32])
}

impl Fixture {
    /// For a minute.
    fn provide(&mut self, holder: PeerId, number: usize, now: Instant) -> Result<Subject, Refused> {
        let mut record = ProviderRecord::new(self.keys.torrent(&info_hash(number)), holder, vec![]);
        record.expires = Some(now + Duration::from_secs(60));
        self.filter.provide(&mut self.store, record)
    }

    fn holders(&self, number: usize) -> Vec<PeerId> {
        self.filter.holders(&self.store, &info_hash(number))
    }
}

#[test]
fn holders_of_so_many_torrents_are_stored_until_their_records_expire() {
    let (me, holder) = (Keypair::generate_ed25519(), PeerId::random());
    let (mut node, start) = (fixture(&me), Instant::now());
    for number in 0..MAX_TORRENTS {
        assert_eq!(node.provide(holder, number, start), Ok(Subject::Torrent(info_hash(number))));
    }
    assert_eq!(node.provide(holder, MAX_TORRENTS, start), Err(Refused::TooMany));
    assert!(node.provide(holder, 0, start).is_ok(), "what is stored is renewed");
    let shard = ProviderRecord::new(node.keys.shard(ShardId(7)), holder, vec![]);
    assert!(node.filter.provide(&mut node.store, shard).is_ok(), "no shard is crowded out");
    let own = node.keys.torrent(&info_hash(MAX_TORRENTS));
    let own = ProviderRecord::new(own, me.public().to_peer_id(), vec![]);
    assert!(node.store.add_provider(own).is_ok(), "nor what the node holds itself");

    let record = Record::new(node.keys.torrent(&info_hash(0)), b"who holds it".to_vec());
    assert_eq!(node.filter.read(&record, 1000), Err(Refused::WrongKey), "torrents have no other records");
    node.filter.sweep(&mut node.store, start + Duration::from_secs(61), 1000);
    assert!(node.store.providers(&node.keys.torrent(&info_hash(0))).is_empty());
    assert!(node.provide(holder, MAX_TORRENTS, start).is_ok(), "there is room again");
}

#[test]
fn one_member_cannot_keep_the_torrents_of_others_out() {
    let (me, now) = (Keypair::generate_ed25519(), Instant::now());
    let [flooder, member, other] = std::array::from_fn(|_| PeerId::random());
    let mut node = fixture(&me);
    // The flooder has the model of all others too.
    let shared = MAX_TORRENTS - 1;
    assert!((0..MAX_TORRENTS).all(|number| node.provide(flooder, number, now).is_ok()));
    assert!(node.provide(other, shared, now).is_ok(), "it is there already");
    let own = 100..100 + MAX_TORRENTS;
    let taken = own.clone().filter(|number| node.provide(member, *number, now).is_ok()).count();
    assert_eq!(taken, (MAX_TORRENTS - 1) / 2, "both have as many, and nobody more");
    assert_eq!(node.filter.torrents.len(), MAX_TORRENTS);
    assert_eq!(node.provide(flooder, 99, now), Err(Refused::TooMany), "it has as many as the other");
    assert!(own.take(taken).all(|number| node.holders(number) == [member]), "nothing of it is displaced");
    assert_eq!(node.holders(shared), [flooder, other], "what several hold is nobody's place");
    assert!(node.provide(other, 98, now).is_ok(), "who has less comes in");
}
