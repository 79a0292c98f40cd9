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

const COMMANDS: [&str; 19] = [
    "up",
    "worker",
    "rendezvous",
    "gateway",
    "share",
    "pull",
    "list",
    "rm",
    "torrent",
    "secret",
    "invite",
    "identity",
    "key",
    "status",
    "chat",
    "doctor",
    "plan",
    "bench",
    "completions",
];

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
fn completions_know_every_sub_command_and_its_flags() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = llama_swarm(&["completions", shell]);
        assert!(output.status.success(), "{shell}: {}", stderr(&output));
        let script = String::from_utf8_lossy(&output.stdout);
        for word in COMMANDS.iter().chain(&["shard-id"]) {
            assert!(script.contains(word), "{shell}: {word} is not in:\n{script}");
        }
    }
    let unknown = llama_swarm(&["completions", "no-such-shell"]);
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn every_sub_command_has_a_man_page_that_is_the_same_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str| {
        let pages = folder.path().join(name);
        let output = llama_swarm(&["man", pages.to_str().expect("text")]);
        assert!(output.status.success(), "{}", stderr(&output));
        pages
    };
    let (once, twice) = (write("once"), write("twice"));
    let names = COMMANDS.map(|command| format!("llama-swarm-{command}"));
    for name in names.iter().map(String::as_str).chain(["llama-swarm", "llama-swarm-key-new"]) {
        let read =
            |pages: &std::path::Path| std::fs::read_to_string(pages.join(format!("{name}.1"))).expect(name);
        let page = read(&once);
        let title = format!(".TH {name} 1 \"\" \"llama-swarm {}\"", env!("CARGO_PKG_VERSION"));
        assert!(page.contains(&title), "{page}");
        assert!(!page.contains("stdin"), "an internal flag is shown by {name}");
        assert_eq!(page, read(&twice));
    }
    assert!(!once.join("llama-swarm-man.1").exists() && !once.join("llama-swarm-key-help.1").exists());
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

/// Texts of paths in a folder.
fn paths<const N: usize>(folder: &tempfile::TempDir, names: [&str; N]) -> [String; N] {
    names.map(|name| folder.path().join(name).to_str().expect("text").to_owned())
}

fn is_secret(text: &str) -> bool {
    let digits = text.strip_suffix('\n').unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[test]
fn a_secret_is_made_once_for_its_owner_or_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let [path] = paths(&folder, ["swarm.secret"]);
    let made = llama_swarm(&["secret", "new", &path]);
    assert!(made.status.success() && stdout(&made).is_empty(), "{}", stderr(&made));
    let secret = std::fs::read_to_string(&path).expect("it was made");
    assert!(is_secret(&secret));
    let again = llama_swarm(&["secret", "new", &path]);
    assert_eq!((again.status.code(), stderr(&again).lines().count()), (Some(1), 1), "{}", stderr(&again));
    assert!(llama_swarm(&["secret", "new", "--if-missing", &path]).status.success());
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), secret, "not replaced");
    let printed = stdout(&llama_swarm(&["secret", "new", "-"]));
    assert!(is_secret(&printed) && printed != secret, "another one each time");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn an_invitation_names_the_node_and_makes_what_a_new_swarm_lacks() {
    let folder = tempfile::tempdir().expect("a folder");
    let [secret, key, out, other] = paths(&folder, ["swarm.secret", "rendezvous.key", "invitation", "other"]);
    let invite =
        |more: &[&str]| llama_swarm(&[&["invite", "--address", "rendezvous.lan:4001"], more].concat());
    let made = invite(&["--secret-file", &secret, "--identity", &key]);
    assert!(made.status.success(), "{}", stderr(&made));
    let id = stdout(&llama_swarm(&["identity", "show", &key]));
    let words = std::fs::read_to_string(&secret).expect("it was made");
    let line = format!("lsw1:/dns/rendezvous.lan/udp/4001/quic-v1/p2p/{}:{words}", id.trim());
    assert_eq!(stdout(&made), line);
    let written = invite(&["--secret-file", &secret, "--peer-id", id.trim(), "--out", &out]);
    assert!(written.status.success() && stdout(&written).is_empty(), "{}", stderr(&written));
    assert_eq!(std::fs::read_to_string(&out).expect("it was written"), line);
    let refused = [
        (vec!["--secret-file", &other, "--identity", &key], "other"),
        (vec!["--secret-file", &secret, "--peer-id", id.trim(), "--out", &out], "--out"),
        (vec!["--secret-file", &secret, "--addr", "127.0.0.1:1"], "--identity"),
    ];
    for (arguments, named) in refused {
        let output = invite(&arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(named), "{}", stderr(&output));
        assert!(!stderr(&output).contains(&words[..16]), "the secret is told to nobody");
    }
    assert!(!std::path::Path::new(&other).exists(), "a node that is there has another secret already");
}

#[test]
fn the_cache_is_listed_and_what_is_not_in_it_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let [cache, home] = paths(&folder, ["cache", "hf"]);
    let llama_swarm = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llama-swarm"));
        let command = command.args(args).args(["--cache-dir", &cache]).env("HF_HOME", &home);
        command.output().expect("the binary was built for this test")
    };
    let empty = llama_swarm(&["list"]);
    assert!(stdout(&empty).contains("`llama-swarm pull MODEL`"), "{}", stderr(&empty));
    assert_eq!(stdout(&llama_swarm(&["list", "--json"])), "[]\n");
    let unknown = llama_swarm(&["rm", "abcdef"]);
    assert_eq!(
        (unknown.status.code(), stderr(&unknown).lines().count()),
        (Some(1), 1),
        "{}",
        stderr(&unknown)
    );
    assert!(stderr(&unknown).contains("`llama-swarm list`"), "{}", stderr(&unknown));
}
