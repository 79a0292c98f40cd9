//! Messages between nodes, and the swarm's status.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llama_swarm_fuzz::{checks::wire, write_seeds};

fuzz_target!(init: write_seeds("wire"), |bytes: &[u8]| wire::check(bytes));
