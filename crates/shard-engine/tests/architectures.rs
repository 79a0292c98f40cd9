//! Every architecture answers as a reference does that was not written here: `transformers` with the same weights.
//!
//! `tests/data/architectures` has what it says of the tiny models; `tests/python/architectures.py` asks it.

mod support;

use std::{fs, path::Path};

use candle_core::quantized::GgmlDType;
use gguf::{
    Dtype, Header, TensorInfo, Value,
    tiny::{TinyModel, cases},
    write::Writer,
};
use shard_engine::{BackendChoice, Engine, EngineConfig, Footprint, KvType, Usage, cut_of};
use swarm_types::{Precision, SamplingParams, ShardRange, Step};

use crate::support::{Model, Route, params, runs_on_devices, step};

/// How far a log-probability may be from the reference's.
const MOST: f32 = 1e-3;

/// What the reference says.
struct Answers {
    prompt: Vec<u32>,
    /// Tokens of the prompt, then those that follow greedily, each with its log-probability.
    scores: Vec<(u32, f32)>,
    greedy: Vec<(u32, f32)>,
}

impl Answers {
    fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/architectures");
        let text = fs::read_to_string(folder.join(format!("{name}.txt")))
            .unwrap_or_else(|error| panic!("{name} has no answers: {error}"));
        let mut answers = Self { prompt: vec![], scores: vec![], greedy: vec![] };
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let pair = || (words[1].parse().expect("a token"), words[2].parse().expect("a number"));
            match words[0] {
                "prompt" => {
                    answers.prompt = words[1..].iter().map(|id| id.parse().expect("a token")).collect()
                }
                "score" => answers.scores.push(pair()),
                "greedy" => answers.greedy.push(pair()),
                other => panic!("{name}: {other}"),
            }
        }
        assert_eq!((answers.scores.len() + 1, answers.greedy.len()), (answers.prompt.len(), 64), "{name}");
        answers
    }
}

/// The largest difference of a log-probability; the tokens must be the same.
fn difference(name: &str, tiny: &TinyModel, backend: BackendChoice) -> f32 {
    let answers = Answers::read(name);
    let mut route = Model::new(tiny).shards_by(backend, 2);
    let params = SamplingParams { top_logprobs: Some(0), ..SamplingParams::greedy() };
    route.open_with(1, &params, 120, &answers.prompt);
    let scores = answers.prompt.len() as u32 - 1;
    let prompt = Step { scores, ..step(0, &answers.prompt) };
    let mut output = route.run(vec![(1, prompt)]).pop().expect("an output");
    let mut worst = 0f32;
    for (score, (token, expected)) in output.scores.iter().zip(&answers.scores) {
        assert_eq!(score.target.token.0, *token, "{name}");
        worst = worst.max((score.target.logprob - expected).abs());
    }
    for (place, (token, expected)) in (answers.prompt.len() as u32..).zip(&answers.greedy) {
        let sampled = output.tokens.pop().expect("sampled");
        assert_eq!(sampled.token.0, *token, "{name} at {place}");
        worst = worst.max((sampled.logprob.expect("asked for") - expected).abs());
        output = route.run(vec![(1, step(place, &[*token]))]).pop().expect("an output");
    }
    worst
}

fn all_say_what_the_reference_says(backend: BackendChoice) {
    let mut far = vec![];
    let runs = |tiny: &TinyModel| backend == BackendChoice::Native || runs_on_devices(tiny);
    for (name, tiny) in cases().into_iter().filter(|(_, tiny)| runs(tiny)) {
        let worst = difference(name, &tiny, backend);
        println!("{name}, {backend}: {worst:.1e}");
        if worst > MOST {
            far.push(format!("{name}: {worst}"));
        }
    }
    assert!(far.is_empty(), "{backend}: {far:?}");
}

#[test]
fn every_architecture_says_what_the_reference_says() {
    all_say_what_the_reference_says(BackendChoice::Native);
}

#[test]
fn every_architecture_says_on_a_device_what_the_reference_says() {
    all_say_what_the_reference_says(BackendChoice::Candle);
}

/// Why this model is refused when it is written with one more entry or tensor.
fn refusal(tiny: &TinyModel, tensor: Option<(&str, &[u64])>, entry: Option<(&str, Value)>) -> String {
    let model = Model::new(tiny);
    let header = Header::read(&model.path()).expect("valid");
    let file = fs::read(model.path()).expect("read");
    let mut writer = Writer::default();
    let own = header.metadata.iter().filter(|(key, _)| entry.as_ref().is_none_or(|(new, _)| key != new));
    own.for_each(|(key, value)| writer.metadata(key, value.clone()));
    if let Some((key, value)) = entry {
        writer.metadata(key, value);
    }
    for (name, info) in &header.tensors {
        let bytes = file[info.offset as usize..(info.offset + info.bytes) as usize].to_vec();
        writer.tensor(name, info.dtype, &info.shape, bytes);
    }
    if let Some((name, shape)) = tensor {
        writer.tensor_f32(name, shape, &vec![0.5; shape.iter().product::<u64>() as usize]);
    }
    writer.write(&model.path()).expect("written");
    let told = Header::read_without_arrays(&model.path()).expect("valid");
    let usage = Usage {
        precision: Precision::Exact,
        kv_type: KvType::F16,
        batch_rows: 1,
        backend: BackendChoice::Native,
    };
    let by_header = cut_of(&told, 1, None)
        .and_then(|cut| Footprint::of(&told, &cut, ShardRange::new(0, 1).expect("valid"), usage));
    let by_header = by_header.expect_err("refused by the header alone").to_string();
    let by_engine = model.refusal();
    assert!(by_engine.ends_with(&by_header), "{by_engine}: {by_header}");
    by_header
}

#[test]
fn what_is_not_supported_is_named_by_the_header_alone_and_never_called_damaged() {
    let llama = TinyModel::default();
    let text = |text: &str| Value::String(text.into());
    let mixture = cases().into_iter().find(|(name, _)| *name == "qwen3moe").expect("there").1;
    let refused = [
        refusal(&TinyModel { architecture: "mamba", ..llama.clone() }, None, None),
        refusal(&llama, Some(("output.bias", &[268])), None),
        refusal(&llama, Some(("blk.3.post_attention_norm.weight", &[64])), None),
        refusal(&llama, Some(("blk.3.ffn_gate_inp.weight", &[64, 4])), None),
        refusal(&mixture, Some(("blk.1.ffn_gate_shexp.weight", &[64, 48])), None),
        refusal(&llama, None, Some(("llama.rope.scaling.type", text("dynamic")))),
    ];
    let named = [
        "architecture mamba is not supported (supported: llama, ",
        "tensor output.bias is not supported",
        "tensor blk.3.post_attention_norm.weight is not supported",
        "tensor blk.3.ffn_gate_inp.weight is not supported",
        "tensor blk.1.ffn_gate_shexp.weight is not supported",
        "rope scaling dynamic with factor 0 (supported: none, linear, yarn,",
    ];
    for (refused, named) in refused.iter().zip(named) {
        assert!(refused.starts_with(named), "{refused}");
    }
    let windowless = TinyModel { architecture: "gemma2", ..llama };
    assert!(refusal(&windowless, None, None).contains("gemma2.attention.sliding_window is missing"));
}

#[test]
fn experts_in_blocks_give_the_same_bits_in_any_chunk_and_what_a_device_makes_of_them() {
    let (_, tiny) = cases().into_iter().find(|(name, _)| *name == "qwen2moe").expect("there");
    let tiny = TinyModel { feed_forward: 64, ..tiny };
    for (to, ggml) in [(Dtype::Q8_0, GgmlDType::Q8_0), (Dtype::Q4_0, GgmlDType::Q4_0)] {
        let model = Model::quantised(&tiny, to, ggml);
        let said = |config: EngineConfig, chunk: usize| {
            Route::new(vec![Engine::load(config, |_| ()).expect("loaded")]).generate(1, &params(), chunk)
        };
        for precision in [Precision::Standard, Precision::Exact] {
            let config = || EngineConfig { precision, ..model.whole() };
            let expected = said(config(), 13);
            for chunk in [1, 4] {
                assert_eq!(said(config(), chunk), expected, "{to:?} {precision} in chunks of {chunk}");
            }
            assert_eq!(
                said(EngineConfig { threads: 3, threads_batch: 3, ..config() }, 7),
                expected,
                "{to:?} {precision}"
            );
        }
        let ours = said(model.whole(), 5);
        for precision in [Precision::Standard, Precision::Exact] {
            let device = EngineConfig { backend: BackendChoice::Candle, precision, ..model.whole() };
            for ((token, bits), (other, other_bits)) in ours.iter().zip(said(device, 5)) {
                assert_eq!(*token, other, "{to:?} {precision}");
                let difference = (f32::from_bits(*bits) - f32::from_bits(other_bits)).abs();
                assert!(difference < 1e-4, "{to:?} {precision}: {difference}");
            }
        }
    }
}

#[test]
fn experts_in_mxfp4_give_the_same_bits_in_any_chunk_and_both_precisions_are_near_each_other() {
    let (_, tiny) = cases().into_iter().find(|(name, _)| *name == "gpt-oss-mxfp4").expect("there");
    let model = Model::new(&tiny);
    let said = |precision, threads, chunk| {
        let config = EngineConfig { precision, threads, ..model.whole() };
        Route::new(vec![Engine::load(config, |_| ()).expect("loaded")]).generate(1, &params(), chunk)
    };
    let first = [Precision::Standard, Precision::Exact].map(|precision| {
        let expected = said(precision, 1, 13);
        for (threads, chunk) in [(1, 1), (1, 4), (3, 7)] {
            assert_eq!(said(precision, threads, chunk), expected, "{precision} in chunks of {chunk}");
        }
        expected[0]
    });
    let [standard, exact] = first.map(|(_, bits)| f32::from_bits(bits));
    assert!(standard != exact && (standard - exact).abs() < 0.1, "{first:?}");
}

#[test]
fn a_model_without_a_part_of_its_architecture_is_refused_by_the_name_of_that_part() {
    let case = |name: &str| cases().into_iter().find(|(case, _)| *case == name).expect("there").1;
    for (name, part) in [
        ("gpt-oss", "blk.1.attn_sinks.weight"),
        ("gpt-oss", "blk.2.ffn_up_exps.bias"),
        ("gpt-oss", "blk.0.post_attention_norm.weight"),
        ("command-r", "blk.1.attn_norm.weight"),
    ] {
        let without =
            |tensor: &str, info: &TensorInfo, bytes| (tensor != part).then_some((info.dtype, bytes));
        let refusal = Model::new(&case(name)).rewritten(without).refusal();
        assert!(refusal.contains(part), "{name}: {refusal}");
    }
    // Nor are there biases of experts, or sinks, where the architecture has none.
    for (tensor, shape) in [("blk.1.ffn_up_exps.bias", &[48, 6][..]), ("blk.1.attn_sinks.weight", &[4])] {
        let refusal = refusal(&case("qwen3moe"), Some((tensor, shape)), None);
        assert_eq!(refusal, format!("tensor {tensor} is not supported"));
    }
}

#[test]
fn a_row_costs_what_it_reads_of_experts_and_takes_the_memory_of_all() {
    let (_, tiny) = cases().into_iter().find(|(name, _)| *name == "qwen3moe").expect("there");
    // So wide that nothing is filled up in memory.
    let model = Model::new(&TinyModel { feed_forward: 64, ..tiny });
    let header = Header::read_without_arrays(&model.path()).expect("valid");
    let stored = |part: &dyn Fn(&str) -> bool| -> u64 {
        let own = header.tensors.iter().filter(|(name, _)| name.starts_with("blk.1.") && part(name));
        own.map(|(_, tensor)| tensor.bytes).sum()
    };
    let experts = stored(&|name| name.contains("_exps"));
    let others = stored(&|name| !name.contains("_exps"));
    // Two of six.
    assert_eq!(header.parts().expect("parts").layer_costs()[1], others + experts / 3);
    let engine =
        Engine::load(model.config(ShardRange::new(1, 2).expect("valid"), 3), |_| ()).expect("loaded");
    let info = engine.info();
    assert_eq!((info.layers.start(), info.layers.count()), (1, 1));
    assert_eq!(info.bytes_read, experts + others);
    assert_eq!(info.weight_bytes - info.bytes_per_token, experts / 3 * 2);
}
