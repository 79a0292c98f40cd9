//! The example says how it is used. Against a swarm `tests/tests/examples.rs` runs it.

use std::process::Command;

#[test]
fn without_arguments_it_says_how_to_use_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_grpc-client")).output().expect("it starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("usage: grpc-client http://HOST:PORT QUESTION"), "{said}");
}
