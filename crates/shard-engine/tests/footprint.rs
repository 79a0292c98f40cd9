//! What the header tells of memory is what an engine then has.

mod support;

use candle_core::quantized::GgmlDType;
use gguf::{
    Dtype, Header,
    tiny::{TinyModel, cases},
};
use shard_engine::{
    BackendChoice, CutError, Engine, EngineConfig, Footprint, KvType, SlotOptions, Usage, cut_of,
};
use swarm_types::{Precision, ShardRange};

use crate::support::{Model, runs_on_devices};

/// For a whole model and some of three shards of it.
fn is_told(name: &str, model: &Model, usage: Usage) {
    let Usage { precision, kv_type, backend, .. } = usage;
    let header = Header::read_without_arrays(&model.path()).expect("valid");
    let cut = cut_of(&header, 3, None).expect("a cut");
    for shards in [(0, 1), (1, 2), (2, 3), (0, 3)] {
        let shards = ShardRange::new(shards.0, shards.1).expect("valid");
        let told = Footprint::of(&header, &cut, shards, usage).expect("a footprint");
        let config = EngineConfig { precision, kv_type, backend, ..model.config(shards, 3) };
        let engine = Engine::load(config, |_| ()).expect("loaded");
        assert_eq!(engine.info().layers, told.layers);
        for max_positions in [1, 100, 256, 300] {
            let options =
                SlotOptions { shards, prompt_tokens: 0, max_positions, sampling: None, grammar: None };
            assert_eq!(engine.cache_bytes(&options).expect("it fits"), told.cache_bytes(max_positions));
        }
        // Matrices are filled up to whole panels.
        let (held, weights) = (engine.info().weight_bytes, told.weight_bytes);
        let near = held.abs_diff(weights) <= weights / 10;
        assert!(near, "{name} {shards}, {backend}: {held}, {weights} were told");
    }
}

#[test]
fn weights_and_caches_are_as_large_as_the_header_tells() {
    let three = [("llama", true), ("qwen2", false), ("qwen3", true)]
        .map(|(architecture, tied)| (architecture, TinyModel { architecture, tied, ..TinyModel::default() }));
    for (name, tiny) in three.into_iter().chain(cases()) {
        let tiny = TinyModel { context: tiny.context.max(512), ..tiny };
        let kv_type = if tiny.tied { KvType::F16 } else { KvType::F32 };
        let backends = [BackendChoice::Native, BackendChoice::Candle];
        for backend in backends.into_iter().take(if runs_on_devices(&tiny) { 2 } else { 1 }) {
            let usage = Usage { precision: Precision::Exact, kv_type, batch_rows: 512, backend };
            is_told(name, &Model::new(&tiny), usage);
        }
    }
}

#[test]
fn a_device_holds_blocks_as_the_file_has_them_and_makes_numbers_of_one_matrix_at_a_time() {
    let tiny = TinyModel { layers: 3, hidden: 256, heads: 4, feed_forward: 512, ..TinyModel::default() };
    let model = Model::quantised(&tiny, Dtype::Q4K, GgmlDType::Q4K);
    let usage = |precision, backend| Usage { precision, kv_type: KvType::F16, batch_rows: 1, backend };
    is_told("quantised", &model, usage(Precision::Standard, BackendChoice::Candle));
    is_told("quantised", &model, usage(Precision::Exact, BackendChoice::Candle));
    let header = Header::read_without_arrays(&model.path()).expect("valid");
    let cut = cut_of(&header, 1, None).expect("a cut");
    let buffers = |precision, backend| {
        let shards = ShardRange::new(0, 1).expect("valid");
        Footprint::of(&header, &cut, shards, usage(precision, backend)).expect("a footprint").buffer_bytes
    };
    let largest = header.tensors.values().map(|tensor| tensor.shape.iter().product::<u64>() * 4).max();
    let plain = buffers(Precision::Exact, BackendChoice::Candle);
    assert!(plain < buffers(Precision::Exact, BackendChoice::Native), "it lays rows side by side");
    assert_eq!(Some(buffers(Precision::Standard, BackendChoice::Candle) - plain), largest);
}

#[test]
fn what_loading_would_refuse_is_refused_by_the_header_alone() {
    let case = |name: &str| cases().into_iter().find(|(case, _)| *case == name).expect("there").1;
    let told = |model: &Model, backend| {
        let header = Header::read_without_arrays(&model.path()).expect("valid");
        let cut = cut_of(&header, 1, None).expect("a cut");
        let usage = Usage { precision: Precision::Standard, kv_type: KvType::F16, batch_rows: 1, backend };
        Footprint::of(&header, &cut, ShardRange::new(0, 1).expect("valid"), usage)
    };
    let model = Model::new(&case("gpt-oss"));
    assert!(told(&model, BackendChoice::Native).is_ok());
    let refused = told(&model, BackendChoice::Candle);
    assert!(matches!(refused, Err(CutError::OnDevices("gpt-oss"))), "{refused:?}");
    let loaded = Engine::load(EngineConfig { backend: BackendChoice::Candle, ..model.whole() }, |_| ());
    let error = loaded.expect_err("refused").to_string();
    assert!(error.contains("architecture gpt-oss are computed on processors alone"), "{error}");
}
