//! What a node logs of the swarm. Operators and their tools know these lines to the word.

use libp2p::Multiaddr;
use swarm_types::{NodeId, ShardId, ShardStatus, SwarmStatus, Transport};

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

/// What is different between two statuses of the same node.
pub(crate) fn changes(before: &SwarmStatus, now: &SwarmStatus) -> Vec<Line> {
    let mut lines = vec![];
    if before.discovered_shards != now.discovered_shards {
        lines.push(format!(
            "[STATUS] Discovered Shards: {} → {}",
            before.discovered_shards, now.discovered_shards
        ));
    }
    if before.shards.iter().map(mark).ne(now.shards.iter().map(mark)) {
        lines.push("[STATUS] Shard Online Status:".into());
        lines.extend(
            now.shards.iter().map(|shard| format!("[STATUS]   Shard {}: {}", shard.shard_id, mark(shard))),
        );
    }
    if before.pipeline_complete != now.pipeline_complete {
        lines.push(turned("Pipeline Complete", now.pipeline_complete));
    }
    if before.swarm_ready != now.swarm_ready {
        lines.push(turned("Swarm Ready", now.swarm_ready));
    }
    if now.swarm_ready && !before.swarm_ready {
        let ready = "[SHARD_LOADED] ✓✓✓ All required shards are now LOADED - swarm ready for inference ✓✓✓";
        lines.push(ready.into());
    }
    lines
}

fn turned(what: &str, yes: bool) -> Line {
    let (before, now) = if yes { ("✗ NO", "✓ YES") } else { ("✓ YES", "✗ NO") };
    format!("[STATUS] {what}: {before} → {now}")
}

fn mark(shard: &ShardStatus) -> &'static str {
    if shard.replicas.iter().any(|replica| replica.local) {
        "★ LOCAL"
    } else if shard.online() {
        "✓ ONLINE"
    } else {
        "✗ OFFLINE"
    }
}
