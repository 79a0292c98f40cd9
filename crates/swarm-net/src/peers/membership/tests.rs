//! What is seen of workers that come, describe themselves, go and are heard of.

use libp2p::identity::Keypair;

use super::*;
use crate::{directory::signed::tests::announcement, peer};
use swarm_types::{Admission, LayerRange};

/// A swarm of two shards, seen by a node that serves none unless it is told to.
struct Scene {
    view: Membership,
    start: Instant,
}

struct Worker(Keypair);

impl Worker {
    fn new() -> Self {
        Self(Keypair::generate_ed25519())
    }

    fn id(&self) -> NodeId {
        peer::node_id(&self.0.public().to_peer_id())
    }

    fn serves(&self, shard: u32, loaded: bool) -> Announcement {
        let mut announced = Announcement { shard_loaded: loaded, ..announcement(&self.0, shard, 1) };
        announced.capabilities.layers = LayerRange::new(4 * shard, 4 * shard + 4).expect("not reversed");
        announced
    }
}

/// As people read it.
fn texts(news: &[News]) -> Vec<String> {
    news.iter().flat_map(News::lines).collect()
}

fn scene() -> Scene {
    Scene {
        view: Membership::new("c".into(), Worker::new().id(), Admission::Secret, 2),
        start: Instant::now(),
    }
}

impl Scene {
    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn connect(&mut self, worker: &Worker) -> Vec<News> {
        self.view.connected(&worker.id(), Transport::Quic, self.start)
    }

    fn join(&mut self, worker: &Worker, shard: u32, loaded: bool) -> Vec<News> {
        self.connect(worker);
        self.view.described(&worker.id(), vec![worker.serves(shard, loaded)])
    }

    /// Each shard's replicas' states.
    fn states(&self) -> Vec<Vec<ReplicaState>> {
        let states = |shard: &ShardStatus| shard.replicas.iter().map(|replica| replica.state).collect();
        self.view.status().shards.iter().map(states).collect()
    }
}

use ReplicaState::{Loaded, Loading, Offline};

/// Whether a connection's end was expected.
const EXPECTED: bool = true;
const LOST: bool = false;

#[test]
fn a_worker_is_online_only_while_connected_and_described() {
    let (mut scene, worker) = (scene(), Worker::new());
    let heard = scene.view.heard(&worker.id(), ShardId(1), Source::Query(21), scene.start);
    assert_eq!(
        texts(&heard),
        [
            "[DHT] [QUERY 21] ✓ Record found in DHT for shard 1".to_owned(),
            format!("[DHT] ✓ Discovered shard 1 from peer: {}", worker.id()),
        ]
    );
    assert_eq!(scene.states(), [vec![], vec![]], "a record alone makes nobody online");
    scene.connect(&worker);
    assert_eq!(scene.states(), [vec![], vec![]], "nor does a connection");
    scene.view.described(&worker.id(), vec![worker.serves(1, false)]);
    assert_eq!(scene.states(), [vec![], vec![Loading]]);
    scene.view.described(&worker.id(), vec![worker.serves(1, true)]);
    assert_eq!(scene.states(), [vec![], vec![Loaded]]);
    scene.view.disconnected(&worker.id(), LOST, scene.at(1));
    assert_eq!(scene.states(), [vec![], vec![Offline]]);
    assert_eq!(scene.view.heard(&worker.id(), ShardId(1), Source::Query(22), scene.at(2)), []);
    scene.view.described(&worker.id(), vec![worker.serves(1, true)]);
    assert_eq!(scene.states(), [vec![], vec![Offline]], "a stale record or late message resurrects nobody");
}

#[test]
fn a_status_change_is_told_once_and_to_the_word() {
    let (mut scene, own, other) = (scene(), Worker::new(), Worker::new());
    let local = scene.view.serve(vec![own.serves(0, true)]);
    assert_eq!(
        texts(&local),
        [
            "[STATUS] Discovered Shards: 0 → 1",
            "[STATUS] Shard Online Status:",
            "[STATUS]   Shard 0: ★ LOCAL",
            "[STATUS]   Shard 1: ✗ OFFLINE",
        ]
    );
    let joined = scene.join(&other, 1, false);
    assert_eq!(
        texts(&joined[1..]),
        [
            "[STATUS] Discovered Shards: 1 → 2",
            "[STATUS] Shard Online Status:",
            "[STATUS]   Shard 0: ★ LOCAL",
            "[STATUS]   Shard 1: ✓ ONLINE",
            "[STATUS] Pipeline Complete: ✗ NO → ✓ YES",
        ]
    );
    let loaded = scene.view.described(&other.id(), vec![other.serves(1, true)]);
    assert_eq!(
        texts(&loaded),
        [
            "[STATUS] Swarm Ready: ✗ NO → ✓ YES",
            "[SHARD_LOADED] ✓✓✓ All required shards are now LOADED - swarm ready for inference ✓✓✓",
        ]
    );
    let revision = scene.view.status().revision;
    assert_eq!(scene.view.described(&other.id(), vec![other.serves(1, true)]), []);
    assert_eq!(scene.view.status().revision, revision, "nothing changed");
    let lost = scene.view.disconnected(&other.id(), LOST, scene.at(1));
    assert_eq!(
        texts(&lost),
        [
            "[STATUS] Discovered Shards: 2 → 1",
            "[STATUS] Shard Online Status:",
            "[STATUS]   Shard 0: ★ LOCAL",
            "[STATUS]   Shard 1: ✗ OFFLINE",
            "[STATUS] Pipeline Complete: ✓ YES → ✗ NO",
            "[STATUS] Swarm Ready: ✓ YES → ✗ NO",
        ]
    );
}

#[test]
fn a_restarted_worker_leaves_nothing_behind() {
    let (mut scene, worker) = (scene(), Worker::new());
    scene.join(&worker, 1, true);
    scene.view.disconnected(&worker.id(), LOST, scene.at(1));
    scene.connect(&worker);
    assert_eq!(scene.states(), [vec![], vec![Offline]], "not described again yet");
    let back = scene.view.described(&worker.id(), vec![worker.serves(0, false)]);
    assert_eq!(scene.states(), [vec![Loading], vec![]], "the shard it does not serve any more is gone");
    assert_eq!(back[0], News::Discovered { shard: ShardId(0), worker: worker.id() });
}

#[test]
fn replicas_are_all_listed_and_the_dead_vanish_after_a_while() {
    let (mut scene, first, second) = (scene(), Worker::new(), Worker::new());
    scene.join(&first, 1, true);
    scene.join(&second, 1, true);
    assert_eq!(scene.states(), [vec![], vec![Loaded, Loaded]]);
    scene.view.disconnected(&first.id(), EXPECTED, scene.at(1));
    let mut states = scene.states().remove(1);
    states.sort_by_key(|state| *state as u8);
    assert_eq!(states, [Loaded, Offline]);
    assert!(scene.view.expire(scene.at(2)).is_empty());
    scene.view.expire(scene.at(1) + TOMBSTONE);
    assert_eq!(scene.states(), [vec![], vec![Loaded]]);
}

#[test]
fn a_lost_worker_stays_in_the_list_until_it_is_forgotten_or_back() {
    let (mut scene, worker, leaving, other) = (scene(), Worker::new(), Worker::new(), Worker::new());
    for worker in [&worker, &leaving, &other] {
        scene.join(worker, 1, true);
    }
    assert_eq!(scene.view.forget(&worker.id()), (false, vec![]), "it is there");
    scene.view.disconnected(&worker.id(), LOST, scene.at(1));
    scene.view.disconnected(&other.id(), EXPECTED, scene.at(1));
    let mut drains = leaving.serves(1, false);
    drains.capabilities.loaded_percent = 100;
    scene.view.described(&leaving.id(), vec![drains]);
    scene.view.disconnected(&leaving.id(), LOST, scene.at(1));
    let lost = |scene: &Scene| scene.view.status().lost().into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(lost(&scene), [worker.id()], "who drains has said that it leaves");
    scene.view.expire(scene.at(1) + 100 * TOMBSTONE);
    assert_eq!(scene.states(), [vec![], vec![Offline]]);
    assert!(!scene.view.forget(&other.id()).0, "it is off the list");

    scene.join(&worker, 1, true);
    assert_eq!((lost(&scene), scene.states()), (vec![], vec![vec![], vec![Loaded]]), "it is back");
    scene.view.disconnected(&worker.id(), LOST, scene.at(2));
    let revision = scene.view.status().revision;
    assert!(scene.view.forget(&worker.id()).0);
    assert_eq!((lost(&scene), scene.states()), (vec![], vec![vec![], vec![]]));
    assert!(scene.view.status().revision > revision);
    assert!(!scene.view.forget(&worker.id()).0, "nobody misses it");
    scene.join(&worker, 1, true);
    assert_eq!(scene.states(), [vec![], vec![Loaded]], "it is welcome again");
}

#[test]
fn of_the_lost_the_latest_are_kept() {
    let (mut scene, first) = (scene(), Worker::new());
    scene.join(&first, 1, true);
    scene.view.disconnected(&first.id(), LOST, scene.at(1));
    for n in 0..MAX_LOST as u64 {
        let worker = Worker::new();
        scene.join(&worker, 1, true);
        scene.view.disconnected(&worker.id(), LOST, scene.at(n + 2));
    }
    let lost = scene.view.status().lost();
    assert_eq!((lost.len(), lost.contains(&first.id())), (MAX_LOST, false));
}

#[test]
fn shards_are_asked_for_until_an_online_replicas_record_was_found() {
    let (mut scene, worker) = (scene(), Worker::new());
    scene.join(&worker, 1, true);
    assert_eq!(scene.view.missing(false), [ShardId(0), ShardId(1)]);
    scene.view.heard(&worker.id(), ShardId(1), Source::Query(1), scene.start);
    assert_eq!(scene.view.missing(false), [ShardId(0)]);
    scene.view.disconnected(&worker.id(), LOST, scene.at(1));
    assert_eq!(scene.view.missing(false), [ShardId(0), ShardId(1)]);
}

#[test]
fn in_a_large_swarm_who_is_online_is_found_enough() {
    let (mut scene, worker) = (scene(), Worker::new());
    scene.join(&worker, 1, true);
    assert_eq!(scene.view.missing(true), [ShardId(0)]);
    scene.view.disconnected(&worker.id(), LOST, scene.at(1));
    assert_eq!(scene.view.missing(true), [ShardId(0), ShardId(1)]);
}

#[test]
fn a_crowd_of_strangers_is_not_remembered_without_end() {
    let (mut scene, worker) = (scene(), Worker::new());
    scene.join(&worker, 0, true);
    for n in 0..3000 {
        let stranger: NodeId =
            format!("stranger{}", n + 1_111_111).replace(['0', 'l', 'I', 'O'], "x").parse().unwrap();
        scene.view.heard(&stranger, ShardId(1), Source::Dht, scene.at(n));
    }
    assert_eq!(scene.view.peers.len(), MAX_PEERS);
    assert_eq!(scene.states(), [vec![Loaded], vec![]]);
}
