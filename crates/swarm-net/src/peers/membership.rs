//! Who serves what, and whether it is there: events in, status and log lines out. No IO and no clock of its own.
//!
//! Of peers only those that are admitted are connected here; strangers do not come up.
//!
//! A replica is online while its worker is connected *and* has described itself over that connection. What the
//! DHT says is only heard of: it makes a peer be dialled, elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use swarm_types::{
    Admission, Announcement, NodeId, Replica, ReplicaState, ShardId, ShardStatus, SwarmStatus, Transport,
};

use crate::peers::news::News;

/// How long an OFFLINE replica that is not lost stays in the list, so that people see what is missing.
pub(crate) const TOMBSTONE: Duration = Duration::from_secs(5 * 60);
/// Lost ones stay, the latest of them: a swarm that has lost more has other troubles.
const MAX_LOST: usize = 256;
/// More peers than this are not remembered. Connected ones are fewer by the connection limits.
const MAX_PEERS: usize = 2048;

/// Where news of a replica came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// A record that this query found.
    Query(u64),
    /// A provider record, or a record that its worker put here.
    Dht,
}

/// The swarm as this node sees it, and how it came to see it.
#[derive(Debug)]
pub(crate) struct Membership {
    local: Vec<Announcement>,
    peers: BTreeMap<NodeId, Remembered>,
    status: Arc<SwarmStatus>,
}

/// A peer that is connected, or was, or is said to be there.
#[derive(Debug)]
struct Remembered {
    state: PeerState,
    /// It does not answer for the moment.
    suspect: bool,
    /// It is away and has not said that it would leave.
    lost: bool,
    /// What it said of itself over its latest connection.
    described: BTreeMap<ShardId, Announcement>,
    /// Shards that it is known to serve, from anywhere.
    heard: BTreeSet<ShardId>,
    /// Shards of which a query found its record.
    recorded: BTreeSet<ShardId>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum PeerState {
    /// Not connected since then.
    Away(Instant),
    Connected(Transport),
    Described(Transport),
}

impl Remembered {
    fn new(state: PeerState) -> Self {
        Self {
            state,
            suspect: false,
            lost: false,
            described: BTreeMap::new(),
            heard: BTreeSet::new(),
            recorded: BTreeSet::new(),
        }
    }

    fn away_since(&self) -> Option<Instant> {
        match self.state {
            PeerState::Away(since) => Some(since),
            _ => None,
        }
    }

    fn online(&self, shard: ShardId) -> bool {
        matches!(self.state, PeerState::Described(_)) && self.described.contains_key(&shard)
    }

    fn replica(&self, announcement: &Announcement) -> Replica {
        let (state, transport) = match self.state {
            PeerState::Described(over) if announcement.shard_loaded && self.suspect => {
                (ReplicaState::Suspect, Some(over))
            }
            PeerState::Described(over) => (state(announcement), Some(over)),
            _ => (ReplicaState::Offline, None),
        };
        Replica { state, transport, lost: self.lost, ..replica(announcement) }
    }
}

impl Membership {
    pub(crate) fn new(cluster: String, node: NodeId, admission: Admission, total_shards: u32) -> Self {
        let shards =
            (0..total_shards).map(|id| ShardStatus { shard_id: ShardId(id), replicas: vec![] }).collect();
        let status = Arc::new(SwarmStatus::new(cluster, node, admission, shards, 0));
        Self { local: vec![], peers: BTreeMap::new(), status }
    }

    /// The swarm now.
    pub(crate) fn status(&self) -> &Arc<SwarmStatus> {
        &self.status
    }

    /// The node serves these shards now and no others.
    pub(crate) fn serve(&mut self, local: Vec<Announcement>) -> Vec<News> {
        self.local = local;
        self.refresh()
    }

    /// A peer is admitted, or has a better connection than before.
    pub(crate) fn connected(&mut self, node: &NodeId, transport: Transport, now: Instant) -> Vec<News> {
        self.make_room(node);
        let peer = self.peers.entry(node.clone()).or_insert_with(|| Remembered::new(PeerState::Away(now)));
        let before = (peer.state, peer.lost);
        peer.state = match peer.state {
            PeerState::Away(_) => {
                if !peer.described.is_empty() {
                    // It is back: what was heard of it before it went says nothing of now.
                    peer.heard.clear();
                    peer.recorded.clear();
                }
                PeerState::Connected(transport)
            }
            PeerState::Connected(_) => PeerState::Connected(transport),
            PeerState::Described(_) => PeerState::Described(transport),
        };
        peer.lost = false;
        let tells = !peer.described.is_empty() && before != (peer.state, peer.lost);
        if tells { self.refresh() } else { vec![] }
    }

    /// The last connection to an admitted peer is closed. `expected`: by this node, or the peer has said before that it
    /// would leave. A worker that drains says so too.
    pub(crate) fn disconnected(&mut self, node: &NodeId, expected: bool, now: Instant) -> Vec<News> {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.state = PeerState::Away(now);
            peer.suspect = false;
            peer.lost = !expected && !peer.described.values().all(Announcement::is_leaving);
            if peer.described.is_empty() {
                self.peers.remove(node);
            }
        }
        self.bound_lost();
        self.refresh()
    }

    /// Nobody is to miss the peer any more. Gives whether it was lost.
    pub(crate) fn forget(&mut self, node: &NodeId) -> (bool, Vec<News>) {
        let lost = self.peers.get(node).is_some_and(|peer| peer.lost);
        if lost {
            self.peers.remove(node);
        }
        (lost, self.refresh())
    }

    /// Of those that are lost, only so many are kept.
    fn bound_lost(&mut self) {
        if self.peers.values().filter(|peer| peer.lost).count() > MAX_LOST {
            let lost = self.peers.values_mut().filter(|peer| peer.lost);
            if let Some(oldest) = lost.min_by_key(|peer| peer.away_since()) {
                oldest.lost = false;
            }
        }
    }

    /// A connected peer does not answer, or does again.
    pub(crate) fn suspect(&mut self, node: &NodeId, suspect: bool) -> Vec<News> {
        let Some(peer) = self.peers.get_mut(node).filter(|peer| peer.away_since().is_none()) else {
            return vec![];
        };
        if std::mem::replace(&mut peer.suspect, suspect) == suspect {
            return vec![];
        }
        let node = node.clone();
        let mut news = vec![if suspect { News::Suspect(node) } else { News::Answers(node) }];
        news.extend(self.refresh());
        news
    }

    /// A connected peer says what it serves: this and nothing else.
    pub(crate) fn described(&mut self, node: &NodeId, announcements: Vec<Announcement>) -> Vec<News> {
        let Some(peer) = self.peers.get_mut(node) else { return vec![] };
        let (PeerState::Connected(transport) | PeerState::Described(transport)) = peer.state else {
            return vec![];
        };
        peer.state = PeerState::Described(transport);
        peer.described = announcements.into_iter().map(|told| (told.shard_id, told)).collect();
        let new = peer.described.keys().copied().filter(|shard| peer.heard.insert(*shard));
        let discovered = |shard| News::Discovered { shard, worker: node.clone() };
        let mut news: Vec<News> = new.map(discovered).collect();
        news.extend(self.refresh());
        news
    }

    /// The DHT says that a worker serves a shard.
    pub(crate) fn heard(
        &mut self,
        worker: &NodeId,
        shard: ShardId,
        source: Source,
        now: Instant,
    ) -> Vec<News> {
        if *worker == self.status.node || !self.make_room(worker) {
            return vec![];
        }
        let peer = self.peers.entry(worker.clone()).or_insert_with(|| Remembered::new(PeerState::Away(now)));
        let mut news = vec![];
        if let Source::Query(number) = source
            && peer.recorded.insert(shard)
        {
            news.push(News::RecordFound { query: number, shard });
        }
        if peer.heard.insert(shard) {
            news.push(News::Discovered { shard, worker: worker.clone() });
        }
        news
    }

    /// Shards to ask the DHT for: those of which no online replica's record was found in it yet. In a large swarm,
    /// where such questions are most of what joining costs, those that nobody who is online has.
    pub(crate) fn missing(&self, is_large: bool) -> Vec<ShardId> {
        let is_there = |shard: &ShardId| {
            let has = |peer: &Remembered| peer.online(*shard) && (is_large || peer.recorded.contains(shard));
            self.peers.values().any(has)
        };
        self.status.shards.iter().map(|shard| shard.shard_id).filter(|shard| !is_there(shard)).collect()
    }

    /// Forgets those who are long gone, and not lost.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<News> {
        let long = |since: Instant| now.duration_since(since) >= TOMBSTONE;
        let gone = |peer: &Remembered| !peer.lost && peer.away_since().is_some_and(long);
        let before = self.peers.len();
        self.peers.retain(|_, peer| !gone(peer));
        if self.peers.len() == before { vec![] } else { self.refresh() }
    }

    /// Makes room for one more peer by forgetting who is away the longest, a lost one last. False when all are
    /// connected.
    fn make_room(&mut self, node: &NodeId) -> bool {
        if self.peers.len() < MAX_PEERS || self.peers.contains_key(node) {
            return true;
        }
        let away = self.peers.iter().filter_map(|(id, peer)| Some((peer.lost, peer.away_since()?, id)));
        let Some(oldest) = away.min().map(|(_, _, id)| id.clone()) else { return false };
        self.peers.remove(&oldest);
        true
    }

    /// Makes the status again and tells what has changed.
    fn refresh(&mut self) -> Vec<News> {
        let before = Arc::clone(&self.status);
        let shards = self.shards();
        if shards == before.shards {
            return vec![];
        }
        let (cluster, node, revision) = (before.cluster.clone(), before.node.clone(), before.revision + 1);
        let now = SwarmStatus::new(cluster, node, before.admission, shards, revision);
        self.status = Arc::new(now);
        News::of_change(&before, &self.status).into_iter().collect()
    }

    fn shards(&self) -> Vec<ShardStatus> {
        let mut shards: Vec<ShardStatus> = self
            .status
            .shards
            .iter()
            .map(|shard| ShardStatus { shard_id: shard.shard_id, replicas: vec![] })
            .collect();
        let local = self.local.iter().map(|told| Replica { local: true, ..replica(told) });
        let remote =
            self.peers.values().flat_map(|peer| peer.described.values().map(|told| peer.replica(told)));
        let ids = self.local.iter().chain(self.peers.values().flat_map(|peer| peer.described.values()));
        for (told, replica) in ids.zip(local.chain(remote)) {
            if let Some(shard) = shards.get_mut(told.shard_id.0 as usize) {
                shard.replicas.push(replica);
            }
        }
        for shard in &mut shards {
            shard.replicas.sort_by(|a, b| a.worker.cmp(&b.worker));
        }
        shards
    }
}

/// Of a shard whose worker answers, by what it says.
fn state(told: &Announcement) -> ReplicaState {
    match (told.shard_loaded, told.capabilities.stalled) {
        (true, false) => ReplicaState::Loaded,
        (true, true) => ReplicaState::Suspect,
        (false, _) => ReplicaState::Loading,
    }
}

/// A replica on this node, from what it says of itself.
fn replica(told: &Announcement) -> Replica {
    Replica {
        worker: told.peer_id.clone(),
        state: state(told),
        lost: false,
        local: false,
        addresses: told.addresses.clone(),
        transport: None,
        model: told.model.clone(),
        capabilities: told.capabilities.clone(),
    }
}

#[cfg(test)]
mod tests;
