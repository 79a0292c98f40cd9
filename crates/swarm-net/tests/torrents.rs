//! Nodes tell which torrents they hold, are found by them, and pass bytes.
// What fails here fails a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use futures::StreamExt;
use support::{Node, PATIENCE, config};
use swarm_net::{Identity, PeerListener, PeerTorrents, Role};
use swarm_types::{HeldTorrent, ModelDigest, NodeId, WantedSource, fixture::held_torrent};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, split},
    time::{sleep, timeout},
};

/// A node to enter by, one that only shares, and one that wants something.
async fn three() -> [Node; 3] {
    let rendezvous = Node::rendezvous(2).await;
    let holder = Node::start(config(2, Some(&rendezvous)), Role::Worker, Identity::ephemeral()).await;
    let seeker = Node::gateway(2, &rendezvous).await;
    [rendezvous, holder, seeker]
}

/// Waits until what a node knows of others' torrents is as wanted.
async fn sees(node: &Node, what: &str, wanted: impl Fn(&PeerTorrents) -> bool) {
    let mut torrents = node.net.torrents();
    let seen = timeout(PATIENCE, torrents.wait_for(|all| wanted(all))).await;
    assert!(seen.is_ok_and(|seen| seen.is_ok()), "never saw {what}");
}

async fn sees_held(node: &Node, by: &NodeId, held: &[HeldTorrent]) {
    sees(node, &format!("{held:?}"), |all| all.get(by).is_some_and(|told| told == held)).await;
}

/// Who is known to the DHT, as soon as anybody is.
async fn found(node: &Node, info_hash: &ModelDigest) -> Vec<NodeId> {
    let asked = async {
        loop {
            let holders = node.net.find_torrent(info_hash).await.unwrap();
            if !holders.is_empty() {
                break holders;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, asked).await.expect("found in time")
}

/// Gives back what comes, until the node has left.
async fn echo(mut streams: PeerListener) {
    while let Some(stream) = streams.next().await {
        tokio::spawn(async {
            let (mut read, mut write) = split(stream.unwrap());
            // An error means that the other end has gone.
            let _ = copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_a_torrent_tells_its_peers_and_is_found_by_all() {
    let [rendezvous, holder, seeker] = three().await;
    let (id, torrent) = (holder.net.id(), held_torrent(7));
    holder.net.hold(vec![torrent.clone()]);
    for node in [&rendezvous, &seeker] {
        sees_held(node, id, std::slice::from_ref(&torrent)).await;
        assert_eq!(found(node, &torrent.info_hash).await, std::slice::from_ref(id));
    }
    let unknown = ModelDigest([8; 32]);
    assert!(seeker.net.find_torrent(&unknown).await.unwrap().is_empty(), "nobody holds it");
    let others = holder.net.find_torrent(&torrent.info_hash).await.unwrap();
    assert!(others.is_empty(), "none but the node itself: {others:?}");

    let wanted = vec![WantedSource { source: "hf:o/r/f.gguf".parse().unwrap(), is_fetching: true }];
    holder.net.want(wanted.clone());
    let mut told = seeker.net.wanted();
    let seen = timeout(PATIENCE, told.wait_for(|all| all.get(id) == Some(&wanted))).await;
    assert!(seen.is_ok_and(|seen| seen.is_ok()), "never heard what it wants");

    let whole = HeldTorrent { pieces_held: 4, source: wanted[0].source.clone().into(), ..torrent.clone() };
    holder.net.hold(vec![whole.clone(), held_torrent(9)]);
    sees_held(&seeker, id, &[whole, held_torrent(9)]).await;
    holder.net.leave().await;
    for node in [&rendezvous, &seeker] {
        sees(node, "that the holder is gone", PeerTorrents::is_empty).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_go_to_whoever_listens_for_them_and_to_nobody_else() {
    let [_rendezvous, holder, seeker] = three().await;
    holder.net.hold(vec![held_torrent(7)]);
    seeker.net.hold(vec![held_torrent(8)]);
    sees_held(&seeker, holder.net.id(), &[held_torrent(7)]).await;
    sees_held(&holder, seeker.net.id(), &[held_torrent(8)]).await;

    let mut refused = seeker.net.open_torrent(holder.net.id()).await.unwrap();
    let end = timeout(PATIENCE, refused.read(&mut [0])).await.expect("nobody listens, so it is closed");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");

    let streams = holder.net.torrent_streams().expect("nobody has them");
    assert!(holder.net.torrent_streams().is_none(), "they are taken once");
    let echo = tokio::spawn(echo(streams));
    let mut stream = seeker.net.open_torrent(holder.net.id()).await.unwrap();
    assert_eq!(stream.peer().node, *holder.net.id());
    let (sent, mut back) = (vec![7_u8; 100_000], vec![0_u8; 100_000]);
    let (mut read, mut write) = split(&mut stream);
    let both = async {
        tokio::try_join!(
            async {
                write.write_all(&sent).await?;
                write.flush().await
            },
            read.read_exact(&mut back)
        )
    };
    timeout(PATIENCE, both).await.expect("in time").unwrap();
    assert_eq!(back, sent);

    holder.net.leave().await;
    timeout(PATIENCE, echo).await.expect("the listener ends with the node").unwrap();
}
