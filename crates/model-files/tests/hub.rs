//! Nodes of a swarm that were told to have their model from a hub. The nodes are real, the hub is on loopback.
// What fails here fails a test.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::Response,
    routing::any,
};
use futures::future::join_all;
use gguf::tiny::TinyModel;
use model_files::{Model, Sharing, SharingConfig};
use model_hub::{HubAccess, HubConfig, ModelRef};
use swarm_net::{Identity, NetConfig, Role, SwarmNet, peer_server};
use tempfile::TempDir;
use tokio::{task::AbortHandle, time::timeout};

/// Nothing here takes this long, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const NAME: &str = "hf:owner/repo/model.gguf";

/// A hub with one file.
struct Hub {
    endpoint: String,
    shelf: Arc<Shelf>,
}

struct Shelf {
    file: Vec<u8>,
    commit: Mutex<String>,
    sent: AtomicU64,
}

impl Hub {
    async fn of_a_model() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = TinyModel { layers: 2, hidden: 512, feed_forward: 1536, ..TinyModel::default() };
        model.write(&dir.path().join("model.gguf")).unwrap();
        let file = std::fs::read(dir.path().join("model.gguf")).unwrap();
        let shelf = Arc::new(Shelf { file, commit: Mutex::new("a".repeat(40)), sent: AtomicU64::new(0) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(any(answer)).with_state(shelf.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { endpoint, shelf }
    }

    fn bytes(&self) -> u64 {
        self.shelf.file.len() as u64
    }

    /// Of the file, since this was asked last.
    fn sent(&self) -> u64 {
        self.shelf.sent.swap(0, Relaxed)
    }

    fn is_at(&self, commit: &str) {
        *self.shelf.commit.lock().unwrap() = commit.to_owned();
    }
}

async fn answer(State(shelf): State<Arc<Shelf>>, request: Request) -> Response {
    let commit = shelf.commit.lock().unwrap().clone();
    let response = Response::builder().header("x-repo-commit", commit).header(header::ETAG, "\"file\"");
    let range = request.headers().get(header::RANGE).map(|range| range.to_str().unwrap().to_owned());
    let range = range.and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?.min(shelf.file.len() - 1)))
    });
    match range {
        Some((first, last)) => {
            let bytes = shelf.file[first..=last].to_vec();
            shelf.sent.fetch_add(bytes.len() as u64, Relaxed);
            let place = format!("bytes {first}-{last}/{}", shelf.file.len());
            let response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, place);
            response.body(Body::from(bytes)).unwrap()
        }
        None if request.method() == Method::HEAD => {
            response.header("x-linked-size", shelf.file.len()).body(Body::empty()).unwrap()
        }
        None => response.status(StatusCode::NOT_FOUND).body(Body::empty()).unwrap(),
    }
}

/// A node with nothing on its machine.
struct Node {
    net: SwarmNet,
    sharing: Sharing,
    hub: HubConfig,
    server: AbortHandle,
    _dir: TempDir,
}

impl Node {
    async fn start(hub: &Hub, entry: Option<&Node>) -> Self {
        let config = NetConfig {
            cluster: "test".into(),
            listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into(), "/ip4/127.0.0.1/tcp/0".into()],
            rendezvous: entry.map(|entry| entry.net.addresses().remove(0)).into_iter().collect(),
            total_shards: 2,
            ..NetConfig::default()
        };
        let (net, peers) = SwarmNet::bind(config, Role::Worker, Identity::ephemeral()).await.unwrap();
        let serve = peer_server().add_service(net.peer_service()).serve_with_incoming(peers);
        let server = tokio::spawn(async { drop(serve.await) }).abort_handle();
        let (sharing, dir) =
            (Sharing::start(&net, &SharingConfig::default()).unwrap(), tempfile::tempdir().unwrap());
        let (home, endpoint) = (Some(dir.path().join("home")), Some(hub.endpoint.clone()));
        let access = HubAccess { endpoint, home, token: None };
        let hub =
            HubConfig { cache_dir: Some(dir.path().join("cache")), hub: access, ..HubConfig::default() };
        Self { net, sharing, hub, server, _dir: dir }
    }

    async fn open(&self, name: &str) -> Model {
        let model: ModelRef = name.parse().unwrap();
        timeout(PATIENCE, self.sharing.open(&model, &self.hub)).await.expect("in time").unwrap()
    }

    /// Takes these bytes of the file, and gives them.
    async fn take(&self, model: &Model, range: std::ops::Range<u64>) -> Vec<u8> {
        if let Some(parts) = model.parts() {
            timeout(PATIENCE, parts.need(vec![range.clone()])).await.expect("in time").unwrap();
        }
        std::fs::read(model.path()).unwrap()[range.start as usize..range.end as usize].to_vec()
    }

    async fn leave(self) {
        self.net.leave().await;
        self.server.abort();
    }
}

fn source_of(path: &Path) -> String {
    std::fs::read_to_string(path.parent().unwrap().join("source")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_fetches_all_of_a_file_and_later_the_hub_fills_the_gaps() {
    let hub = Hub::of_a_model().await;
    let entry = Node::start(&hub, None).await;
    let mut nodes = join_all((0..4).map(|_| Node::start(&hub, Some(&entry)))).await;
    let mut models = join_all(nodes.iter().map(|node| node.open(NAME))).await;
    let whole: Vec<usize> = (0..4).filter(|place| models[*place].parts().is_none()).collect();
    assert_eq!(whole.len(), 1, "so many have the whole file");
    assert!(hub.sent() <= hub.bytes() * 11 / 10);
    let smallest = (0..4).min_by_key(|place| nodes[*place].net.id().clone()).unwrap();
    assert_eq!(whole, [smallest], "who has the smallest id is the one");

    // Every other one takes the middle of the file, and a last one its end, when nobody has it any more.
    let (middle, end) = (hub.bytes() / 2..hub.bytes() / 2 + 1_000_000, hub.bytes() - 1_000_000..hub.bytes());
    drop(models.remove(smallest));
    nodes.remove(smallest).leave().await;
    hub.is_at(&"b".repeat(40));
    for (node, model) in nodes.iter().zip(&models) {
        let got = node.take(model, middle.clone()).await;
        assert!(got == hub.shelf.file[middle.start as usize..middle.end as usize]);
    }
    let sent = hub.sent();
    assert!((1_000_000..1_000_000 + 2 * 262_144).contains(&sent), "once for all, and whole pieces: {sent}");
    let last = Node::start(&hub, Some(&entry)).await;
    let model = last.open(NAME).await;
    assert_eq!((model.digest(), hub.sent()), (models[0].digest(), 0), "its header came from peers");
    assert_eq!(source_of(model.path()), format!("{NAME}@{}", "a".repeat(40)), "as the swarm has it");
    assert!(last.take(&model, end.clone()).await == hub.shelf.file[end.start as usize..]);
    let sent = hub.sent();
    assert!((1_000_000..1_000_000 + 2 * 262_144).contains(&sent), "{sent}");

    // Without peers, what is kept tells which model it is.
    for node in nodes {
        node.leave().await;
    }
    drop((models, entry));
    let (digest, lock) = (model.digest(), model.path().with_file_name("lock"));
    drop(model);
    let lock = std::fs::File::open(lock).unwrap();
    while lock.try_lock().is_err() {
        tokio::task::yield_now().await;
    }
    drop(lock);
    let model = last.open(NAME).await;
    assert_eq!((model.digest(), hub.sent()), (digest, 0), "nothing is fetched again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_fetches_its_file_and_another_takes_only_the_commit_it_was_asked_for() {
    let hub = Hub::of_a_model().await;
    let first = Node::start(&hub, None).await;
    let model = first.open(NAME).await;
    assert!(model.parts().is_none() && hub.sent() >= hub.bytes());
    let offline = Node::start(&hub, Some(&first)).await;
    let offline = Node { hub: HubConfig { offline: true, ..offline.hub.clone() }, ..offline };
    let part = offline.open(NAME).await;
    assert!(part.parts().is_some() && hub.sent() == 0, "peers have it");

    hub.is_at(&"b".repeat(40));
    let other = Node::start(&hub, Some(&first)).await;
    let same = other.open(&format!("{NAME}@{}", "a".repeat(40))).await;
    assert!(same.parts().is_some() && hub.sent() == 0);
    let other = Node::start(&hub, Some(&first)).await;
    let moved = other.open(&format!("{NAME}@{}", "b".repeat(40))).await;
    assert!(moved.parts().is_none() && hub.sent() >= hub.bytes(), "no peer has that");
}
