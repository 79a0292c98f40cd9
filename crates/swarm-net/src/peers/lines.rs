//! What a node logs of the swarm. Operators and their tools know these lines to the word.

use libp2p::Multiaddr;
use swarm_types::{HeldTorrent, NodeId, ShardId, SwarmStatus, Transport, status_words as words};

/// One line of the log.
pub(crate) type Line = String;

/// A query found a record.
pub(crate) fn record_found(query: u64, shard: ShardId) -> Line {
    format!("[DHT] [QUERY {query}] ✓ Record found in DHT for shard {shard}")
}

/// A worker is known to serve a shard.
pub(crate) fn discovered(shard: ShardId, worker: &NodeId) -> Line {
    format!("[DHT] ✓ Discovered shard {shard} from peer: {worker}")
}

/// The DHT has taken that this node holds a torrent.
pub(crate) fn registered(torrent: &HeldTorrent) -> Line {
    format!("[DHT] ✓ Registered torrent {} ({})", torrent.name, torrent.info_hash)
}

/// A peer is connected.
pub(crate) fn connected(node: &NodeId, transport: Transport, address: &Multiaddr) -> [Line; 4] {
    [
        "[CONNECT] ✓✓✓ CONNECTED TO PEER ✓✓✓".into(),
        format!("[CONNECT]   Peer ID: {node}"),
        format!("[CONNECT]   Transport: {}", transport.name()),
        format!("[CONNECT]   Address: {address}"),
    ]
}

/// A peer is not connected any more.
pub(crate) fn disconnected(node: &NodeId) -> Line {
    format!("[CONNECT] ✗ Connection lost to peer: {node}")
}

/// A peer has connected a second time, and does not answer by what was open before.
pub(crate) fn restarted(node: &NodeId) -> Line {
    format!("[CONNECT] ↻ Peer has restarted: {node}")
}

/// A peer does not answer for the moment.
pub(crate) fn suspect(node: &NodeId) -> Line {
    format!("[CONNECT] ? Peer does not answer for the moment: {node}")
}

/// It does again.
pub(crate) fn answers(node: &NodeId) -> Line {
    format!("[CONNECT] ✓ Peer answers again: {node}")
}

/// What is different between two statuses of the same node.
pub(crate) fn changes(before: &SwarmStatus, now: &SwarmStatus) -> Vec<Line> {
    let mut lines: Vec<Line> = words::discovered_now(before, now).into_iter().collect();
    if words::shards_changed(before, now) {
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
