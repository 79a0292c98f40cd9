//! Fetches a whole model from a swarm again and again, as fast as it comes, until it is ended: what answers are
//! measured beside. Says after each time how fast it was.
//!
//!     cargo run --release -p model-files --example fetch_again -- ENTRY INFO_HASH TOTAL_SHARDS [FOLDER]

use std::{path::PathBuf, time::Instant};

use model_files::{Sharing, SharingConfig};
use model_hub::HubConfig;
use swarm_net::{Identity, NetConfig, Role, SwarmNet, peer_server};
use swarm_types::ModelDigest;

const USAGE: &str = "fetch_again ENTRY INFO_HASH TOTAL_SHARDS [FOLDER]";

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let entry = arguments.next().ok_or(USAGE)?;
    let info_hash: ModelDigest = arguments.next().ok_or(USAGE)?.parse()?;
    let total_shards = arguments.next().ok_or(USAGE)?.parse()?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let config = NetConfig {
        listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()],
        rendezvous: vec![entry],
        total_shards,
        ..NetConfig::default()
    };
    let (net, peers) = SwarmNet::bind(config, Role::Worker, Identity::ephemeral()).await?;
    let sharing = Sharing::start(&net, &SharingConfig::default())?;
    let server = peer_server().add_service(net.peer_service()).serve_with_incoming(peers);
    let _server = tokio::spawn(server);
    loop {
        let cache = tempfile::tempdir_in(&folder)?;
        let start = Instant::now();
        let hub = HubConfig { cache_dir: Some(cache.path().into()), offline: true, ..HubConfig::default() };
        let model = sharing.fetch(Some(info_hash), &hub).await?;
        let bytes = std::fs::metadata(model.path())?.len();
        model.need_all().await?;
        println!("{bytes} bytes at {:.1} MB/s", bytes as f64 / 1e6 / start.elapsed().as_secs_f64());
    }
}
