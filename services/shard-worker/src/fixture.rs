//! What the tests of this crate need of an engine.

use gguf::tiny::TinyModel;
use shard_engine::{BackendChoice, DeviceChoice, Engine, EngineConfig, KvType, Slot, SlotOptions};
use swarm_types::{Precision, ShardRange};

/// Different slots. Only an engine makes them.
pub(crate) fn slots(count: usize) -> Vec<Slot> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = folder.path().join("tiny.gguf");
    TinyModel::default().write(&model).expect("written");
    let config = EngineConfig {
        model,
        shards: ShardRange::new(0, 1).expect("valid"),
        total_shards: 8,
        shard_weights: None,
        precision: Precision::Exact,
        backend: BackendChoice::Native,
        device: DeviceChoice::Cpu,
        kv_bytes: 1 << 20,
        kv_type: KvType::default(),
        threads: 1,
        threads_batch: 1,
    };
    let mut engine = Engine::load(config, |_| ()).expect("loaded");
    (0..count).map(|_| engine.open(options()).expect("there is room")).collect()
}

pub(crate) fn options() -> SlotOptions {
    let shards = ShardRange::new(0, 1).expect("valid");
    SlotOptions { shards, prompt_tokens: 0, max_positions: 1, sampling: None, grammar: None }
}
