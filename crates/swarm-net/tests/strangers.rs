//! Strangers in crowds against a worker in a process of its own: what they hold it pays, and whether members still get
//! in. This program is also that worker: it is started again with an entry to join by, so it has its own `main`.
// What fails here fails the test.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    future::poll_fn,
    path::Path,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use futures::{AsyncWriteExt, future::join_all};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt},
        transport::{Boxed, DialOpts, PortUse},
        upgrade::Version,
    },
    identity::Keypair,
    noise, quic, tcp, yamux,
};
use support::{
    Node, PATIENCE, QUIC_AND_TCP, config,
    process::{WorkerProcess, was_the_worker},
};
use swarm_net::{Identity, MemberConfig, NetConfig, Role, Secret};
use swarm_types::ReplicaState::Loaded;
use tokio::time::{sleep, timeout};

/// Invented identities of a crowd, and how many of them are there at once.
const IDENTITIES: u64 = 560;
const AT_ONCE: usize = 40;
/// What a crowd may cost.
const MEMORY: u64 = 64 << 20;
/// By how much a crowd may cost more than the first did: what one leaves behind, the next uses.
const MORE: u64 = 32 << 20;
/// A member that enters meanwhile.
const ENTERS_WITHIN: Duration = Duration::from_secs(5);

/// What a stranger does on a connection.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Nothing.
    Silent,
    /// Half of what begins an admission.
    Half,
    /// All bytes that the first stream takes.
    Filling,
    /// Many streams, with some bytes on each.
    Streams,
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    if was_the_worker().await {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("swarm.secret");
    Secret::generate().create(&secret).unwrap();
    let entry = Node::start(member(&secret, None), Role::Worker, Identity::ephemeral()).await;
    let identity = folder.path().join("identity");
    let id = Identity::load_or_create(&identity).unwrap().id().clone();
    let victim = WorkerProcess::start(&entry, QUIC_AND_TCP, &identity, Some(&secret));
    entry.sees_replica(1, &id, Loaded).await;
    let addresses = entry.net.status().borrow().shards[1].replicas[0].addresses.clone();
    let (before, mut first) = (victim.memory(), None);
    for manner in [Manner::Silent, Manner::Half, Manner::Filling, Manner::Streams] {
        let name = format!("a_crowd_of_strangers_is_paid_little_and_keeps_nobody_out ({manner:?})");
        let flood = flooded(&victim, &addresses, &secret, (manner, before));
        let peak = timeout(4 * PATIENCE, flood).await.unwrap_or_else(|_| panic!("{name} takes too long"));
        let first = *first.get_or_insert(peak);
        assert!(peak < first + MORE, "{manner:?}: memory grows from crowd to crowd: {first} → {peak}");
        println!("test {name} ... ok");
    }
    let replicas = entry.net.status().borrow().shards[1].replicas.clone();
    assert!(replicas.iter().any(|replica| replica.worker == id && replica.state == Loaded), "it was lost");
}

fn member(secret: &Path, entry: Option<String>) -> NetConfig {
    let members = MemberConfig { secret_file: Some(secret.to_owned()), ..MemberConfig::default() };
    NetConfig { members, rendezvous: entry.into_iter().collect(), ..config(2, None) }
}

/// Gives the most memory that the victim had meanwhile; `before` is what it had when nobody had come yet.
async fn flooded(
    victim: &WorkerProcess,
    addresses: &[String],
    secret: &Path,
    (manner, before): (Manner, u64),
) -> u64 {
    let next = AtomicU64::new(0);
    let crowd = async {
        let one = |_| async {
            while next.fetch_add(1, Ordering::Relaxed) < IDENTITIES {
                let address = &addresses[next.load(Ordering::Relaxed) as usize % addresses.len()];
                stranger(&address.parse().unwrap(), manner).await;
            }
        };
        join_all((0..AT_ONCE).map(one)).await;
    };
    let mut crowd = pin!(crowd);
    let mut peak = victim.memory();
    let watch = async {
        loop {
            peak = peak.max(victim.memory());
            sleep(Duration::from_millis(50)).await;
        }
    };
    let newcomers = async {
        let mut slowest = Duration::ZERO;
        loop {
            slowest = slowest.max(newcomer(addresses, secret).await);
            assert!(slowest < ENTERS_WITHIN, "a member needed {slowest:?} to enter");
            sleep(Duration::from_millis(300)).await;
            if next.load(Ordering::Relaxed) >= IDENTITIES {
                return slowest;
            }
        }
    };
    let slowest = tokio::select! {
        ((), slowest) = async { tokio::join!(&mut crowd, newcomers) } => slowest,
        () = watch => unreachable!("it has no end"),
    };
    println!("{manner:?}: {IDENTITIES} strangers, members entered within {slowest:?}");
    println!("{manner:?}: {} MiB before, {} MiB at most", before >> 20, peak >> 20);
    assert!(peak < before + MEMORY, "{manner:?}: {before} → {peak}");
    peak
}

/// How long a member takes to enter by the victim.
async fn newcomer(addresses: &[String], secret: &Path) -> Duration {
    let config = member(secret, Some(addresses[0].clone()));
    let start = Instant::now();
    let node = Node::start(config, Role::Gateway, Identity::ephemeral()).await;
    node.sees("the victim's shard", |status| status.shards[1].replicas.iter().any(|one| one.state == Loaded))
        .await;
    start.elapsed()
}

/// One that has an identity of its own, and goes when it is sent away.
async fn stranger(address: &Multiaddr, manner: Manner) {
    let (mut transport, mut place) = (transport(&Keypair::generate_ed25519()), address.clone());
    if place.iter().last().is_some_and(|part| matches!(part, libp2p::multiaddr::Protocol::P2p(_))) {
        place.pop();
    }
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    // Whoever is not let in at all has done its part.
    let Ok(Ok((_, mut muxer))) = timeout(PATIENCE, transport.dial(place, options).unwrap()).await else {
        return;
    };
    let behave = async {
        let streams = if matches!(manner, Manner::Streams) { 200 } else { 1 };
        let mut held = vec![];
        for _ in 0..streams {
            if matches!(manner, Manner::Silent) {
                break;
            }
            let opened = poll_fn(|cx| {
                let opened = muxer.poll_outbound_unpin(cx);
                if opened.is_pending() && matches!(muxer.poll_unpin(cx), Poll::Ready(Err(_))) {
                    return Poll::Ready(None);
                }
                opened.map(Result::ok)
            });
            let Some(mut stream) = opened.await else { return };
            let start = b"\x13/multistream/1.0.0\n\x20/llama-swarm/test/admit/1";
            let bytes = match manner {
                Manner::Half | Manner::Silent => start.to_vec(),
                Manner::Streams => [&start[..], &[0; 60_000]].concat(),
                Manner::Filling => [&start[..], b"\n", &[7; 16 << 20]].concat(),
            };
            let mut write = pin!(stream.write_all(&bytes));
            let wrote = poll_fn(|cx| {
                let wrote = write.as_mut().poll(cx);
                if wrote.is_pending() && matches!(muxer.poll_unpin(cx), Poll::Ready(Err(_))) {
                    return Poll::Ready(Err(()));
                }
                wrote.map_err(drop)
            });
            if timeout(Duration::from_secs(4), wrote).await.is_ok_and(|wrote| wrote.is_err()) {
                return;
            }
            held.push(stream);
        }
        // Until it is sent away.
        poll_fn(|cx| match muxer.poll_inbound_unpin(cx) {
            Poll::Ready(Ok(_)) => panic!("a stream to a stranger"),
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        })
        .await;
    };
    assert!(timeout(PATIENCE, behave).await.is_ok(), "{manner:?}: it was never sent away");
}

fn transport(key: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    let quic = quic::tokio::Transport::new(quic::Config::new(key))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let tcp = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    quic.or_transport(tcp).map(|either, _| either.into_inner()).boxed()
}
