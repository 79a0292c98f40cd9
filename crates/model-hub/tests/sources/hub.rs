//! Models from a hub.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::Response,
    routing::any,
};
use futures::{StreamExt, future, stream};
use gguf::{Header, tiny::TinyModel, write::split};
use model_hub::{HubAccess, HubConfig, HubError, Token, cached, files_of, resolve};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::{bytes_of, model, sha256, tiny};

/// A model hub on loopback, at `owner/repo` with one file that is called `tiny.gguf`, and more if need be.
pub(crate) struct Hub {
    pub(crate) file: Vec<u8>,
    etag: String,
    /// By how their paths end.
    more: BTreeMap<String, Vec<u8>>,
    /// What happens once, in the middle of the piece that begins there.
    fault: Mutex<Option<(usize, Fault)>>,
    hung: Notify,
    pub(crate) requests: Mutex<Vec<Request>>,
}

/// The commit that every branch of it is.
pub(crate) const COMMIT: &str = "0123456789012345678901234567890123456789";

enum Fault {
    Cut,
    Hang,
}

#[derive(Debug)]
pub(crate) struct Request {
    /// First byte that was asked for, of how many.
    pub(crate) piece: Option<(usize, usize)>,
    path: String,
    pub(crate) authorization: Option<String>,
}

impl Hub {
    pub(crate) fn new(file: Vec<u8>) -> Self {
        let etag = sha256(&file).to_string();
        let (more, fault, requests) = (BTreeMap::new(), Mutex::default(), Mutex::default());
        Self { file, etag, more, fault, hung: Notify::new(), requests }
    }

    /// The file at a path, and what the hub calls it.
    fn at(&self, path: &str) -> Option<(&[u8], String)> {
        if path.ends_with("/tiny.gguf") {
            return Some((&self.file, self.etag.clone()));
        }
        let (_, file) = self.more.iter().find(|(name, _)| path.ends_with(name.as_str()))?;
        Some((file, sha256(file).to_string()))
    }

    /// Serves until the test ends. Gives itself, and how to reach it from a fresh machine.
    pub(crate) async fn start(self) -> (Arc<Self>, HubConfig, TempDir) {
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

async fn answer(State(hub): State<Arc<Hub>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let range = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let file = hub.at(uri.path());
    let last = file.as_ref().map_or(0, |(file, _)| file.len() - 1);
    let range = range.and_then(|(start, end)| Some((start.parse().ok()?, last.min(end.parse().ok()?))));
    let authorization = text(header::AUTHORIZATION).map(Into::into);
    let piece = range.map(|(start, end)| (start, end + 1 - start));
    hub.requests.lock().expect("sound").push(Request { piece, path: uri.path().into(), authorization });

    let response = |status| Response::builder().status(status);
    let empty = |status| response(status).body(Body::empty()).expect("a response");
    match (uri.path(), range, file) {
        (path, _, _) if path.contains("/private/") => empty(StatusCode::UNAUTHORIZED),
        (path, _, _) if path.contains("/portal/") => empty(StatusCode::OK),
        // One that knows nothing of ranges, and one that is overloaded.
        (path, Some(_), _) if path.contains("/whole/") => {
            response(StatusCode::OK).body(Body::from(hub.file.clone())).expect("a response")
        }
        (path, _, _) if path.contains("/busy/") => empty(StatusCode::SERVICE_UNAVAILABLE),
        (_, None, Some((file, etag))) if method == Method::HEAD => response(StatusCode::OK)
            .header("x-repo-commit", COMMIT)
            .header("x-linked-etag", format!("\"{etag}\""))
            .header("x-linked-size", file.len())
            .body(Body::empty())
            .expect("a response"),
        (_, Some((start, end)), Some((file, etag))) => response(StatusCode::PARTIAL_CONTENT)
            .header("x-repo-commit", COMMIT)
            .header(header::ETAG, format!("\"{etag}\""))
            .header(header::CONTENT_RANGE, format!("bytes {start}-{end}/{}", file.len()))
            .body(body(&hub, file, start, end))
            .expect("a response"),
        _ => empty(StatusCode::NOT_FOUND),
    }
}

fn body(hub: &Arc<Hub>, file: &[u8], start: usize, end: usize) -> Body {
    let mut fault = hub.fault.lock().expect("sound");
    let piece = file[start..=end].to_vec();
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
        !(name == "main" || [".lock", ".part", ".unchecked"].iter().any(|end| name.ends_with(end)))
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
async fn a_file_that_nobody_has_checked_is_checked_before_it_is_used() {
    let (hub, config, home) = Hub::new(tiny()).start().await;
    let name = model("hf:owner/repo/tiny.gguf");
    let path = resolve(&name, &config).await.expect("fetched");
    // As a process leaves it that is ended when the file has its name.
    let unchecked = home.path().join("hub/.locks/models--owner--repo/tiny.gguf@main.llama-swarm.unchecked");
    assert!(!unchecked.exists());
    fs::write(&unchecked, "").expect("written");
    assert_eq!(cached(&name, &config).await.expect("looked"), None);
    assert_eq!(resolve(&name, &config).await.expect("checked"), path);
    assert!(!unchecked.exists() && hub.pieces() == [0], "it was sound: {:?}", hub.pieces());

    // A weight that came wrong: a sound file by all but its hash.
    let mut wrong = hub.file.clone();
    *wrong.last_mut().expect("bytes") ^= 1;
    fs::write(&path, wrong).expect("written");
    fs::write(&unchecked, "").expect("written");
    assert_eq!(fs::read(resolve(&name, &config).await.expect("fetched again")).expect("read"), hub.file);
    assert!(!unchecked.exists());
}

#[tokio::test]
async fn a_file_of_a_hub_that_was_damaged_later_is_fetched_again() {
    let (hub, config, _home) = Hub::new(tiny()).start().await;
    let name = model("hf:owner/repo/tiny.gguf");
    let path = resolve(&name, &config).await.expect("fetched");
    File::options().write(true).open(&path).expect("opened").set_len(2000).expect("cut");
    assert!(matches!(cached(&name, &config).await, Err(HubError::Invalid { .. })));
    assert_eq!(fs::read(resolve(&name, &config).await.expect("fetched again")).expect("read"), hub.file);
}

/// A hub with a model in three files, of which the first has the metadata alone, and their names.
fn hub_of_three() -> (Hub, [String; 3]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let whole = dir.path().join("whole.gguf");
    TinyModel::default().write(&whole).expect("written");
    let files = split(&whole, &dir.path().join("m-00001-of-00003.gguf"), &[0, 40, 0]).expect("split");
    let names = [1, 2, 3].map(|number| format!("sub/m-0000{number}-of-00003.gguf"));
    let bytes = files.iter().map(|path| fs::read(path).expect("read"));
    (Hub { more: names.iter().cloned().zip(bytes).collect(), ..Hub::new(tiny()) }, names)
}

#[tokio::test]
async fn a_model_in_several_files_is_fetched_by_any_of_them_all_of_one_commit() {
    let (hub, names) = hub_of_three();
    let (hub, config, _home) = hub.start().await;
    let name = |file: usize| model(&format!("hf:owner/repo/{}", names[file]));
    let path = resolve(&name(1), &config).await.expect("fetched");
    assert!(path.ends_with(&names[0]), "{}", path.display());
    for (path, name) in files_of(&path).await.expect("a model").iter().zip(&names) {
        assert_eq!(fs::read(path).expect("read"), hub.more[name]);
    }
    assert_eq!(Header::read_without_arrays(&path).expect("whole").files.len(), 3);
    let at = |name: &str, revision: &str| format!("/owner/repo/resolve/{revision}/{name}");
    let asked: BTreeSet<String> =
        hub.requests.lock().expect("sound").iter().map(|request| request.path.clone()).collect();
    let expected = [at(&names[0], COMMIT), at(&names[1], "main"), at(&names[2], COMMIT)];
    assert_eq!(asked, BTreeSet::from(expected), "the branch may have moved on after the first one");

    let pieces = hub.pieces().len();
    assert_eq!(resolve(&name(1), &config).await.expect("kept"), path);
    assert_eq!(hub.pieces().len(), pieces, "nothing is fetched again");
    assert_eq!(cached(&name(1), &config).await.expect("kept").as_ref(), Some(&path));
    let offline = HubConfig { offline: true, ..config.clone() };
    assert_eq!(resolve(&name(1), &offline).await.expect("kept"), path);

    fs::remove_file(path.with_file_name("m-00003-of-00003.gguf")).expect("removed");
    assert_eq!(cached(&name(1), &config).await.expect("looked"), None);
    let missing = resolve(&name(1), &offline).await.expect_err("one is missing").to_string();
    assert!(missing.contains(&names[2]), "{missing}");
    assert_eq!(resolve(&name(1), &config).await.expect("fetched again"), path);

    let third = path.with_file_name("m-00003-of-00003.gguf");
    File::options().write(true).open(&third).expect("opened").set_len(300).expect("cut");
    let damaged = cached(&name(1), &config).await.expect_err("it is cut");
    assert!(damaged.is_damage() && damaged.to_string().contains("m-00003-of-00003.gguf is not"), "{damaged}");
    assert_eq!(resolve(&name(1), &config).await.expect("fetched again"), path);
    assert_eq!(fs::read(&third).expect("read"), hub.more[&names[2]]);
}

#[tokio::test]
async fn a_file_of_several_that_the_hub_does_not_have_is_named() {
    let (mut hub, names) = hub_of_three();
    hub.more.remove(&names[2]);
    let (_hub, config, _home) = hub.start().await;
    let error =
        resolve(&model(&format!("hf:owner/repo/{}", names[0])), &config).await.expect_err("one is missing");
    assert!(matches!(&error, HubError::NotOnHub { what, .. } if what.contains(&names[2])), "{error}");
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
