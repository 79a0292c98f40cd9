//! Products of quantised weights, ours and a device's: every type loads, is near its dequantised weights, and does not
//! depend on company.

mod support;

use candle_core::quantized::GgmlDType;
use gguf::{Dtype, tiny::TinyModel};
use shard_engine::{BackendChoice, Engine, EngineConfig};
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

const BACKENDS: [BackendChoice; 2] = [BackendChoice::Native, BackendChoice::Candle];

fn route(model: &Model, backend: BackendChoice, precision: Precision) -> Route {
    let config = EngineConfig { backend, precision, ..model.whole() };
    Route::new(vec![Engine::load(config, |_| ()).expect("loaded")])
}

#[test]
fn a_row_of_quantised_products_gets_the_same_bits_in_every_company() {
    for ((dtype, ggml), backend) in TYPES.into_iter().flat_map(|types| BACKENDS.map(|b| (types, b))) {
        let model = Model::quantised(&tiny(), dtype, ggml);
        let mut loaded = route(&model, backend, Precision::Standard);
        let expected = loaded.generate(1, &params(), 1);
        for chunk in [2, 4, 7, 13] {
            let got = loaded.generate(1, &params(), chunk);
            assert_eq!(got, expected, "{dtype:?}, {backend} in chunks of {chunk}");
        }
        let mut fresh = route(&model, backend, Precision::Standard);
        assert_eq!(fresh.generate(1, &params(), 13), expected, "{dtype:?}, {backend} loaded again");
    }
}

#[test]
fn quantised_products_are_near_those_of_the_dequantised_weights() {
    let top = SamplingParams { top_logprobs: Some(20), ..SamplingParams::greedy() };
    for (dtype, ggml) in TYPES {
        let model = Model::quantised(&tiny(), dtype, ggml);
        let first = |backend, precision| {
            let mut route = route(&model, backend, precision);
            route.open(1, &top);
            route.run(vec![(1, step(0, &PROMPT))]).pop().expect("an output").tokens.remove(0).top
        };
        let exact = first(BackendChoice::Native, Precision::Exact);
        // Ours rounds activations to sixteen bits, a device not at all.
        for (backend, bound) in [(BackendChoice::Native, 1e-3), (BackendChoice::Candle, 1e-4)] {
            let quantised = first(backend, Precision::Standard);
            let near = |exact: &swarm_types::TokenLogprob| {
                let other = quantised.iter().find(|other| other.token == exact.token)?;
                Some((other.logprob - exact.logprob).abs())
            };
            // The last of the twenty may be others.
            let largest = exact[..10].iter().map(|e| near(e).expect("there too")).fold(0.0, f32::max);
            assert!(largest < bound, "{dtype:?}, {backend}: {largest}");
        }
    }
}

#[test]
fn weights_are_held_as_they_are_stored_and_a_tied_embedding_once() {
    let model = Model::quantised(&tiny(), Dtype::Q4K, GgmlDType::Q4K);
    let header = gguf::Header::read(&model.path()).expect("valid");
    let file: u64 = header.tensors.values().map(|tensor| tensor.bytes).sum();
    for precision in [Precision::Exact, Precision::Standard] {
        let info = route(&model, BackendChoice::Native, precision).engines[0].info().clone();
        // Outputs are padded to whole panels of sixteen.
        assert!(info.weight_bytes <= file + file / 20, "{precision}: {} of {file}", info.weight_bytes);
        assert_eq!(info.bytes_read, file, "{precision}");
    }
}
