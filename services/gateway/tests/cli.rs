//! The gateway's command line.

// What fails here fails a test.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

/// Runs the gateway with a model that is not there, so that it ends in any case.
fn gateway(flags: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LLAMA_SWARM_")) {
        command.env_remove(name);
    }
    command.args(["--model", "/not/there.gguf"]).args(flags);
    command.envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn the_bound_of_generations_is_heard_by_its_name_and_by_its_old_one() {
    let (old, new) = (("LLAMA_SWARM_MAX_SESSIONS", "0"), ("LLAMA_SWARM_MAX_GENERATIONS", "0"));
    for output in [
        gateway(&["--max-generations", "0"], &[]),
        gateway(&["--max-sessions", "0"], &[]),
        gateway(&[], &[new]),
        gateway(&[], &[old]),
    ] {
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("invalid value '0' for '--max-generations <N>'"), "{told}");
    }
    for flag in ["--max-generations", "--max-sessions"] {
        let told = String::from_utf8(gateway(&[flag, "1"], &[old, new]).stderr).unwrap();
        assert!(told.contains("/not/there.gguf"), "the flag counts: {told}");
    }
}

#[test]
fn beyond_this_machine_nobody_is_let_in_by_mistake() {
    for port in ["--http-listen", "--grpc-listen"] {
        for address in ["0.0.0.0:0", "[::]:0", "10.0.0.1:8080"] {
            let told = String::from_utf8(gateway(&[port, address], &[]).stderr).unwrap();
            for part in [port, address, "--api-keys-file", "--open-gateway", "key new"] {
                assert!(told.contains(part), "{part} is not in: {told}");
            }
            // A compose file cannot leave a variable out.
            let open = gateway(&[port, address, "--open-gateway"], &[("LLAMA_SWARM_API_KEYS_FILE", "")]);
            let told = String::from_utf8([open.stdout, open.stderr].concat()).unwrap();
            assert!(told.contains("OPEN GATEWAY") && told.contains("there is no file"), "{told}");
        }
        for loopback in ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let told = String::from_utf8(gateway(&[port, loopback], &[]).stderr).unwrap();
            assert!(told.starts_with("error: there is no file"), "{told}");
        }
    }
    let told = String::from_utf8(gateway(&["--api-keys-file", "/not/there"], &[]).stderr).unwrap();
    assert!(told.contains("--api-keys-file: cannot read /not/there"), "{told}");
}

#[test]
fn what_keeps_it_from_starting_is_told_in_one_line() {
    let output = gateway(&[], &[("RUST_BACKTRACE", "1")]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.starts_with("error: there is no file /not/there.gguf"), "{told}");
}
