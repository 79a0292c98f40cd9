//! Members that lie, and nodes of other swarms.
// What fails here fails a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt};
use prometheus_client::registry::Registry;
use support::{Node, config, offer};
use swarm_net::{Identity, NetConfig, Role, SwarmNet, peer_server};
use swarm_proto::wire::{
    self, DescribeRequest, DescribeResponse,
    peer_service_client::PeerServiceClient,
    peer_service_server::{PeerService, PeerServiceServer},
};
use swarm_types::{ReplicaState::Loaded, fixture::held_torrent};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

/// How often a node refused something for this cause.
fn refused(registry: &Registry, cause: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let line = text.lines().find(|line| line.contains(&format!("cause=\"{cause}\"")));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Describes itself as it was told to.
struct Impostor {
    announcements: Vec<Vec<u8>>,
    torrents: Vec<wire::HeldTorrent>,
    wanted: Vec<wire::WantedSource>,
    lost: Vec<String>,
}

#[tonic::async_trait]
impl PeerService for Impostor {
    type DescribeStream = Pin<Box<dyn Stream<Item = Result<DescribeResponse, Status>> + Send>>;

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<Self::DescribeStream>, Status> {
        let announcements = self.announcements.iter().cloned().map(Into::into).collect();
        let wanted_sources = self.wanted.clone();
        let (torrents, lost_peers) = (self.torrents.clone(), self.lost.clone());
        let description = DescribeResponse { announcements, torrents, wanted_sources, lost_peers };
        Ok(Response::new(futures::stream::iter([Ok(description)]).chain(futures::stream::pending()).boxed()))
    }

    async fn forget_peer(
        &self,
        _: Request<wire::ForgetPeerRequest>,
    ) -> Result<Response<wire::ForgetPeerResponse>, Status> {
        Err(Status::unimplemented("it describes itself and no more"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_description_with_others_words_is_refused_but_not_the_honest_rest() {
    let worker = Node::worker(2, 0, None).await;
    let observer = Node::gateway(2, &worker).await;
    observer.sees_replica(0, worker.net.id(), Loaded).await;
    let mut counters = Registry::default();
    observer.net.metrics(&mut counters);

    // What the worker really says, signed by it.
    let channel = observer.net.channel(worker.net.id()).await.unwrap();
    let mut description =
        PeerServiceClient::new(channel).describe(DescribeRequest {}).await.unwrap().into_inner();
    let stolen = description.message().await.unwrap().unwrap().announcements[0].to_vec();

    let config = NetConfig { ..config(2, Some(&worker)) };
    let (impostor, peers) = SwarmNet::bind(config, Role::Worker, Identity::ephemeral()).await.unwrap();
    let announcements = vec![stolen, b"nonsense".to_vec(), vec![b' '; 9 << 10]];
    let honest = wire::HeldTorrent::from(held_torrent(7));
    let more_than_all = wire::HeldTorrent { pieces_held: 5, ..honest.clone() };
    let mut torrents = vec![more_than_all, honest.clone(), honest];
    torrents.extend((0..=255).map(|number| held_torrent(number).into()));
    let wants = |source: &str| wire::WantedSource { source: source.into(), fetching: false };
    let wanted = ["hf:o/r/f.gguf", "hf:o/r/f.gguf", "", "a\nb"].map(wants).to_vec();
    let mut lost =
        vec![worker.net.id().to_string(), observer.net.id().to_string(), "nobody".into(), String::new()];
    lost.extend((0..1000).map(|number| number.to_string()));
    let liar = PeerServiceServer::new(Impostor { announcements, torrents, wanted, lost });
    tokio::spawn(peer_server().add_service(liar).serve_with_incoming(peers));

    let causes = ["foreign_peer", "malformed", "too_large", "twice", "too_many"];
    let counted = async {
        while causes.iter().any(|cause| refused(&counters, cause) == 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), counted).await.expect("each lie is counted");
    let status = observer.net.status().borrow().clone();
    let workers: Vec<_> = status.shards.iter().flat_map(|shard| &shard.replicas).map(|r| &r.worker).collect();
    assert_eq!(workers, [worker.net.id()], "the impostor serves nothing");
    let mut held = observer.net.torrents();
    let held = held.wait_for(|held| held.contains_key(impostor.id())).await.unwrap().clone();
    let held = &held[impostor.id()];
    assert_eq!((held.first(), held.len()), (Some(&held_torrent(7)), 61), "of the first 64, three were lies");
    let mut wanted = observer.net.wanted();
    let wanted = wanted.wait_for(|wanted| wanted.contains_key(impostor.id())).await.unwrap().clone();
    let wanted: Vec<_> = wanted[impostor.id()].iter().map(|wanted| wanted.source.to_string()).collect();
    assert_eq!(wanted, ["hf:o/r/f.gguf"], "the others are lies");
    tokio::time::sleep(Duration::from_secs(1)).await;
    observer.sees_replica(0, worker.net.id(), Loaded).await;
    assert_eq!(
        refused(&counters, "silent") + refused(&counters, "closed"),
        0,
        "who is missed by a liar is there"
    );
    drop(impostor);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_another_swarm_or_another_cut_do_not_mix() {
    let worker = Node::worker(2, 0, None).await;
    let mut counters = Registry::default();
    worker.net.metrics(&mut counters);
    let other = NetConfig { cluster: "other".into(), ..config(2, Some(&worker)) };
    let other = Node::start(other, Role::Worker, Identity::ephemeral()).await;
    other.net.announce(vec![offer(1, true)]);
    let mut others_counters = Registry::default();
    other.net.metrics(&mut others_counters);
    let cut = Node::worker(4, 1, Some(&worker)).await;
    let foreign = || refused(&counters, "foreign_swarm") + refused(&others_counters, "foreign_swarm");
    let counted = async {
        while foreign() == 0 || refused(&counters, "total_shards") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), counted).await.expect("both are refused");
    for node in [&worker, &other, &cut] {
        let online = node.net.status().borrow().discovered_shards;
        assert_eq!(online, 1, "each sees only itself");
    }
}
