//! What a device computes, here on a processor: near what ours computes, and for a row always the same, whatever comes
//! with it.

mod support;

use candle_core::quantized::GgmlDType;
use gguf::{
    Dtype,
    tiny::{TinyModel, cases},
};
use shard_engine::{BackendChoice, Engine, EngineConfig, EngineError, KvType, SlotOptions, StepResult};
use swarm_types::{Precision, SamplingParams, ShardRange, Step};

use crate::support::{Model, PROMPT, Route, ids, params, runs_on_devices, sampled, step, step_below};

/// Positions of the long session: more than the first block of a cache has.
const LONG: usize = 300;

/// One engine for each shard, on a device.
fn route(model: &Model, shards: u32) -> Route {
    model.shards_by(BackendChoice::Candle, shards)
}

/// Greedy tokens and the bits of their log-probabilities after a long prompt in chunks.
fn long_answer(route: &mut Route, chunk: usize) -> Vec<(u32, u32)> {
    let prompt: Vec<u32> = (0..LONG).map(|place| (place * 53 + place / 9) as u32 % 260).collect();
    let params = SamplingParams { top_logprobs: Some(0), ..SamplingParams::greedy() };
    route.open_with(1, &params, 320, &prompt);
    let (mut position, mut seen) = (0, vec![]);
    for tokens in prompt.chunks(chunk) {
        let output = route.run(vec![(1, step(position, tokens))]).pop().expect("an output");
        position += tokens.len() as u32;
        seen = sampled(&output);
    }
    while position < LONG as u32 + 8 {
        let token = seen[seen.len() - 1].0;
        seen.extend(sampled(&route.run(vec![(1, step(position, &[token]))])[0]));
        position += 1;
    }
    route.close(1);
    seen
}

/// Whether tokens are the same, and log-probabilities nearer than this.
fn are_near(got: &[(u32, u32)], expected: &[(u32, u32)], bound: f32, what: &str) {
    assert_eq!(got.len(), expected.len());
    for ((token, bits), (expected, expected_bits)) in got.iter().zip(expected) {
        assert_eq!(token, expected, "{what}");
        let difference = (f32::from_bits(*bits) - f32::from_bits(*expected_bits)).abs();
        assert!(difference < bound, "{what}: {difference}");
    }
}

/// The case with room for the long session.
fn longer(tiny: TinyModel) -> TinyModel {
    TinyModel { context: tiny.context.max(512), ..tiny }
}

#[test]
fn shards_and_chunks_do_not_change_a_bit_of_any_architecture() {
    for (name, tiny) in cases().into_iter().filter(|(_, tiny)| runs_on_devices(tiny)) {
        let model = Model::new(&longer(tiny));
        let expected = long_answer(&mut route(&model, 1), LONG);
        for (shards, chunk) in [(1, 1), (2, 33), (8, 254), (8, LONG)] {
            let got = long_answer(&mut route(&model, shards), chunk);
            assert_eq!(got, expected, "{name} in {shards} shards, chunks of {chunk}");
        }
        are_near(&expected, &long_answer(&mut model.shards(1), LONG), 1e-4, name);
    }
}

#[test]
fn what_is_not_computed_on_devices_is_refused_by_name() {
    let others: Vec<_> = cases().into_iter().filter(|(_, tiny)| !runs_on_devices(tiny)).collect();
    assert!(others.len() >= 3);
    for (name, tiny) in others {
        let model = Model::new(&tiny);
        let config = EngineConfig { backend: BackendChoice::Candle, ..model.whole() };
        let refused = Engine::load(config, |_| ()).expect_err(name).to_string();
        assert!(refused.contains(tiny.architecture) && refused.contains("--backend native"), "{refused}");
    }
}

#[test]
fn company_does_not_change_a_bit() {
    let mixture = cases().into_iter().find(|(name, _)| *name == "qwen2moe").expect("there").1;
    for tiny in [TinyModel::default(), mixture] {
        let mut route = route(&Model::new(&tiny), 2);
        let alone = route.generate(1, &params(), 5);
        route.open(1, &params());
        route.open(2, &params());
        let (mut seen, mut state) = (vec![], (0, PROMPT.to_vec()));
        for (round, token) in (0..12).zip([5u32, 9, 77, 140, 31, 6, 7, 201, 33, 2, 18, 90]) {
            // Of the other session sometimes more rows than a tile has.
            let tokens = vec![token; if round % 3 == 0 { 5 } else { 1 }];
            let position = (0..round).map(|round| if round % 3 == 0 { 5 } else { 1 }).sum();
            // Nothing is sampled of it, as nobody has told it these tokens.
            let other = Step { samples: 0, ..step(position, &tokens) };
            let batch = vec![(2, other), (1, step(state.0, &state.1))];
            let output = route.run(batch).pop().expect("two outputs");
            seen.extend(sampled(&output));
            state = (output.position, vec![seen[seen.len() - 1].0]);
        }
        assert_eq!(seen, alone, "{}", tiny.architecture);
    }
}

#[test]
fn blocks_and_their_numbers_give_the_same_bits_and_ours_are_near() {
    let tiny = TinyModel { layers: 2, hidden: 256, heads: 4, feed_forward: 512, ..TinyModel::default() };
    for (dtype, ggml) in [(Dtype::Q4_1, GgmlDType::Q4_1), (Dtype::Q6K, GgmlDType::Q6K)] {
        let model = Model::quantised(&tiny, dtype, ggml);
        let said = |backend, precision, kv_type| {
            let config = EngineConfig { backend, precision, kv_type, ..model.whole() };
            Route::new(vec![Engine::load(config, |_| ()).expect("loaded")]).generate(1, &params(), 5)
        };
        let (device, ours) = (BackendChoice::Candle, BackendChoice::Native);
        for kv_type in [KvType::F32, KvType::F16] {
            let exact = said(device, Precision::Exact, kv_type);
            assert_eq!(said(device, Precision::Standard, kv_type), exact, "{dtype:?} {kv_type}");
            are_near(&exact, &said(ours, Precision::Exact, kv_type), 1e-4, "exact");
            are_near(&exact, &said(ours, Precision::Standard, kv_type), 1e-3, "standard");
        }
    }
}

#[test]
fn a_slot_that_goes_back_gives_the_same_bits_again() {
    let model = Model::new(&TinyModel::default());
    let mut route = route(&model, 2);
    let expected = route.generate(1, &params(), PROMPT.len());
    route.open(1, &params());
    let mut first = sampled(&route.run(vec![(1, step(0, &PROMPT))])[0]);
    let end = PROMPT.len() as u32;
    route.tell(1, &[&PROMPT[..], &[3, 3, 7]].concat());
    for (position, token) in (end..).zip([3, 3, 7]) {
        route.run(vec![(1, step(position, &[token]))]);
    }
    route.tell(1, &[&PROMPT[..], &[first[0].0]].concat());
    for position in (end..).take(expected.len() - 1) {
        let token = first[first.len() - 1].0;
        first.extend(sampled(&route.run(vec![(1, step(position, &[token]))])[0]));
    }
    assert_eq!(first, expected);
}

#[test]
fn what_was_guessed_right_counts_as_if_it_had_been_sampled_step_by_step() {
    let mut route = route(&Model::new(&TinyModel::default()), 3);
    let expected = route.generate(1, &params(), PROMPT.len());
    let token = |place: usize| expected[place].0;
    route.open(1, &params());
    let end = PROMPT.len() as u32;
    let mut got = sampled(&route.run(vec![(1, step(0, &PROMPT))])[0]);
    let guessed = Step { samples: 4, ..step(end, &[token(0), token(1), token(2), token(3) ^ 1]) };
    got.extend(sampled(&route.run(vec![(1, guessed)])[0]).into_iter().take(3));
    let place = got.len() - 1;
    let guessed = Step { samples: 2, ..step(end + place as u32, &[token(place), token(place + 1)]) };
    got.extend(sampled(&route.run(vec![(1, guessed)])[0]));
    assert_eq!(got, expected[..6]);
}

#[test]
fn a_step_that_overflows_fails_alone_and_leaves_nothing_behind() {
    let model = Model::new(&TinyModel::default());
    let mut route = route(&model, 2);
    let expected = route.generate(1, &params(), 5);
    route.open(1, &params());
    route.open(2, &params());
    let hidden = route.engines[1].info().hidden;
    let (wrong, good) = (route.slot(1, 1), route.slot(1, 2));
    // Its squares overflow.
    let too_large = step_below(0, 3, vec![3e38; hidden * 3]);
    let batch = [(wrong, too_large), (good, step_below(0, 1, vec![0.5; hidden]))];
    let results = route.engines[1].run(&batch);
    assert!(matches!(results[0], Err(EngineError::NotFinite(_))), "{:?}", results[0]);
    assert!(matches!(results[1], Ok(StepResult::Output(_))), "{:?}", results[1]);
    let mut got = sampled(&route.run(vec![(1, step(0, &PROMPT))])[0]);
    for position in (PROMPT.len() as u32..).take(expected.len() - 1) {
        let token = got[got.len() - 1].0;
        got.extend(sampled(&route.run(vec![(1, step(position, &[token]))])[0]));
    }
    assert_eq!(got, expected);
}

#[test]
fn rows_are_summed_up_behind_the_norm_as_ours_are() {
    let model = Model::new(&TinyModel::default());
    let pooled = |mut route: Route| {
        route.open(1, &params());
        let step = Step { pools: true, samples: 0, ..step(0, &PROMPT) };
        route.run(vec![(1, step)]).pop().expect("an output").pooled
    };
    let (ours, device) = (pooled(model.shards(2)), pooled(route(&model, 2)));
    assert_eq!(ours.len(), device.len());
    assert!(ours.iter().zip(&device).all(|(ours, device)| (ours - device).abs() < 1e-4));
}

#[test]
fn types_that_candle_does_not_read_are_computed_too() {
    let model = Model::new(&TinyModel::default());
    let header = gguf::Header::read(&model.path()).expect("valid");
    let name = "blk.0.ffn_gate.weight";
    let (numbers, bytes) = Dtype::Iq4Nl.block();
    let elements: u64 = header.tensors[name].shape.iter().product();
    // Scales of 1/8 in half precision, and nibbles of all kinds.
    let block = |place: u64| {
        let nibbles = (0..bytes - 2).map(move |byte| (place * 31 + byte * 17) as u8);
        [0x00, 0x30].into_iter().chain(nibbles).collect::<Vec<u8>>()
    };
    let blocks: Vec<u8> = (0..elements / numbers).flat_map(block).collect();
    let model = model.rewritten(|tensor, info, own| match tensor == name {
        true => Some((Dtype::Iq4Nl, blocks.clone())),
        false => Some((info.dtype, own)),
    });
    let expected = model.shards(1).generate(1, &params(), 5);
    for precision in [Precision::Standard, Precision::Exact] {
        let config = EngineConfig { backend: BackendChoice::Candle, precision, ..model.whole() };
        let mut route = Route::new(vec![Engine::load(config, |_| ()).expect("loaded")]);
        are_near(&route.generate(1, &params(), 5), &expected, 1e-4, "IQ4_NL");
    }
}

#[test]
fn a_middle_shard_reads_its_own_tensors_and_its_caches_are_bounded_and_given_back() {
    let model = Model::new(&TinyModel::default());
    let config = model.config(ShardRange::new(3, 4).expect("valid"), 8);
    // One layer, two key and value heads of 16: 256 bytes a position, in blocks of 256.
    let config = EngineConfig { backend: BackendChoice::Candle, kv_bytes: 256 * 256 * 3, ..config };
    let mut engine = Engine::load(config, |_| ()).expect("loaded");
    let header = gguf::Header::read(&model.path()).expect("valid");
    let own = header.tensors.iter().filter(|(name, _)| name.starts_with("blk.3."));
    assert_eq!(engine.info().bytes_read, own.map(|(_, tensor)| tensor.bytes).sum::<u64>());
    let options = SlotOptions {
        shards: engine.info().shards,
        prompt_tokens: 1,
        max_positions: 100,
        sampling: None,
        grammar: None,
    };
    let slots: Vec<_> = (0..3).map(|_| engine.open(options.clone()).expect("there is room")).collect();
    assert!(matches!(engine.open(options.clone()), Err(EngineError::Full { needed: 65_536, free: 0, .. })));
    slots.into_iter().for_each(|slot| engine.close(slot));
    assert_eq!(engine.kv_bytes_used(), 0);
    let slot = engine.open(options).expect("there is room again");
    assert!(engine.tell(slot, ids(&[1])).is_ok());
}
