//! The engine on the real model, against reference outputs of another engine (`data/oracle.json`).

use std::path::Path;

use serde_json::Value;
use shard_engine::{
    BackendChoice, DeviceChoice, Engine, EngineConfig, KvType, Slot, SlotOptions, StepResult,
};
use swarm_tests::real_model;
use swarm_types::{Precision, SamplingParams, ShardRange, Step, StepInput, StepOutput, TokenId};

fn cases(reference: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/oracle.json");
    let oracle: Value = serde_json::from_slice(&std::fs::read(path).expect("shipped")).expect("JSON");
    let cases = oracle[reference]["cases"].as_array().expect("cases").clone();
    assert!(cases.len() >= 7);
    cases
}

fn tokens(list: &Value) -> Vec<TokenId> {
    let ids = list.as_array().expect("a list").iter();
    ids.map(|id| TokenId(id.as_u64().expect("an id") as u32)).collect()
}

async fn engine(precision: Precision, kv_type: KvType) -> Vec<Engine> {
    engines(BackendChoice::Native, precision, kv_type, 1).await
}

/// One for each shard.
async fn engines(backend: BackendChoice, precision: Precision, kv_type: KvType, total: u32) -> Vec<Engine> {
    let model = real_model().await.expect("the model");
    let load = |shard| {
        let config = EngineConfig {
            model: model.clone(),
            shards: ShardRange::new(shard, shard + 1).expect("valid"),
            total_shards: total,
            shard_weights: None,
            precision,
            backend,
            device: DeviceChoice::Cpu,
            kv_bytes: 256 << 20,
            kv_type,
            threads: 2,
            threads_batch: 2,
        };
        Engine::load(config, |_| ()).expect("loaded")
    };
    (0..total).map(load).collect()
}

fn open(engines: &mut [Engine]) -> Vec<Slot> {
    let open = |engine: &mut Engine| {
        let options = SlotOptions {
            shards: engine.info().shards,
            prompt_tokens: 0,
            max_positions: 2000,
            sampling: Some(SamplingParams { top_logprobs: Some(5), ..SamplingParams::greedy() }),
            grammar: None,
        };
        engine.open(options).expect("opened")
    };
    engines.iter_mut().map(open).collect()
}

fn run(engines: &mut [Engine], slots: &[Slot], mut step: Step) -> StepOutput {
    for (engine, slot) in engines.iter_mut().zip(slots) {
        match engine.run(&[(*slot, step.clone())]).pop().expect("one result").expect("computed") {
            StepResult::Output(output) => return output,
            StepResult::Activations(values) => {
                step.input = StepInput::Activations { rows: step.rows() as u32, values };
            }
        }
    }
    panic!("the last shard is here")
}

/// A step that samples from its last row.
fn step(position: u32, tokens: &[TokenId]) -> Step {
    Step { position, input: tokens.to_vec().into(), samples: 1, ..Step::default() }
}

/// Sends a prompt in chunks, then each sampled token, until `count` are there or `end` was sampled.
fn generate(engines: &mut [Engine], prompt: &[TokenId], chunk: usize, count: usize) -> Vec<StepOutput> {
    let slots = open(engines);
    let (mut position, mut outputs, mut next) = (0, vec![], None);
    for tokens in prompt.chunks(chunk) {
        let output = run(engines, &slots, step(position, tokens));
        position = output.position;
        next = Some(output);
    }
    while let Some(output) = next.take() {
        let token = output.tokens[0].token;
        position = output.position;
        outputs.push(output);
        if outputs.len() < count && token != TokenId(2) {
            next = Some(run(engines, &slots, step(position, &[token])));
        }
    }
    engines.iter_mut().zip(slots).for_each(|(engine, slot)| engine.close(slot));
    outputs
}

#[tokio::test]
async fn exact_gives_the_references_tokens_and_log_probabilities() {
    agrees_with_f32(engine(Precision::Exact, KvType::F32).await, 1e-3);
}

#[tokio::test]
async fn caches_in_half_precision_change_no_token_and_log_probabilities_by_less_than_a_hundredth() {
    agrees_with_f32(engine(Precision::Exact, KvType::F16).await, 1e-2);
}

/// What a user gets unasked.
#[tokio::test]
async fn standard_gives_the_references_tokens_and_its_log_probabilities_to_a_hundredth() {
    agrees_with_f32(engine(Precision::default(), KvType::default()).await, 1e-2);
}

/// All tokens of all cases are the reference's, and log-probabilities closer to its than this.
fn agrees_with_f32(mut engine: Vec<Engine>, bound: f64) {
    let mut largest = 0f64;
    for case in cases("f32") {
        let expected = tokens(&case["tokens"]);
        let outputs = generate(&mut engine, &tokens(&case["prompt_tokens"]), 512, 48);
        let got: Vec<TokenId> = outputs.iter().map(|output| output.tokens[0].token).collect();
        assert_eq!(got, expected, "case {}", case["name"]);
        let steps = case["logprob_steps"].as_array().expect("steps").iter();
        for (step, reference) in steps.zip(case["logprobs"].as_array().expect("logprobs")) {
            let output = &outputs[step.as_u64().expect("a step") as usize];
            for top in reference["top5"].as_array().expect("five") {
                let id = top[0].as_u64().expect("an id") as u32;
                let ours =
                    output.tokens[0].top.iter().find(|ours| ours.token.0 == id).expect("the same five");
                let difference = (f64::from(ours.logprob) - top[1].as_f64().expect("a number")).abs();
                assert!(difference < bound, "case {} step {step} token {id}: {difference}", case["name"]);
                largest = largest.max(difference);
            }
        }
    }
    eprintln!("largest difference of a log-probability: {largest:.1e}");
}

/// What computes on GPUs, here on a processor.
#[tokio::test]
async fn a_device_gives_the_references_tokens_and_its_log_probabilities_to_a_thousandth() {
    let device = engines(BackendChoice::Candle, Precision::Exact, KvType::F32, 1).await;
    agrees_with_f32(device, 1e-3);
}

#[tokio::test]
async fn eight_shards_on_a_device_give_the_bits_of_one_and_blocks_those_of_their_numbers() {
    let prompt = tokens(&cases("f32")[0]["prompt_tokens"]);
    let mut bits = vec![];
    for (precision, total, chunk) in [(Precision::Exact, 1, 512), (Precision::Standard, 8, 16)] {
        let mut route = engines(BackendChoice::Candle, precision, KvType::F16, total).await;
        bits.push(bits_of(&generate(&mut route, &prompt, chunk, 8)));
    }
    assert_eq!(bits[1], bits[0]);
}

/// Sampled tokens and the bits of their log-probabilities.
fn bits_of(outputs: &[StepOutput]) -> Vec<(TokenId, Option<u32>)> {
    let bits = |output: &StepOutput| (output.tokens[0].token, output.tokens[0].logprob.map(f32::to_bits));
    outputs.iter().map(bits).collect()
}

#[tokio::test]
async fn a_prompt_of_1500_tokens_gives_the_same_in_one_chunk_and_in_many() {
    let mut engine = engine(Precision::Exact, KvType::F16).await;
    let words = tokens(&cases("f32")[3]["prompt_tokens"]);
    let prompt: Vec<TokenId> = words.into_iter().cycle().take(1500).collect();
    let one = bits_of(&generate(&mut engine, &prompt, 1500, 8));
    for chunk in [128, 97] {
        assert_eq!(bits_of(&generate(&mut engine, &prompt, chunk, 8)), one, "chunks of {chunk}");
    }
}
