//! What the header tells of memory is what an engine then has.

mod support;

use gguf::{
    Header,
    tiny::{TinyModel, cases},
};
use shard_engine::{Engine, EngineConfig, Footprint, KvType, SlotOptions, Usage, cut_of};
use swarm_types::{Precision, ShardRange};

use crate::support::Model;

#[test]
fn weights_and_caches_are_as_large_as_the_header_tells() {
    let three = [("llama", true), ("qwen2", false), ("qwen3", true)]
        .map(|(architecture, tied)| (architecture, TinyModel { architecture, tied, ..TinyModel::default() }));
    for (name, tiny) in three.into_iter().chain(cases()) {
        let (model, tied) = (Model::new(&tiny), tiny.tied);
        let header = Header::read_without_arrays(&model.path()).expect("valid");
        let cut = cut_of(&header, 3, None).expect("a cut");
        let (precision, kv_type) = (Precision::Exact, if tied { KvType::F16 } else { KvType::F32 });
        for shards in [(0, 1), (1, 2), (2, 3), (0, 3)] {
            let shards = ShardRange::new(shards.0, shards.1).expect("valid");
            let usage = Usage { precision, kv_type, batch_rows: 512 };
            let told = Footprint::of(&header, &cut, shards, usage).expect("a footprint");
            let engine = Engine::load(EngineConfig { precision, kv_type, ..model.config(shards, 3) }, |_| ())
                .expect("loaded");
            assert_eq!(engine.info().layers, told.layers);
            let options =
                SlotOptions { shards, prompt_tokens: 0, max_positions: 100, sampling: None, grammar: None };
            assert_eq!(engine.cache_bytes(&options).expect("it fits"), told.cache_bytes(100));
            // Matrices are filled up to whole panels.
            let (held, weights) = (engine.info().weight_bytes, told.weight_bytes);
            assert!(held.abs_diff(weights) <= weights / 10, "{name} {shards}: {held}, {weights} were told");
        }
    }
}
