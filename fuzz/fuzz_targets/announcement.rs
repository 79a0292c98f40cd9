//! What a worker says of a shard.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llama_swarm_fuzz::{checks::announcement, write_seeds};

fuzz_target!(init: write_seeds("announcement"), |bytes: &[u8]| announcement::check(bytes));
