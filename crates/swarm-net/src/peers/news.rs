//! What a node logs of the swarm. Operators and their tools know the lines to the word; logs in JSON have an event with
//! fields for each piece of news instead.

use std::sync::Arc;

use libp2p::Multiaddr;
use swarm_types::{HeldTorrent, NodeId, ShardId, SwarmStatus, Transport, status_words as words};
use tracing::info;

/// Something that operators are told.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum News {
    /// A query found a record.
    RecordFound { query: u64, shard: ShardId },
    /// A worker is known to serve a shard.
    Discovered { shard: ShardId, worker: NodeId },
    /// The DHT has taken that this node holds a torrent.
    Registered(HeldTorrent),
    /// A peer is connected.
    Connected { node: NodeId, transport: Transport, address: Multiaddr },
    /// A peer is not connected any more.
    Disconnected(NodeId),
    /// A peer has connected a second time, and does not answer by what was open before.
    Restarted(NodeId),
    /// A peer does not answer for the moment.
    Suspect(NodeId),
    /// It does again.
    Answers(NodeId),
    /// The swarm is another than before.
    Changed { before: Arc<SwarmStatus>, now: Arc<SwarmStatus> },
}

impl News {
    /// What is different between two statuses of the same node, if anything that is told is.
    pub(crate) fn of_change(before: &Arc<SwarmStatus>, now: &Arc<SwarmStatus>) -> Option<Self> {
        let changed = !changes(before, now).is_empty();
        changed.then(|| Self::Changed { before: before.clone(), now: now.clone() })
    }

    /// Its lines for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = match self {
            Self::RecordFound { query, shard } => {
                format!("[DHT] [QUERY {query}] ✓ Record found in DHT for shard {shard}")
            }
            Self::Discovered { shard, worker } => {
                format!("[DHT] ✓ Discovered shard {shard} from peer: {worker}")
            }
            Self::Registered(torrent) => {
                format!("[DHT] ✓ Registered torrent {} ({})", torrent.name, torrent.info_hash)
            }
            Self::Disconnected(node) => format!("[CONNECT] ✗ Connection lost to peer: {node}"),
            Self::Restarted(node) => format!("[CONNECT] ↻ Peer has restarted: {node}"),
            Self::Suspect(node) => format!("[CONNECT] ? Peer does not answer for the moment: {node}"),
            Self::Answers(node) => format!("[CONNECT] ✓ Peer answers again: {node}"),
            Self::Connected { node, transport, address } => {
                return vec![
                    "[CONNECT] ✓✓✓ CONNECTED TO PEER ✓✓✓".into(),
                    format!("[CONNECT]   Peer ID: {node}"),
                    format!("[CONNECT]   Transport: {}", transport.name()),
                    format!("[CONNECT]   Address: {address}"),
                ];
            }
            Self::Changed { before, now } => return changes(before, now),
        };
        vec![line]
    }

    /// Logs it: where the log is for people its lines, in JSON its fields. Which of them is decided by who writes the
    /// log, by the field `banner`.
    pub(crate) fn log(&self) {
        let banner = self.lines().join("\n");
        match self {
            Self::RecordFound { query, shard } => {
                info!(banner, query, shard = shard.0, "record found in the DHT");
            }
            Self::Discovered { shard, worker } => {
                info!(banner, peer_id = %worker, shard = shard.0, "worker discovered");
            }
            Self::Registered(HeldTorrent { name, info_hash, .. }) => {
                info!(banner, name, %info_hash, "torrent registered");
            }
            Self::Connected { node, transport, address } => {
                info!(banner, peer_id = %node, transport = transport.name(), %address, "peer connected");
            }
            Self::Disconnected(node) => info!(banner, peer_id = %node, "peer lost"),
            Self::Restarted(node) => info!(banner, peer_id = %node, "peer restarted"),
            Self::Suspect(node) => info!(banner, peer_id = %node, "peer does not answer"),
            Self::Answers(node) => info!(banner, peer_id = %node, "peer answers again"),
            Self::Changed { before, now } => log_change(banner, before, now),
        }
    }
}

/// The swarm's event has the lines, those of its shards have none.
fn log_change(banner: String, before: &SwarmStatus, now: &SwarmStatus) {
    for shard in words::changed_shards(before, now) {
        info!(banner = "", shard = shard.shard_id.0, state = words::state(shard), "shard changed");
    }
    info!(
        banner,
        discovered_shards = now.discovered_shards,
        total_shards = now.total_shards,
        pipeline_complete = now.pipeline_complete,
        swarm_ready = now.swarm_ready,
        missing = (!now.missing.is_empty()).then(|| now.missing.join("; ")),
        "swarm changed"
    );
}

fn changes(before: &SwarmStatus, now: &SwarmStatus) -> Vec<String> {
    let mut lines: Vec<String> = words::discovered_now(before, now).into_iter().collect();
    if words::changed_shards(before, now).next().is_some() {
        lines.push(words::SHARDS.into());
        lines.extend(now.shards.iter().map(words::shard));
    }
    lines.extend(words::answers_now(before, now));
    if now.swarm_ready && !before.swarm_ready {
        let ready = "[SHARD_LOADED] ✓✓✓ All required shards are now LOADED - swarm ready for inference ✓✓✓";
        lines.push(ready.into());
    }
    lines
}
