//! What an operator reads: on a terminal that shows no colours or no UTF-8, and when he has mistyped something.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use swarm_tests::{llama_swarm, tiny_model};
use tempfile::TempDir;

/// What the command line writes to a terminal. `script` gives it one, and its input ends at once.
fn on_terminal(line: &str, environment: &[(&str, &str)]) -> Result<String> {
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", line, "/dev/null"]).stdin(Stdio::null());
    for name in ["NO_COLOR", "LC_ALL", "LC_CTYPE", "LANG", "RUST_LOG", "LLAMA_SWARM_LOG_FORMAT"] {
        command.env_remove(name);
    }
    let output = command.env("TERM", "xterm").envs(environment.iter().copied()).output();
    let output = output.context("no `script`: Debian has it in bsdutils")?;
    Ok(String::from_utf8(output.stdout)?)
}

/// What the command says when it fails.
fn complaint(args: &[&str]) -> Result<String> {
    let output = Command::new(llama_swarm()).args(args).stdin(Stdio::null()).output()?;
    ensure!(!output.status.success(), "it did not fail");
    Ok(String::from_utf8(output.stderr)?)
}

#[test]
fn a_log_has_colours_on_a_terminal_unless_nobody_wants_them() -> Result<()> {
    let dir = TempDir::new()?;
    let key = dir.path().join("key");
    let listen = "--listen /ip4/127.0.0.1/tcp/0 --grpc-listen 127.0.0.1:0 --exit-with-stdin";
    let line =
        format!("{} rendezvous --open-swarm {listen} --identity {}", llama_swarm().display(), key.display());
    let coloured = on_terminal(&line, &[])?;
    assert!(coloured.contains("OPEN SWARM") && coloured.contains("\u{1b}["), "{coloured:?}");
    let plain = on_terminal(&line, &[("NO_COLOR", "1")])?;
    assert!(plain.contains("OPEN SWARM") && !plain.contains("\u{1b}["), "{plain:?}");
    Ok(())
}

#[test]
fn a_terminal_without_utf_8_gets_letters_for_signs() -> Result<()> {
    let (model, dir) = (tiny_model(2)?, TempDir::new()?);
    let model = model.path();
    let here = format!("--cache-dir {} --url http://127.0.0.1:1 --addr 127.0.0.1:1", dir.path().display());
    let line =
        format!("{} doctor --model {} --total-shards 2 {here}", llama_swarm().display(), model.display());
    let signs = on_terminal(&line, &[("LC_ALL", "C.UTF-8")])?;
    assert!(signs.contains("✗ no gateway answers") && signs.contains("→ start one"), "{signs}");
    let letters = on_terminal(&line, &[("LC_ALL", "C"), ("LANG", "C.UTF-8")])?;
    assert!(letters.contains("x no gateway answers") && letters.contains("-> start one"), "{letters}");
    assert!(letters.is_ascii(), "{letters}");
    Ok(())
}

#[test]
fn an_address_may_lack_its_scheme_and_not_its_port() -> Result<()> {
    let said = complaint(&["chat", "--url", "127.0.0.1:1", "hello"])?;
    assert!(said.starts_with("error: no gateway answers at http://127.0.0.1:1"), "{said}");
    let said = complaint(&["status", "--addr", "127.0.0.1"])?;
    assert!(said.contains("127.0.0.1 has no port") && said.contains(":50050"), "{said}");
    Ok(())
}

#[test]
fn a_fault_is_told_once_and_by_whatever_program_alike() -> Result<()> {
    let (model, dir) = (tiny_model(2)?, TempDir::new()?);
    let (model, key) = (model.path().display().to_string(), dir.path().join("key").display().to_string());
    let rest = ["--open-swarm", "--identity", &key, "--grpc-listen", "127.0.0.1:0"];
    let worker = |flags: [&str; 4]| complaint(&[&["worker"][..], &flags[..], &rest[..]].concat());

    let said = worker(["--shard-id", "9", "--model", &model])?;
    assert_eq!(said.matches("shard 9 is out of range").count(), 1, "{said}");
    let text = dir.path().join("text.gguf");
    std::fs::write(&text, "this is text and nothing else")?;
    let said = worker(["--shard-id", "0", "--model", &text.display().to_string()])?;
    for once in ["text.gguf", "not a GGUF file"] {
        assert_eq!(said.matches(once).count(), 1, "{said}");
    }
    let planned = complaint(&["plan", &text.display().to_string()])?;
    assert_eq!(said.lines().last(), planned.lines().last());
    Ok(())
}
