//! Parts of a hub's file, and which commit a branch is.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::any,
};
use model_hub::{
    HubAccess, HubConfig, HubError, HubFile, HubRanges, ModelRef, Token, look_up, pinned, resolve,
};

use crate::{
    hub::{COMMIT, Hub},
    model, sha256, tiny,
};

fn file(name: &str) -> HubFile {
    match model(name) {
        ModelRef::Hub(file) => file,
        other => panic!("{other} is none of a hub"),
    }
}

#[tokio::test]
async fn a_branch_is_looked_up_and_what_was_fetched_tells_its_commit() {
    let (hub, config, _home) = Hub::new(tiny()).start().await;
    let name = model("hf:owner/repo/sub/tiny.gguf@refs/pr/1");
    let state = look_up(&file("hf:owner/repo/sub/tiny.gguf@refs/pr/1"), &config).await.expect("there");
    assert_eq!(state.file, file(&format!("hf:owner/repo/sub/tiny.gguf@{COMMIT}")));
    assert_eq!((state.bytes, state.sha256), (hub.file.len() as u64, Some(sha256(&hub.file))));

    let path = resolve(&name, &config).await.expect("fetched");
    assert_eq!(pinned(&name, &path), Some(state.file.clone()));
    let offline = HubConfig { offline: true, ..config.clone() };
    let by_commit = resolve(&ModelRef::Hub(state.file), &offline).await;
    assert_eq!(by_commit.expect("it is the same file"), path);
    let error = look_up(&file("hf:owner/repo/tiny.gguf"), &offline).await.expect_err("nobody is asked");
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    let error = look_up(&file("hf:owner/repo/other.gguf"), &config).await.expect_err("there is none");
    assert!(matches!(error, HubError::NotOnHub { .. }), "{error}");
}

#[tokio::test]
async fn parts_of_a_file_come_alone_and_only_as_asked() {
    let (hub, config, _home) = Hub::new(tiny()).start().await;
    let bytes = hub.file.len() as u64;
    let ranges = |name: &str, bytes| HubRanges::new(&file(name), bytes, &config).expect("not offline");
    let whole = ranges("hf:owner/repo/tiny.gguf", bytes);
    assert_eq!(whole.read(10..500).await.expect("read"), hub.file[10..500]);
    assert_eq!(whole.read(bytes - 3..bytes).await.expect("read"), hub.file[hub.file.len() - 3..]);
    let asked: Vec<_> = hub.requests.lock().expect("sound").iter().map(|request| request.piece).collect();
    assert_eq!(asked, [Some((10, 490)), Some((hub.file.len() - 3, 3))]);

    for (name, bytes, words) in [
        ("hf:owner/whole/tiny.gguf", bytes, "answers with the whole file"),
        ("hf:owner/repo/tiny.gguf", bytes + 1, "it gives"),
    ] {
        let error = ranges(name, bytes).read(0..9).await.expect_err(name);
        assert!(matches!(error, HubError::NoRanges { .. }) && error.to_string().contains(words), "{error}");
    }
    let error = ranges("hf:owner/private/tiny.gguf", bytes).read(0..9).await.expect_err("private");
    assert!(matches!(error, HubError::Denied { .. }), "{error}");
    let error = ranges("hf:owner/busy/tiny.gguf", bytes).read(0..9).await.expect_err("busy");
    assert!(matches!(error, HubError::NoNetwork { .. }), "{error}");
}

/// Sends everybody to where the file is.
struct Front {
    place: String,
    requests: AtomicUsize,
}

async fn send_there(State(front): State<Arc<Front>>, uri: Uri, headers: HeaderMap) -> Response {
    front.requests.fetch_add(1, Relaxed);
    assert!(headers.contains_key(header::AUTHORIZATION), "the hub is told who asks");
    let place = format!("{}{}", front.place, uri.path());
    (StatusCode::FOUND, [(header::LOCATION, place)]).into_response()
}

#[tokio::test]
async fn where_the_file_is_kept_is_remembered_and_not_told_who_asks() {
    let (store, config, _home) = Hub::new(tiny()).start().await;
    let place = config.hub.endpoint.clone().expect("given");
    let front = Arc::new(Front { place, requests: AtomicUsize::new(0) });
    let router = Router::new().fallback(any(send_there)).with_state(front.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let endpoint = Some(format!("http://{}", listener.local_addr().expect("bound")));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let access = HubAccess { endpoint, token: Some(Token::new("hf_secret")), ..config.hub };
    let config = HubConfig { hub: access, ..HubConfig::default() };
    let ranges = HubRanges::new(&file("hf:owner/repo/tiny.gguf"), store.file.len() as u64, &config);
    let ranges = ranges.expect("not offline");
    for start in [0, 100, 200] {
        let read = ranges.read(start..start + 100).await.expect("read");
        assert_eq!(read, store.file[start as usize..start as usize + 100]);
    }
    assert_eq!(front.requests.load(Relaxed), 1);
    let requests = store.requests.lock().expect("sound");
    assert!(requests.len() == 3 && requests.iter().all(|request| request.authorization.is_none()));
}
