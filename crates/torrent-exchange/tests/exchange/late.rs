//! Who is asked a second time, and when: nobody, unless the first is late.

use std::{fs, num::NonZeroU64, sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt, time::sleep};
use torrent_exchange::{Left, SeedLimits};

use crate::{
    net::{Model, Net, Node, PIECE, id},
    raw, soon,
};

fn within(net: &Net, number: usize, bytes_per_second: u64) -> Node {
    let bytes_per_second = NonZeroU64::new(bytes_per_second);
    Node::within(net, number, &SeedLimits { bytes_per_second, ..SeedLimits::default() })
}

#[tokio::test(start_paused = true)]
async fn nothing_comes_twice_from_peers_that_are_not_late() {
    let (net, model) = (Net::default(), Model::of(41));
    // One takes two seconds for what is under way with it.
    let seeders = [within(&net, 1, 512 << 10), within(&net, 2, 1 << 20), within(&net, 3, 1 << 20)];
    let _shelved = seeders.each_ref().map(|seeder| model.shelve(seeder));
    let leech = Node::new(&net, 4);
    let fetcher = soon(leech.open(&model)).await;
    soon(fetcher.fetch(model.all())).await.unwrap();
    assert!(model.is_in(fetcher.store(), &model.all()));
    assert_eq!(leech.metrics.received.get(), model.metainfo.layout().total());
    let sent: u64 = seeders.iter().map(|seeder| seeder.metrics.sent.get()).sum();
    assert_eq!(sent, model.metainfo.layout().total());
}

#[tokio::test(start_paused = true)]
async fn what_is_late_is_asked_of_another_before_the_first_is_given_up() {
    const FALLS_SILENT_AFTER: usize = 30;
    let (net, model) = (Net::default(), Arc::new(Model::of(44)));
    let theirs = model.clone();
    net.join(&id(1), move |_, mut stream| {
        let model = theirs.clone();
        tokio::spawn(async move {
            let file = fs::read(&model.path).unwrap();
            raw::greet(&mut stream, &model.metainfo, model.all().as_bytes()).await;
            for _ in 0..FALLS_SILENT_AFTER {
                let Some(piece) = raw::requested(&mut stream).await else { return };
                let start = piece as usize * PIECE;
                let bytes = &file[start..file.len().min(start + PIECE)];
                sleep(Duration::from_millis(50)).await;
                stream.write_all(&raw::piece(piece, 0, bytes)).await.unwrap();
            }
            while raw::requested(&mut stream).await.is_some() {}
        });
    });
    let good = within(&net, 2, 1 << 20);
    let _shelved = model.shelve(&good);
    let leech = Node::new(&net, 3);
    let known = leech.wanted(model.metainfo.info_hash(), Some(model.metainfo.clone()));
    let fetcher = leech.fetchers.open(known).await.unwrap();
    soon(fetcher.fetch(model.all())).await.unwrap();
    assert!(model.is_in(fetcher.store(), &model.all()));
    assert_eq!(leech.metrics.left(Left::Stalled), 0, "it was not waited for until it was given up");
    assert_eq!(leech.metrics.received.get(), model.metainfo.layout().total());
}

#[tokio::test(start_paused = true)]
async fn a_slow_peer_that_is_asked_for_everything_does_not_hold_up_a_fast_one_that_comes() {
    let (net, model) = (Net::default(), Model::of(3));
    let slow = within(&net, 1, 1 << 10);
    let _shelved = model.shelve(&slow);
    let leech = Node::new(&net, 3);
    let known = leech.wanted(model.metainfo.info_hash(), Some(model.metainfo.clone()));
    let fetcher = leech.fetchers.open(known).await.unwrap();
    let (all, comes) = (model.all(), async {
        while slow.metrics.sent.get() == 0 {
            sleep(Duration::from_millis(50)).await;
        }
        let fast = within(&net, 2, 1 << 20);
        let shelved = model.shelve(&fast);
        (fast, shelved)
    });
    let (fetched, (fast, _shelved)) = soon(async { tokio::join!(fetcher.fetch(all), comes) }).await;
    fetched.unwrap();
    assert!(model.is_in(fetcher.store(), &model.all()));
    assert!(fast.metrics.sent.get() > 0, "one piece takes the slow one a minute");
}
