//! Nodes that say they have a model's file and do not give it: one gives other bytes, one gives nothing.

use std::{io, sync::Arc};

use anyhow::{Context, ensure};
use futures::StreamExt;
use model_torrent::{PieceIndex, PieceSet, Store};
use swarm_net::{Identity, MemberConfig, NetConfig, PeerListener, Role, SwarmNet, peer_server};
use swarm_tests::{
    BOUND, ModelFile, SharedModel, Swarm, SwarmSpec, chat, counted, counts, model_of_many_pieces,
};
use swarm_types::{HeldTorrent, ShardId, ShardRange};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, duplex, split},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;
use torrent_exchange::{Metrics, SeedLimits, Seeder, Shelf};

const WRONG: &str = "llama_swarm_pieces_wrong_total";

/// A node in this process; leaves when dropped.
struct Node {
    net: SwarmNet,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Node {
    /// Enters a swarm. The streams that others open for pieces are the caller's.
    async fn enter(swarm: &Swarm) -> anyhow::Result<(Self, PeerListener)> {
        let config = NetConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/0".into(), "/ip4/127.0.0.1/udp/0/quic-v1".into()],
            rendezvous: vec![swarm.rendezvous.quic_address()?],
            members: MemberConfig { secret_file: Some(swarm.secret().to_owned()), ..MemberConfig::default() },
            total_shards: 1,
            ..NetConfig::default()
        };
        let (net, peers) = SwarmNet::bind(config, Role::Worker, Identity::ephemeral()).await?;
        let streams = net.torrent_streams().context("nobody else has them")?;
        let server = peer_server().add_service(net.peer_service()).serve_with_incoming(peers);
        let mut node = Self { net, tasks: vec![] };
        node.runs(async move { drop(server.await) });
        Ok((node, streams))
    }

    /// As long as the node is there.
    fn runs(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(AbortOnDropHandle::new(tokio::spawn(task)));
    }

    /// Says that it has all of a model's file.
    fn says_it_has(&self, model: &SharedModel) {
        let layout = model.metainfo.layout();
        self.net.hold(vec![HeldTorrent {
            info_hash: model.metainfo.info_hash(),
            name: "tiny-llama".into(),
            bytes: layout.total(),
            pieces_held: layout.pieces(),
            pieces: layout.pieces(),
            source: None,
        }]);
    }
}

/// A node that gives wrong bytes, but for the pieces that are `right`; and what it counts.
async fn liar(swarm: &Swarm, model: &SharedModel, right: &PieceSet) -> anyhow::Result<(Node, Metrics)> {
    let (mut node, mut streams) = Node::enter(swarm).await?;
    let (shelf, metrics) = (Shelf::default(), Metrics::default());
    let path = model.path().to_owned();
    let shelved = shelf.put(Arc::new(Store::whole(model.metainfo.clone(), &[path])?));
    let seeder = Seeder::new(shelf, &SeedLimits::default(), metrics.clone());
    let right = right.clone();
    node.runs(async move {
        let (_shelved, mut serving) = (shelved, JoinSet::new());
        while let Some(Ok(stream)) = streams.next().await {
            let (seeder, right) = (seeder.clone(), right.clone());
            serving.spawn(async move {
                let peer = stream.peer().node.clone();
                let (inner, honest) = duplex(1 << 20);
                let ((mut asks, tells), (from_seeder, mut to_seeder)) = (split(stream), split(inner));
                // Who got wrong bytes leaves, which is an error here.
                tokio::select! {
                    ended = seeder.serve(honest, &peer) => drop(ended),
                    ended = copy(&mut asks, &mut to_seeder) => drop(ended),
                    ended = lie(from_seeder, tells, &right) => drop(ended),
                }
            });
        }
    });
    node.says_it_has(model);
    Ok((node, metrics))
}

/// Passes on what a seeder tells, with the first byte of each piece turned but in those that are `right`.
async fn lie(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    right: &PieceSet,
) -> io::Result<()> {
    loop {
        let length = from.read_u32().await?;
        let mut message = vec![0; length as usize];
        from.read_exact(&mut message).await?;
        // Byte 8 names the message that begins with a piece's number and where in it the bytes are from.
        if let [8, a, b, c, d, 0, 0, 0, 0, first, ..] = &mut message[..]
            && !right.contains(PieceIndex(u32::from_be_bytes([*a, *b, *c, *d])))
        {
            *first ^= 1;
        }
        to.write_u32(length).await?;
        to.write_all(&message).await?;
        to.flush().await?;
    }
}

/// A node that takes streams and says nothing on them; and how many it took.
async fn silent(swarm: &Swarm, model: &SharedModel) -> anyhow::Result<(Node, watch::Receiver<usize>)> {
    let (mut node, mut streams) = Node::enter(swarm).await?;
    let (taken, count) = watch::channel(0);
    node.runs(async move {
        let mut kept = vec![];
        while let Some(Ok(stream)) = streams.next().await {
            kept.push(stream);
            taken.send_replace(kept.len());
        }
    });
    node.says_it_has(model);
    Ok((node, count))
}

/// A gateway that has the header, and an honest node that gives the file in some seconds.
async fn honest_swarm(model: &SharedModel) -> anyhow::Result<Swarm> {
    let share_args = ["--upload-limit", "4MiB"].map(str::to_owned).into();
    let spec = SwarmSpec { total_shards: 1, share_args, ..SwarmSpec::fetching(model.path().to_owned()) };
    Swarm::without_workers(spec).await
}

async fn add_worker(swarm: &mut Swarm) -> anyhow::Result<()> {
    let entry = swarm.rendezvous.quic_address()?;
    swarm.add_worker("worker", "0", &entry).await?;
    Ok(())
}

async fn many_pieces() -> anyhow::Result<(ModelFile, SharedModel)> {
    let file = model_of_many_pieces()?;
    let model = SharedModel::of(file.path()).await?;
    Ok((file, model))
}

/// The worker becomes ready, answers as any other one, and has the right bytes.
async fn gets_the_model(swarm: &mut Swarm, model: &SharedModel) -> anyhow::Result<()> {
    swarm.gateway.sees("swarm ready", |status| status.swarm_ready).await?;
    assert_eq!(chat(&swarm.gateway, "hello", 16).await?, model.says("hello", 16).await?);
    swarm.workers[0].kill().await?;
    let (kept, wanted) = (model.kept(&swarm.cache("worker"))?, model.wanted(1, ShardRange::one(ShardId(0)))?);
    ensure!(kept == wanted, "{} pieces are kept, {} are needed", kept.count(), wanted.count());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_lied_to_gets_the_model_from_the_honest_one() -> anyhow::Result<()> {
    let (_file, model) = many_pieces().await?;
    let mut swarm = honest_swarm(&model).await?;
    let nothing = PieceSet::empty(model.metainfo.layout().pieces());
    let (_liar, given) = liar(&swarm, &model, &nothing).await?;
    add_worker(&mut swarm).await?;
    swarm.gateway.sees("swarm ready", |status| status.swarm_ready).await?;
    let (wrong, sent) = (counted(&swarm.workers[0], WRONG).await?, given.sent.get());
    println!("{wrong} wrong pieces came, {sent} bytes were sent by the one that lies");
    ensure!(wrong >= 1 || sent == 0, "it was lied to and has not seen it");
    gets_the_model(&mut swarm, &model).await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_lie_nothing_wrong_is_kept_and_nobody_is_ready() -> anyhow::Result<()> {
    let (_file, model) = many_pieces().await?;
    let mut swarm = honest_swarm(&model).await?;
    // The gateway has the header by now, and that is all.
    swarm.seeders[0].kill().await?;
    let header = model.header_pieces();
    let (_liar, _) = liar(&swarm, &model, &header).await?;
    add_worker(&mut swarm).await?;
    // Who lied is not asked again, but by a new process, which does not know it.
    for life in 1..=3 {
        counts(&swarm.workers[0], WRONG, 1).await?;
        for node in [&swarm.gateway, &swarm.workers[0]] {
            ensure!(!node.status().await?.swarm_ready, "it is ready in its life {life}");
        }
        swarm.workers[0].kill().await?;
        let kept = model.kept(&swarm.cache("worker"))?;
        ensure!(kept == header, "{} pieces are kept, {} were right", kept.count(), header.count());
        swarm.workers[0].restart().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hears_nothing_gets_the_model_from_the_one_that_speaks() -> anyhow::Result<()> {
    let (_file, model) = many_pieces().await?;
    let mut swarm = honest_swarm(&model).await?;
    let (_silent, mut taken) = silent(&swarm, &model).await?;
    add_worker(&mut swarm).await?;
    timeout(BOUND, taken.wait_for(|taken| *taken > 0)).await.context("the silent one is never asked")??;
    gets_the_model(&mut swarm, &model).await
}
