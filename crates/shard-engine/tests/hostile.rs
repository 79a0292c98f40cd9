//! Files and activations that are not what they should be: refused by name, never a crash, never a made-up answer.

mod support;

use gguf::{Array, Value, tiny::TinyModel, write::Writer};
use proptest::prelude::*;
use shard_engine::{DeviceChoice, Engine, EngineConfig, EngineError, StepResult};
use swarm_types::{Precision, ShardRange, Step};

use crate::support::{Model, PROMPT, ids, params, step, step_below};

/// A header with these hyper-parameters, a small embedding, and nothing behind it.
fn header(numbers: &[(&str, u32)]) -> Writer {
    let mut file = Writer::default();
    file.metadata("general.architecture", Value::String("llama".into()));
    file.metadata("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    for (key, number) in numbers {
        file.metadata(format!("llama.{key}"), Value::U32(*number));
    }
    file.tensor_f32("token_embd.weight", &[64, 4], &[0.0; 256]);
    file
}

fn load(file: &Writer, shard: u32, precision: Precision) -> Result<Engine, EngineError> {
    let model = Model::new(&TinyModel::default());
    file.write(&model.path()).expect("written");
    let shards = ShardRange::new(shard, shard + 1).expect("valid");
    Engine::load(EngineConfig { precision, ..model.config(shards, 3) }, |_| ())
}

const KEYS: [&str; 8] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
];

#[test]
fn memory_is_not_set_aside_for_tensors_that_are_not_there() {
    let large = 1 << 20;
    let four_tebibytes = [8, 128, large, 64, 1024, 1024, 1024, 1024];
    let overflow = [large; 8];
    for numbers in [four_tebibytes, overflow] {
        let numbers: Vec<_> = KEYS.into_iter().zip(numbers).collect();
        let error = load(&header(&numbers), 1, Precision::Exact).expect_err("refused").to_string();
        assert!(error.contains("tensor blk."), "{error}");
    }
}

#[test]
fn tokens_without_a_row_in_the_embedding_are_refused() {
    let numbers: Vec<_> = KEYS.into_iter().zip([1, 64, 64, 96, 4, 2, 16, 16]).collect();
    let refused = |tokens: usize| {
        let mut file = header(&numbers);
        file.tensor_f32("blk.0.attn_norm.weight", &[64], &[1.0; 64]);
        file.metadata("tokenizer.ggml.tokens", Value::Array(Array::Strings(vec!["a".into(); tokens])));
        load(&file, 0, Precision::Exact).expect_err("refused").to_string()
    };
    assert!(refused(5).contains("tensor token_embd.weight has 4 rows for 5 tokens"), "{}", refused(5));
    assert!(refused(4).contains("is missing"), "{}", refused(4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn hyper_parameters_that_cannot_be_are_refused(
        numbers in proptest::array::uniform8(prop_oneof![
            proptest::sample::select(vec![0, 1, 2, 3, 64, 1 << 10, 1 << 20, (1 << 20) + 1, u32::MAX]),
            any::<u32>(),
        ]),
        shard in 0u32..3,
        fast in any::<bool>(),
    ) {
        let numbers: Vec<_> = KEYS.into_iter().zip(numbers).collect();
        let precision = if fast { Precision::Standard } else { Precision::Exact };
        prop_assert!(load(&header(&numbers), shard, precision).is_err());
    }
}

#[test]
fn models_that_cannot_be_are_refused() {
    let refused = |tiny: TinyModel| Model::new(&tiny).refusal();
    assert!(
        refused(TinyModel { architecture: "gpt2", ..TinyModel::default() }).contains("architecture gpt2")
    );
    assert!(
        refused(TinyModel { heads: 3, hidden: 48, kv_heads: 2, ..TinyModel::default() }).contains("heads")
    );
    let model = Model::new(&TinyModel::default());
    let no_gpu = EngineConfig { device: DeviceChoice::Cuda(0), ..model.whole() };
    assert!(cfg!(feature = "cuda") || Engine::load(no_gpu, |_| ()).is_err());
}

#[test]
fn a_layer_without_a_tensor_that_its_architecture_has_is_refused() {
    let cases = [
        ("qwen2", "blk.3.attn_q.bias"),
        ("qwen2", "blk.0.attn_v.bias"),
        ("qwen3", "blk.7.attn_q_norm.weight"),
        ("qwen3", "blk.0.attn_k_norm.weight"),
        ("llama", "blk.2.ffn_up.weight"),
    ];
    for (architecture, missing) in cases {
        let model = Model::new(&TinyModel { architecture, ..TinyModel::default() });
        let model = model.rewritten(|name, tensor, bytes| (name != missing).then_some((tensor.dtype, bytes)));
        let error = model.refusal();
        assert!(error.contains(missing) && error.contains("missing"), "{error}");
    }
}

/// A model with NaN as the number at this place of a tensor.
fn damaged(target: &str, place: usize) -> Model {
    Model::new(&TinyModel::default()).rewritten(|name, tensor, mut bytes| {
        if name == target {
            bytes[place * 4..place * 4 + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        Some((tensor.dtype, bytes))
    })
}

#[test]
fn a_norm_that_is_not_finite_is_refused() {
    let error = damaged("blk.2.attn_norm.weight", 5).refusal();
    assert!(error.contains("number 5 of tensor blk.2.attn_norm.weight is not finite"), "{error}");
}

#[test]
fn a_step_that_comes_out_as_nothing_fails_alone_and_can_be_sent_again() {
    let mut route = Model::new(&TinyModel::default()).shards(3);
    let hidden = route.engines[0].info().hidden;
    let with = |value: f32, rows: usize| vec![value; hidden * rows];
    for hop in [1, 2] {
        let engine = &mut route.engines[hop];
        let options = |engine: &Engine| shard_engine::SlotOptions {
            shards: engine.info().shards,
            prompt_tokens: 1,
            max_positions: 100,
            sampling: Some(params()),
            grammar: None,
        };
        let slots: Vec<_> = (0..3).map(|_| engine.open(options(engine)).expect("opened")).collect();
        slots.iter().for_each(|slot| engine.tell(*slot, ids(&PROMPT)).expect("told"));
        let good = step_below(0, 13, with(0.5, 13));
        let huge = step_below(0, 13, with(3e38, 13));
        // Not even a step that asks for nothing may leave its mark in the cache.
        let silent = Step { samples: 0, ..huge.clone() };
        let batch = [(slots[0], huge), (slots[1], good.clone()), (slots[2], silent)];
        let mut results = engine.run(&batch).into_iter();
        let mut next = || results.next().expect("three");
        assert!(matches!(next(), Err(EngineError::NotFinite(_))));
        let expected = next().expect("not touched by its company");
        assert!(matches!(next(), Err(EngineError::NotFinite(_))));
        for slot in [slots[0], slots[2]] {
            assert_eq!(engine.position(slot), Some(0));
            let again = engine.run(&[(slot, good.clone())]).pop().expect("one");
            assert_eq!(again.expect("as if nothing had been"), expected);
        }
    }
}

#[test]
fn a_damaged_weight_is_blamed_on_the_hop_that_holds_it() {
    let hidden = 64;
    let model = damaged("token_embd.weight", 7 * hidden + 3);
    let mut route = model.shards(2);
    route.open(1, &params());
    route.open(2, &params());
    let batch = [(route.slot(0, 1), step(0, &[1, 7])), (route.slot(0, 2), step(0, &[1, 2]))];
    let results = route.engines[0].run(&batch);
    assert!(matches!(results[0], Err(EngineError::NotFinite("activations"))), "{:?}", results[0]);
    let Ok(StepResult::Activations(activations)) = &results[1] else { panic!("{:?}", results[1]) };

    // The head is the embedding: its logits are damaged too.
    let step = step_below(0, 2, activations.clone());
    let silent = Step { samples: 0, ..step.clone() };
    let scored = Step { scores: 1, samples: 0, ..step.clone() };
    let slot = route.slot(1, 2);
    let mut last = |step: Step| route.engines[1].run(&[(slot, step)]).pop().expect("one");
    assert!(matches!(last(step), Err(EngineError::NotFinite("logits"))));
    assert!(matches!(last(scored), Err(EngineError::NotFinite("logits"))));
    assert!(last(silent).is_ok());
}
