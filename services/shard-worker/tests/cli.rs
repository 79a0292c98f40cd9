//! The worker's command line.

// What fails here fails a test.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn what_keeps_it_from_starting_is_told_in_one_line() {
    let mut worker = Command::new(env!("CARGO_BIN_EXE_shard-worker"));
    worker.args(["--shard-id", "0", "--model", "/not/there.gguf"]).env("RUST_BACKTRACE", "1");
    let output = worker.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.starts_with("error: there is no file /not/there.gguf"), "{told}");
}
