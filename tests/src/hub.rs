//! A model hub on loopback, which counts what it gives.

use std::{
    io::{Read, Seek, SeekFrom},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::Response,
    routing::any,
};
use tokio_util::task::AbortOnDropHandle;

/// A hub with the models of one folder, at `owner/repo`; ended when dropped.
#[derive(Debug)]
pub struct Hub {
    endpoint: String,
    shelf: Arc<Shelf>,
    _server: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shelf {
    /// The one that nodes are told to use. Those beside it are there too.
    file: PathBuf,
    commit: Mutex<String>,
    sent: AtomicU64,
}

impl Hub {
    /// Gives this file, and those beside it: a model may be in several.
    ///
    /// # Errors
    /// When it is not there, or there is no port.
    pub async fn of(file: &Path) -> anyhow::Result<Self> {
        let file = file.canonicalize()?;
        let shelf = Shelf { file, commit: Mutex::new("a".repeat(40)), sent: AtomicU64::new(0) };
        let shelf = Arc::new(shelf);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let router = Router::new().fallback(any(answer)).with_state(shelf.clone());
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self { endpoint, shelf, _server: AbortOnDropHandle::new(server) })
    }

    /// What a process's environment needs to find it.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![("HF_ENDPOINT".into(), self.endpoint.clone())]
    }

    /// The model as a node is told it.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        let name = self.shelf.file.file_name().unwrap_or_default();
        format!("hf:owner/repo/{}", name.display()).into()
    }

    /// Bytes of its files that it has given, or was asked for and began to give.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shelf.sent.load(Relaxed)
    }

    /// The branch is at another commit from now on, which nobody can have.
    pub fn moves_on(&self) {
        *self.shelf.commit.lock().unwrap_or_else(PoisonError::into_inner) = "b".repeat(40);
    }
}

async fn answer(State(shelf): State<Arc<Shelf>>, request: Request) -> Response {
    let commit = shelf.commit.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let name = request.uri().path().rsplit('/').next().unwrap_or_default();
    let file = shelf.file.with_file_name(name);
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let response =
        Response::builder().header("x-repo-commit", &commit).header(header::ETAG, format!("\"{name}\""));
    let range = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
    let range = range.and_then(|range| range_of(range, bytes));
    let is_there = name.ends_with(".gguf") && bytes > 0;
    let answer = match (is_there, range) {
        (true, Some(range)) => {
            let place = format!("bytes {}-{}/{bytes}", range.start(), range.end());
            let body = read(&shelf, &file, range).map_or_else(|_| Body::empty(), Body::from);
            response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, place).body(body)
        }
        (true, None) if request.method() == Method::HEAD => {
            response.header("x-linked-size", bytes).body(Body::empty())
        }
        _ => response.status(StatusCode::NOT_FOUND).body(Body::empty()),
    };
    answer.expect("a response")
}

fn range_of(header: &str, bytes: u64) -> Option<RangeInclusive<u64>> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    Some(first.parse().ok()?..=last.parse::<u64>().ok()?.min(bytes.checked_sub(1)?))
}

fn read(shelf: &Shelf, file: &Path, range: RangeInclusive<u64>) -> std::io::Result<Vec<u8>> {
    let length = (range.end() + 1).saturating_sub(*range.start());
    shelf.sent.fetch_add(length, Relaxed);
    let mut file = std::fs::File::open(file)?;
    file.seek(SeekFrom::Start(*range.start()))?;
    let mut bytes = vec![];
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}
