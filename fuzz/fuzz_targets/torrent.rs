//! The torrent of a model.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llama_swarm_fuzz::{checks::torrent, write_seeds};

fuzz_target!(init: write_seeds("torrent"), |bytes: &[u8]| torrent::check(bytes));
