//! How fast: what seeding takes of the network, and who is too slow to be waited for.

use std::{num::NonZeroU64, time::Duration};

use tokio::time::Instant;
use torrent_exchange::{Left, SeedLimits};

use crate::{
    net::{Model, Net, Node, PIECE},
    soon,
};

#[tokio::test(start_paused = true)]
async fn no_more_is_sent_than_the_limit_allows_and_all_get_the_same() {
    let (net, model) = (Net::default(), Model::of(17));
    let limit = 1 << 20;
    let limits = SeedLimits { bytes_per_second: NonZeroU64::new(limit), ..SeedLimits::default() };
    let seeder = Node::within(&net, 1, &limits);
    let _shelved = model.shelve(&seeder);
    let (one, other) = (Node::new(&net, 2), Node::new(&net, 3));
    let known = |node: &Node| node.wanted(model.metainfo.info_hash(), Some(model.metainfo.clone()));
    let one = one.fetchers.open(known(&one)).await.unwrap();
    let other = other.fetchers.open(known(&other)).await.unwrap();
    let (start, eight) = (Instant::now(), 8 * PIECE as u64);
    let timed = async |fetch| {
        let result: Result<(), _> = soon(fetch).await;
        result.map(|()| start.elapsed()).unwrap()
    };
    let (first, second) =
        tokio::join!(timed(one.fetch(model.some(0..8))), timed(other.fetch(model.some(8..16))));
    let fair = Duration::from_secs(2 * eight / limit);
    assert!(first.max(second) >= fair - Duration::from_millis(100), "{first:?} {second:?}");
    assert!(first.max(second) <= fair + Duration::from_secs(1), "{first:?} {second:?}");
    assert!(first.abs_diff(second) < Duration::from_millis(500), "{first:?} {second:?}");
}

#[tokio::test(start_paused = true)]
async fn who_gives_much_less_than_the_others_is_left_for_them() {
    let (net, model) = (Net::default(), Model::of(120));
    let within = |number: usize, bytes: u64| {
        let limits = SeedLimits { bytes_per_second: NonZeroU64::new(bytes), ..SeedLimits::default() };
        let node = Node::within(&net, number, &limits);
        let shelved = model.shelve(&node);
        (node, shelved)
    };
    let _seeders = [within(1, 32 << 10), within(2, 1 << 20), within(3, 1 << 20)];
    let leech = Node::new(&net, 4);
    let fetcher = soon(leech.open(&model)).await;
    soon(fetcher.fetch(model.all())).await.unwrap();
    assert!(model.is_in(fetcher.store(), &model.all()));
    assert_eq!(leech.metrics.left(Left::Slow), 1);
    // At most what had come of the piece that was under way with the slow one.
    let twice = leech.metrics.received.get() - model.metainfo.layout().total();
    assert!(twice <= PIECE as u64, "{twice}");
}
