//! candle's quantised products: every type loads, is near its dequantised weights, and does not depend on company.

mod support;

use candle_core::quantized::GgmlDType;
use gguf::{Dtype, tiny::TinyModel};
use shard_engine::{Engine, EngineConfig};
use swarm_types::{Precision, SamplingParams};

use crate::support::{Model, PROMPT, Route, params, step};

/// Every quantised type that candle reads.
const TYPES: [(Dtype, GgmlDType); 12] = [
    (Dtype::Q4_0, GgmlDType::Q4_0),
    (Dtype::Q4_1, GgmlDType::Q4_1),
    (Dtype::Q5_0, GgmlDType::Q5_0),
    (Dtype::Q5_1, GgmlDType::Q5_1),
    (Dtype::Q8_0, GgmlDType::Q8_0),
    (Dtype::Q8_1, GgmlDType::Q8_1),
    (Dtype::Q2K, GgmlDType::Q2K),
    (Dtype::Q3K, GgmlDType::Q3K),
    (Dtype::Q4K, GgmlDType::Q4K),
    (Dtype::Q5K, GgmlDType::Q5K),
    (Dtype::Q6K, GgmlDType::Q6K),
    (Dtype::Q8K, GgmlDType::Q8K),
];

/// Rows of whole blocks of every type. The matrices of layers have multiples of 16 rows, for which candle has kernels
/// of its own; the vocabulary has not.
fn tiny() -> TinyModel {
    TinyModel { layers: 2, hidden: 256, heads: 4, feed_forward: 512, ..TinyModel::default() }
}

fn route(model: &Model, precision: Precision) -> Route {
    let config = EngineConfig { precision, ..model.whole() };
    Route::new(vec![Engine::load(config, |_| ()).expect("loaded")])
}

#[test]
fn a_row_of_quantised_products_gets_the_same_bits_in_every_company() {
    for (dtype, ggml) in TYPES {
        let model = Model::quantised(&tiny(), dtype, ggml);
        let mut fast = route(&model, Precision::Standard);
        let expected = fast.generate(1, &params(), 1);
        for chunk in [2, 4, 7, 13] {
            let got = fast.generate(1, &params(), chunk);
            assert_eq!(got, expected, "{dtype:?} in chunks of {chunk}");
        }
        let mut fresh = route(&model, Precision::Standard);
        assert_eq!(fresh.generate(1, &params(), 13), expected, "{dtype:?} loaded again");
    }
}

#[test]
fn quantised_products_are_near_those_of_the_dequantised_weights() {
    let top = SamplingParams { top_logprobs: Some(20), ..SamplingParams::greedy() };
    for (dtype, ggml) in TYPES {
        let model = Model::quantised(&tiny(), dtype, ggml);
        let first = |precision| {
            let mut route = route(&model, precision);
            route.open(1, &top);
            route.run(vec![(1, step(0, &PROMPT))]).pop().expect("an output").tokens.remove(0).top
        };
        let (exact, fast) = (first(Precision::Exact), first(Precision::Standard));
        let near = |exact: &swarm_types::TokenLogprob| {
            let fast = fast.iter().find(|fast| fast.token == exact.token)?;
            Some((fast.logprob - exact.logprob).abs())
        };
        // The last of the twenty may be others.
        let largest = exact[..10].iter().map(|e| near(e).expect("there too")).fold(0.0, f32::max);
        eprintln!("{dtype:?}: {largest}");
        assert!(largest < 0.1, "{dtype:?}: {largest}");
    }
}

#[test]
fn quantised_weights_are_held_as_they_are_stored() {
    let model = Model::quantised(&tiny(), Dtype::Q4K, GgmlDType::Q4K);
    let bytes = |precision| route(&model, precision).engines[0].info().weight_bytes;
    assert!(bytes(Precision::Standard) * 5 < bytes(Precision::Exact));
}
