//! The command as a shell sees it: help, exit codes, errors. Whole swarms are tested in `swarm-tests`, which runs the
//! binary that these tests make cargo build.

use std::process::{Command, Output, Stdio};

fn llama_swarm(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llama-swarm"));
    command.args(args).stdin(Stdio::null()).output().expect("the binary was built for this test")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A port on loopback where nobody listens.
fn silent_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

const COMMANDS: [&str; 9] =
    ["up", "worker", "rendezvous", "gateway", "identity", "status", "chat", "doctor", "bench"];

#[test]
fn every_sub_command_explains_itself() {
    let all = llama_swarm(&["--help"]);
    let all = String::from_utf8_lossy(&all.stdout).into_owned();
    for command in COMMANDS {
        assert!(all.contains(&format!("\n  {command} ")), "{command} is not in:\n{all}");
        let help = llama_swarm(&[command, "--help"]);
        assert!(help.status.success(), "{command}: {}", stderr(&help));
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(!help.contains("--exit-with-stdin"), "an internal flag is shown by {command}");
    }
}

#[test]
fn without_a_node_the_commands_say_where_they_looked_and_what_to_do() {
    let address = silent_address();
    let url = format!("http://{address}");
    for args in [["status", "--addr", &address], ["bench", "--addr", &address]] {
        let output = llama_swarm(&args);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(&address), "{}", stderr(&output));
        assert!(stderr(&output).contains("llama-swarm up"), "{}", stderr(&output));
    }
    let chat = llama_swarm(&["chat", "--url", &url, "hello"]);
    assert_eq!(chat.status.code(), Some(1));
    assert!(stderr(&chat).contains(&format!("no gateway answers at {url}")), "{}", stderr(&chat));
}

#[test]
fn up_refuses_a_model_that_is_not_there_before_it_starts_anything() {
    let output = llama_swarm(&["up", "--model", "/nowhere/model.gguf", "--prompt", "hello"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nowhere/model.gguf"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("Starting"), "{}", stderr(&output));
}

#[test]
fn what_keeps_a_service_from_starting_is_told_in_one_line() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llama-swarm"));
    command.args(["gateway", "--model", "/nowhere/model.gguf"]).env("RUST_BACKTRACE", "1");
    let output = command.output().expect("the binary was built for this test");
    assert_eq!((output.status.code(), stderr(&output).lines().count()), (Some(1), 1), "{}", stderr(&output));
    assert!(stderr(&output).starts_with("error: there is no file"), "{}", stderr(&output));
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_key_is_made_once_and_tells_whose_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("node.key");
    let path = path.to_str().expect("text");
    let made = llama_swarm(&["identity", "new", path]);
    assert!(made.status.success() && stdout(&made).starts_with("12D3KooW"), "{}", stderr(&made));
    assert_eq!(stdout(&llama_swarm(&["identity", "show", path])), stdout(&made));
    let key = std::fs::read(path).expect("it was made");
    let again = llama_swarm(&["identity", "new", path]);
    assert_eq!((again.status.code(), stderr(&again).lines().count()), (Some(1), 1), "{}", stderr(&again));
    assert_eq!(std::fs::read(path).expect("it is there"), key, "not replaced");
}
