//! A row's result depends on the row alone: not on shards, chunks or company. And the result is the right one.

mod support;

use std::path::PathBuf;

use candle_core::{Device, IndexOp, Tensor, quantized::gguf_file};
use candle_transformers::models::{quantized_llama, quantized_qwen2, quantized_qwen3};
use gguf::{
    tiny::{TinyModel, cases},
    write::split,
};
use shard_engine::{Engine, EngineConfig, EngineError, SlotOptions};
use swarm_types::{SamplingParams, ShardRange, Step};

use crate::support::{Model, PROMPT, Route, ids, params, sampled, step, step_below};

fn architectures() -> [TinyModel; 4] {
    [
        TinyModel::default(),
        TinyModel { rope_factors: true, tied: false, seed: 2, ..TinyModel::default() },
        TinyModel { architecture: "qwen2", seed: 3, ..TinyModel::default() },
        TinyModel { architecture: "qwen3", tied: false, seed: 4, ..TinyModel::default() },
    ]
}

/// A prompt that is longer than the windows of tiny models.
fn long_prompt() -> Vec<u32> {
    (0..75).map(|place| (place * 53 + place / 9) % 260).collect()
}

/// Tokens and bits after the long prompt in chunks.
fn long_answer(route: &mut Route, session: u32, chunk: usize) -> Vec<(u32, u32)> {
    let prompt = long_prompt();
    route.open_with(session, &params(), 100, &prompt);
    let (mut position, mut seen) = (0, vec![]);
    for tokens in prompt.chunks(chunk) {
        let output = route.run(vec![(session, step(position, tokens))]).pop().expect("an output");
        position += tokens.len() as u32;
        seen = sampled(&output);
    }
    while position < 85 {
        let token = seen[seen.len() - 1].0;
        seen.extend(sampled(&route.run(vec![(session, step(position, &[token]))])[0]));
        position += 1;
    }
    route.close(session);
    seen
}

#[test]
fn shards_chunks_and_threads_do_not_change_a_bit_of_any_architecture() {
    for (name, tiny) in cases() {
        let model = Model::new(&tiny);
        let expected = long_answer(&mut model.shards(1), 1, 75);
        for (shards, chunk) in [(1, 1), (1, 33), (2, 64), (8, 20)] {
            let got = long_answer(&mut model.shards(shards), 1, chunk);
            assert_eq!(got, expected, "{name} in {shards} shards, chunks of {chunk}");
        }
        let threads = EngineConfig { threads: 2, threads_batch: 3, ..model.whole() };
        let mut route = Route::new(vec![Engine::load(threads, |_| ()).expect("loaded")]);
        assert_eq!(
            long_answer(&mut route, 1, 41),
            expected,
            "{name} with two threads, and three for many rows"
        );
    }
}

#[test]
fn company_does_not_change_a_bit_of_a_mixture_of_experts() {
    for (name, tiny) in cases().into_iter().filter(|(_, tiny)| tiny.experts > 0) {
        let mut route = Model::new(&tiny).shards(2);
        let alone = route.generate(1, &params(), 5);
        route.open(1, &params());
        route.open(2, &params());
        let (mut seen, mut state) = (vec![], (0, PROMPT.to_vec()));
        for (position, token) in (0..12).zip([5u32, 9, 77, 140, 31, 6, 7, 201, 33, 2, 18, 90]) {
            // Another session of which each row chooses for itself.
            let other = (2, step(position, &[token]));
            let batch = vec![other, (1, step(state.0, &state.1))];
            let output = route.run(batch).pop().expect("two outputs");
            seen.extend(sampled(&output));
            state = (output.position, vec![seen[seen.len() - 1].0]);
        }
        assert_eq!(seen, alone, "{name}");
    }
}

#[test]
fn shards_and_chunks_do_not_change_a_bit() {
    for tiny in architectures() {
        let model = Model::new(&tiny);
        let expected = model.shards(1).generate(1, &params(), PROMPT.len());
        for (shards, chunk) in [(1, 1), (1, 7), (2, 4), (3, 13), (8, 5)] {
            let got = model.shards(shards).generate(1, &params(), chunk);
            assert_eq!(got, expected, "{} in {shards} shards, chunks of {chunk}", tiny.architecture);
        }
    }
}

#[test]
fn company_does_not_change_a_bit() {
    let model = Model::new(&TinyModel::default());
    let mut route = model.shards(2);
    let seeds: Vec<SamplingParams> = (0..7).map(|seed| SamplingParams { seed, ..params() }).collect();
    let alone: Vec<_> = seeds.iter().map(|p| route.generate(1, p, 5)).collect();

    let ids: Vec<u32> = (10..17).collect();
    ids.iter().zip(&seeds).for_each(|(id, params)| route.open(*id, params));
    // The sessions start one after the other, so that prompts and single tokens meet in one batch.
    let mut states: Vec<(u32, Vec<u32>)> = ids.iter().map(|_| (0, PROMPT.to_vec())).collect();
    let mut seen = vec![vec![]; ids.len()];
    for round in 0..18 {
        let active: Vec<usize> = (0..ids.len()).filter(|n| *n <= round && seen[*n].len() < 12).collect();
        let batch = active.iter().map(|n| (ids[*n], step(states[*n].0, &states[*n].1))).collect();
        for (n, output) in active.iter().zip(route.run(batch)) {
            let (token, bits) = sampled(&output).pop().expect("sampled");
            seen[*n].push((token, bits));
            states[*n] = (output.position, vec![token]);
        }
    }
    assert_eq!(seen, alone);
}

#[test]
fn more_shards_than_layers_do_not_change_a_bit() {
    let model = Model::new(&TinyModel { layers: 5, ..TinyModel::default() });
    let expected = model.shards(1).generate(1, &params(), 13);
    assert_eq!(model.shards(8).generate(1, &params(), 4), expected);
    let part = |start, end| {
        let shards = ShardRange::new(start, end).expect("valid");
        Engine::load(model.config(shards, 8), |_| ()).expect("loaded")
    };
    // Shards 5 to 7 have no layers; only the last of them samples.
    let mut route = Route::new(vec![part(0, 5), part(5, 7), part(7, 8)]);
    assert_eq!(route.generate(1, &params(), 7), expected);
    assert_eq!((route.engines[1].info().weight_bytes, route.engines[1].info().bytes_read), (0, 0));
    let mut route = Route::new(vec![part(0, 4), part(4, 8)]);
    assert_eq!(route.generate(1, &params(), 1), expected);
}

#[test]
fn a_model_in_several_files_gives_the_same_bits_and_reads_the_same_bytes() {
    let model = Model::new(&TinyModel { rope_factors: true, tied: false, ..TinyModel::default() });
    let run = |model: PathBuf, config: EngineConfig| {
        let engine = Engine::load(EngineConfig { model, ..config }, |_| ()).expect("loaded");
        let read = engine.info().bytes_read;
        (Route::new(vec![engine]).generate(1, &params(), 5), read)
    };
    let expected = run(model.path(), model.whole());
    for tensors in [[0, 30, 0], [20, 1, 0]] {
        let first = model.dir.path().join("m-00001-of-00003.gguf");
        let files = split(&model.path(), &first, &tensors).expect("split");
        assert_eq!(run(first, model.whole()), expected, "{tensors:?}");
        std::fs::remove_file(&files[1]).expect("removed");
        let error = Engine::load(EngineConfig { model: files[0].clone(), ..model.whole() }, |_| ());
        assert!(error.expect_err("refused").to_string().contains("m-00002-of-00003.gguf is not there"));
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let model = Model::new(&TinyModel { hidden: 128, heads: 4, ..TinyModel::default() });
    let run = |threads, chunk| {
        let config = EngineConfig { threads, ..model.whole() };
        Route::new(vec![Engine::load(config, |_| ()).expect("loaded")]).generate(1, &params(), chunk)
    };
    assert_eq!(run(3, 13), run(1, 4));
}

/// The greedy continuation and the last logits' log-probabilities by candle's own implementation.
fn reference(model: &Model, architecture: &str, tokens: &[u32]) -> Vec<f32> {
    let mut file = std::fs::File::open(model.path()).expect("opened");
    let content = gguf_file::Content::read(&mut file).expect("read");
    let input = Tensor::new(tokens, &Device::Cpu).and_then(|t| t.unsqueeze(0)).expect("a tensor");
    let logits = match architecture {
        "llama" => quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)
            .and_then(|mut model| model.forward(&input, 0)),
        "qwen2" => quantized_qwen2::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)
            .and_then(|mut model| model.forward(&input, 0)),
        _ => quantized_qwen3::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)
            .and_then(|mut model| model.forward(&input, 0)),
    };
    let logits = logits.expect("computed");
    let logits = if logits.rank() == 3 {
        logits.i((.., logits.dim(1).expect("three") - 1)).expect("there")
    } else {
        logits
    };
    candle_nn_log_softmax(&logits.flatten_all().and_then(|l| l.to_vec1()).expect("numbers"))
}

fn candle_nn_log_softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|l| (l - largest).exp()).sum();
    logits.iter().map(|l| l - largest - sum.ln()).collect()
}

#[test]
fn log_probabilities_equal_those_of_candles_own_models() {
    for tiny in architectures().into_iter().filter(|tiny| !tiny.rope_factors) {
        let model = Model::new(&tiny);
        let expected = reference(&model, tiny.architecture, &PROMPT);
        let mut route = model.shards(8);
        let greedy = SamplingParams { top_logprobs: Some(20), ..SamplingParams::greedy() };
        route.open(1, &greedy);
        let output = route.run(vec![(1, step(0, &PROMPT))]).pop().expect("an output");
        let top = &output.tokens[0].top;
        assert_eq!(top.len(), 20);
        for top in top {
            let reference = expected[top.token.0 as usize];
            assert!((top.logprob - reference).abs() < 1e-3, "{}: {top:?} for {reference}", tiny.architecture);
        }
    }
}

#[test]
fn targets_are_scored_in_any_chunks() {
    let model = Model::new(&TinyModel::default());
    let scores = |chunk: usize| {
        let mut route = model.shards(2);
        route.open(1, &params());
        let (mut scores, mut position) = (vec![], 0);
        for tokens in PROMPT.chunks(chunk) {
            let scored = tokens.len().min(PROMPT.len() - 1 - position) as u32;
            let step = Step { scores: scored, ..step(position as u32, tokens) };
            scores.extend(route.run(vec![(1, step)]).pop().expect("an output").scores);
            position += tokens.len();
        }
        scores
    };
    assert_eq!(scores(13).len(), 12);
    assert_eq!(scores(13), scores(4));
    assert_eq!(scores(13)[0].target.token, ids(&PROMPT)[1]);
}

#[test]
fn a_middle_shard_reads_its_own_tensors_and_nothing_else() {
    let model = Model::new(&TinyModel::default());
    let engine =
        Engine::load(model.config(ShardRange::new(3, 4).expect("valid"), 8), |_| ()).expect("loaded");
    let header = gguf::Header::read(&model.path()).expect("valid");
    let own = header.tensors.iter().filter(|(name, _)| name.starts_with("blk.3."));
    assert_eq!(engine.info().bytes_read, own.map(|(_, tensor)| tensor.bytes).sum::<u64>());
}

#[test]
fn the_cache_is_bounded_and_given_back() {
    let model = Model::new(&TinyModel::default());
    let config = model.config(ShardRange::new(0, 1).expect("valid"), 8);
    // One layer, two key and value heads of 16: 256 bytes a position, in pages of 64.
    let mut engine = Engine::load(EngineConfig { kv_bytes: 256 * 192, ..config }, |_| ()).expect("loaded");
    let options = SlotOptions {
        shards: engine.info().shards,
        prompt_tokens: 1,
        max_positions: 100,
        sampling: None,
        grammar: None,
    };
    let slot = engine.open(options.clone()).expect("there is room");
    let refused = engine.open(options.clone());
    assert!(matches!(refused, Err(EngineError::Full { needed: 32_768, free: 16_384, .. })), "{refused:?}");
    let (slot, position) = engine.take_over(slot).expect("open");
    assert_eq!((position, engine.slots(), engine.kv_bytes_used()), (0, 1, 32_768), "the same cache");
    engine.close(slot);
    engine.close(slot);
    assert_eq!((engine.slots(), engine.kv_bytes_used()), (0, 0));
    engine.open(options).expect("there is room again");
}

#[test]
fn a_slot_that_goes_back_gives_the_same_bits_again() {
    let model = Model::new(&TinyModel::default());
    let mut route = model.shards(2);
    let expected = route.generate(1, &params(), PROMPT.len());
    route.open(1, &params());
    let mut first = sampled(&route.run(vec![(1, step(0, &PROMPT))])[0]);
    let end = PROMPT.len() as u32;
    // Other tokens than the first time, then back to where the prompt ends.
    route.tell(1, &[&PROMPT[..], &[3, 3, 7]].concat());
    for (position, token) in (end..).zip([3, 3, 7]) {
        route.run(vec![(1, step(position, &[token]))]);
    }
    route.tell(1, &[&PROMPT[..], &[first[0].0]].concat());
    for position in (end..).take(expected.len() - 1) {
        let token = first[first.len() - 1].0;
        first.extend(sampled(&route.run(vec![(1, step(position, &[token]))])[0]));
    }
    assert_eq!(first, expected, "penalties have forgotten the other tokens too");
}

#[test]
fn tokens_of_several_rows_are_those_of_one_row_after_the_other() {
    let model = Model::new(&TinyModel::default());
    let mut route = model.shards(3);
    route.open(1, &params());
    let mut alone = vec![];
    for (position, token) in (0..).zip(&PROMPT) {
        alone.extend(sampled(&route.run(vec![(1, step(position, &[*token]))])[0]));
    }
    route.close(1);
    for samples in [0, 1, 2, PROMPT.len()] {
        route.open(1, &params());
        let step = Step { samples: samples as u32, ..step(0, &PROMPT) };
        let output = &route.run(vec![(1, step)])[0];
        assert_eq!(sampled(output), alone[PROMPT.len() - samples..], "the last {samples} rows");
        route.close(1);
    }
}

#[test]
fn what_was_guessed_right_counts_as_if_it_had_been_sampled_step_by_step() {
    let model = Model::new(&TinyModel::default());
    let mut route = model.shards(3);
    let expected = route.generate(1, &params(), PROMPT.len());
    let token = |place: usize| expected[place].0;
    route.open(1, &params());
    let end = PROMPT.len() as u32;
    let mut got = sampled(&route.run(vec![(1, step(0, &PROMPT))])[0]);
    // Nobody tells the last shard the guesses. The third is wrong: what is sampled behind it counts for nothing.
    let guessed = Step { samples: 4, ..step(end, &[token(0), token(1), token(2), token(3) ^ 1]) };
    got.extend(sampled(&route.run(vec![(1, guessed)])[0]).into_iter().take(3));
    let place = got.len() - 1;
    let guessed = Step { samples: 2, ..step(end + place as u32, &[token(place), token(place + 1)]) };
    got.extend(sampled(&route.run(vec![(1, guessed)])[0]));
    assert_eq!(got, expected[..got.len()]);
    assert_eq!(got.len(), 6);
}

#[test]
fn what_the_last_shard_was_not_told_it_says() {
    let model = Model::new(&TinyModel::default());
    let mut route = model.shards(2);
    route.open(1, &params());
    let hidden = route.engines[1].info().hidden;
    let rows = |rows: usize| step_below(0, rows, vec![0.5; hidden * rows]);
    let slot = route.slot(1, 1);
    let engine = &mut route.engines[1];
    let refused = |engine: &mut Engine, step: Step| match engine.run(&[(slot, step)]).pop() {
        Some(Err(EngineError::Invalid { field, reason })) => format!("{field}: {reason}"),
        other => panic!("{other:?}"),
    };
    engine.tell(slot, ids(&[1, 2])).expect("told");
    let wrong = refused(engine, rows(3));
    assert_eq!(wrong, "samples: the token at 2 was not told or sampled");
    let scored = Step { scores: 2, samples: 0, ..rows(2) };
    assert_eq!(refused(engine, scored.clone()), "scores: the token at 2 was not told");
    assert!(engine.run(&[(slot, Step { scores: 1, samples: 1, ..rows(2) })])[0].is_ok());
    assert_eq!(refused(engine, scored), "scores: the token at 2 was not told", "it was sampled");
    for (tokens, field) in [(vec![1; 101], "tokens"), (vec![9999], "tokens")] {
        match engine.tell(slot, ids(&tokens)) {
            Err(EngineError::Invalid { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_has_the_old_key_of_a_slot_can_do_nothing_any_more() {
    let model = Model::new(&TinyModel::default());
    let mut engine = Engine::load(model.whole(), |_| ()).expect("loaded");
    let shards = engine.info().shards;
    let options =
        SlotOptions { shards, prompt_tokens: 2, max_positions: 9, sampling: Some(params()), grammar: None };
    let old = engine.open(options).expect("opened");
    engine.tell(old, ids(&[1, 2])).expect("told");
    engine.run(&[(old, step(0, &[1, 2]))]).pop().expect("one").expect("computed");
    let (new, position) = engine.take_over(old).expect("open");
    assert_eq!(position, 2);
    let results = engine.run(&[(old, step(2, &[9])), (new, step(2, &[3]))]);
    assert!(matches!(results[0], Err(EngineError::UnknownSlot)), "{:?}", results[0]);
    assert!(results[1].is_ok(), "{:?}", results[1]);
    assert!(matches!(engine.take_over(old), Err(EngineError::UnknownSlot)));
    engine.close(old);
    assert_eq!(engine.position(new), Some(3));
}

#[test]
fn wrong_steps_are_refused_by_field_and_leave_others_alone() {
    let model = Model::new(&TinyModel::default());
    let mut route = model.shards(2);
    route.open(1, &params());
    route.open(2, &params());
    let hidden = route.engines[1].info().hidden;
    let good = |position| step_below(position, 1, vec![0.5; hidden]);
    let wrong = [
        ("position", Step { position: 5, ..good(0) }),
        ("position", step_below(0, 101, vec![0.5; hidden * 101])),
        ("rows", step_below(0, 0, vec![])),
        ("tokens", step(0, &[1])),
        ("activations", step_below(0, 1, vec![0.5; hidden - 1])),
        ("activations", step_below(0, 2, vec![0.5; hidden])),
        ("activations", step_below(0, 1, vec![f32::NAN; hidden])),
        ("activations", step_below(0, 1, vec![f32::INFINITY; hidden])),
        ("scores", Step { scores: 2, ..good(0) }),
        ("samples", Step { samples: 2, ..good(0) }),
    ];
    for (place, (field, step)) in wrong.into_iter().enumerate() {
        let position = place as u32;
        let (first, second) = (route.slot(1, 1), route.slot(1, 2));
        let mut results = route.engines[1].run(&[(first, step), (second, good(position))]);
        assert!(results.pop().expect("two").is_ok());
        match results.pop().expect("two") {
            Err(EngineError::Invalid { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field} was not refused: {other:?}"),
        }
    }
    let (slot, closed) = (route.slot(1, 1), route.slot(1, 2));
    route.engines[1].close(closed);
    let twice = route.engines[1].run(&[(slot, good(0)), (slot, good(1)), (closed, good(0))]);
    assert!(twice[0].is_ok());
    assert!(matches!(twice[1], Err(EngineError::UnknownSlot)), "one step of a slot in a batch");
    assert!(matches!(twice[2], Err(EngineError::UnknownSlot)));
}
