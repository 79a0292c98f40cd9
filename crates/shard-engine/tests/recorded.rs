//! Bits that were recorded once: whatever processor the tests run on must make the same.
//!
//! `tests/data/bits.txt` has a line for each case. When arithmetic changes on purpose, this test prints the lines that
//! are right then.

mod support;

use candle_core::quantized::GgmlDType;
use gguf::{
    Dtype,
    tiny::{TinyModel, cases},
};
use shard_engine::{
    Engine, EngineConfig,
    bench::{Matrix, TYPES, numbers},
};
use swarm_types::Precision;

use crate::support::{Model, Route, params};

const RECORDED: &str = include_str!("data/bits.txt");

/// FNV-1a over the bits.
fn digest(bits: impl IntoIterator<Item = u32>) -> String {
    let bytes = bits.into_iter().flat_map(u32::to_le_bytes);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Products of one row, and of many.
fn products() -> Vec<String> {
    let mut lines = vec![];
    for (dtype, exact) in TYPES.into_iter().flat_map(|dtype| [(dtype, false), (dtype, true)]) {
        let matrix = Matrix::new(dtype, 35, 512, exact);
        let x = numbers(13 * 512);
        let many = matrix.multiply(&x);
        let alone: Vec<f32> = x.chunks(512).flat_map(|row| matrix.multiply(row)).collect();
        assert_eq!(digest(many.iter().map(|y| y.to_bits())), digest(alone.iter().map(|y| y.to_bits())));
        let rule = if exact { "exact" } else { "standard" };
        lines.push(format!("product {dtype:?} {rule} {}", digest(many.into_iter().map(f32::to_bits))));
    }
    lines
}

/// What whole models say: tokens and the bits of their log-probabilities.
fn models() -> Vec<String> {
    let mut lines = vec![];
    for architecture in ["llama", "qwen2", "qwen3"] {
        let tiny = TinyModel {
            architecture,
            layers: 2,
            hidden: 256,
            heads: 4,
            feed_forward: 512,
            ..TinyModel::default()
        };
        let model = Model::quantised(&tiny, Dtype::Q4K, GgmlDType::Q4K);
        for precision in [Precision::Standard, Precision::Exact] {
            let config = EngineConfig { precision, ..model.whole() };
            let mut route = Route::new(vec![Engine::load(config, |_| ()).expect("loaded")]);
            let said = route.generate(1, &params(), 5).into_iter().flat_map(|(token, bits)| [token, bits]);
            lines.push(format!("model {architecture} {precision} {}", digest(said)));
        }
    }
    lines
}

/// The same of every architecture.
fn architectures() -> Vec<String> {
    let line = |(name, tiny): (&str, TinyModel)| {
        let mut route = Model::new(&tiny).shards(1);
        let said = route.generate(1, &params(), 5).into_iter().flat_map(|(token, bits)| [token, bits]);
        format!("architecture {name} {}", digest(said))
    };
    cases().into_iter().map(line).collect()
}

#[test]
fn every_processor_makes_the_bits_that_were_recorded() {
    let got = [products(), models(), architectures()].concat();
    let expected: Vec<&str> = RECORDED.lines().collect();
    assert!(got == expected, "got:\n{}", got.join("\n"));
}
