//! A step of few rows takes no memory on its way through the layers: what it takes is the same however many there are.

#![allow(unsafe_code)]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use gguf::tiny::TinyModel;
use shard_engine::{Engine, KvType, Slot, SlotOptions};
use swarm_types::{Precision, SamplingParams, Step};

use crate::support::{Model, PROMPT, step};

/// Counts what a thread allocates.
struct Counting;

thread_local!(static ALLOCATIONS: Cell<u64> = const { Cell::new(0) });

// SAFETY: the system's allocator does it all; counting neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, and so from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often steps of this many sessions, each of one row, allocate in a model of so many layers: in one step that is
/// not the first.
fn allocations(layers: u32, sessions: usize, precision: Precision, kv_type: KvType) -> u64 {
    let model = Model::new(&TinyModel { layers, ..TinyModel::default() });
    let config = shard_engine::EngineConfig { precision, kv_type, threads: 1, ..model.whole() };
    let mut engine = Engine::load(config, |_| ()).expect("loaded");
    let options = SlotOptions {
        shards: engine.info().shards,
        prompt_tokens: PROMPT.len() as u32,
        max_positions: 60,
        sampling: Some(SamplingParams::greedy()),
        grammar: None,
    };
    let slots: Vec<Slot> = (0..sessions).map(|_| engine.open(options.clone()).expect("opened")).collect();
    let mut run = |position: u32, tokens: &[u32]| {
        let batch: Vec<(Slot, Step)> = slots.iter().map(|slot| (*slot, step(position, tokens))).collect();
        let before = ALLOCATIONS.get();
        let results = engine.run(&batch);
        let count = ALLOCATIONS.get() - before;
        assert!(results.iter().all(Result::is_ok));
        count
    };
    run(0, &PROMPT);
    let first = PROMPT.len() as u32;
    (first..first + 4).for_each(|position| _ = run(position, &[7]));
    run(first + 4, &[7])
}

#[test]
fn layers_allocate_nothing_in_a_step_of_few_rows() {
    for precision in [Precision::Standard, Precision::Exact] {
        for (sessions, kv_type) in [(1, KvType::F16), (1, KvType::F32), (7, KvType::F16)] {
            let [few, many] = [2, 9].map(|layers| allocations(layers, sessions, precision, kv_type));
            assert!(few > 0, "allocations are counted");
            assert_eq!(few, many, "{precision} {kv_type:?}, sessions: {sessions}");
        }
    }
}
