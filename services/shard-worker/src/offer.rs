//! What a worker announces of its shards.

use std::{net::SocketAddr, time::Duration};

use swarm_net::{ShardOffer, SwarmNet};
use swarm_types::{Capabilities, LayerRange, LayersError, ModelId, ShardRange};
use tokio::sync::watch;

/// Changes that nobody waits for are told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// What does not change while the worker runs.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    pub shards: ShardRange,
    pub total_shards: u32,
    pub total_layers: u32,
    pub model: ModelId,
    pub device: String,
    pub memory_bytes: u64,
    pub grpc_address: SocketAddr,
}

/// How far loading is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Loading {
    Percent(u8),
    Done { tokens_per_second: f32 },
}

/// One offer for each shard.
pub(crate) fn offers(fixed: &Fixed, loading: Loading, sessions: usize) -> Result<Vec<ShardOffer>, LayersError> {
    let (load_percent, tokens_per_second) = match loading {
        Loading::Percent(percent) => (percent.min(99), 0.0),
        Loading::Done { tokens_per_second } => (100, tokens_per_second),
    };
    let offer = |shard_id| {
        Ok(ShardOffer {
            shard_id,
            loaded: matches!(loading, Loading::Done { .. }),
            capabilities: Capabilities {
                layers: LayerRange::for_shard(shard_id, fixed.total_shards, fixed.total_layers)?,
                total_shards: fixed.total_shards,
                model_digest: fixed.model.digest,
                model_name: fixed.model.name.clone(),
                precision: fixed.model.precision,
                device: fixed.device.clone(),
                memory_bytes: fixed.memory_bytes,
                tokens_per_second,
                version: env!("CARGO_PKG_VERSION").into(),
                grpc_address: fixed.grpc_address.to_string(),
                load_percent,
                active_sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
            },
        })
    };
    fixed.shards.iter().map(offer).collect()
}

/// Announces every change of loading at once, and of the number of sessions soon, until either side is dropped.
pub(crate) async fn announce(
    net: SwarmNet,
    fixed: Fixed,
    mut loading: watch::Receiver<Loading>,
    mut sessions: watch::Receiver<usize>,
) {
    loop {
        let (now, count) = (*loading.borrow_and_update(), *sessions.borrow_and_update());
        match offers(&fixed, now, count) {
            Ok(offers) => net.announce(offers),
            Err(error) => tracing::error!(%error, "the shards cannot be announced"),
        }
        let changed = tokio::select! {
            changed = loading.changed() => changed,
            changed = async {
                let changed = sessions.changed().await;
                tokio::time::sleep(TELL_EVERY).await;
                changed
            } => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}
