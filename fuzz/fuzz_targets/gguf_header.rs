//! The header of a model file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llama_swarm_fuzz::{checks::gguf_header, write_seeds};

fuzz_target!(init: write_seeds("gguf_header"), |bytes: &[u8]| gguf_header::check(bytes));
