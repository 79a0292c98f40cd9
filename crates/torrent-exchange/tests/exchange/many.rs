//! Many nodes that need parts of the same model.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::timeout};
use torrent_exchange::SeedLimits;

use crate::net::{Model, Net, Node};

/// A hundred nodes write 13 GB.
const MANY_TAKE: Duration = Duration::from_secs(20 * 60);

/// What each of so many nodes did.
struct Outcome {
    took: Duration,
    /// On streams of all nodes, each counted once.
    messages: u64,
    /// By the one that had the model at first.
    seeded: u64,
    received: u64,
}

/// Each node gets the header and `part` pieces of its own; neighbours' parts overlap by half.
async fn swarm(model: &Model, nodes: usize, part: u32, limits: &SeedLimits) -> Outcome {
    let net = Net::default();
    let seeder = Node::within(&net, 0, limits);
    let _shelved = model.shelve(&seeder);
    let started = Instant::now();
    let (mut fetches, mut all) = (JoinSet::new(), vec![]);
    let pieces = model.metainfo.layout().pieces();
    for number in 1..=nodes {
        let node = Node::new(&net, number);
        let first = number as u32 * part / 2;
        let wanted = model.some((0..part).map(|place| (first + place) % pieces).chain([0]));
        all.push(node.metrics.clone());
        let known = node.wanted(model.metainfo.info_hash(), Some(model.metainfo.clone()));
        fetches.spawn(async move {
            let fetcher = node.fetchers.open(known).await.expect("a fetcher");
            let fetched = timeout(MANY_TAKE, fetcher.fetch(wanted.clone())).await;
            fetched.expect("it comes").expect("its part");
            (node, fetcher, wanted)
        });
    }
    let done = fetches.join_all().await;
    let took = started.elapsed();
    for (_, fetcher, wanted) in &done {
        assert!(fetcher.store().here().covers(wanted));
    }
    let count = |of: fn(&torrent_exchange::Metrics) -> u64| all.iter().map(of).sum::<u64>();
    Outcome {
        took,
        messages: count(|metrics| metrics.messages.get()) + seeder.metrics.messages.get(),
        seeded: seeder.metrics.sent.get(),
        received: count(|metrics| metrics.received.get()),
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_give_each_other_what_the_one_seeder_gave_them() {
    // 129 pieces, each wanted by four nodes or more; the first by all. The seeder is what all wait for.
    let model = Model::of(129);
    let limits = SeedLimits { bytes_per_second: NonZeroU64::new(2 << 20), ..SeedLimits::default() };
    let outcome = swarm(&model, 8, 64, &limits).await;
    let total = model.metainfo.layout().total();
    // Who begins at the same time asks for some of the same pieces.
    assert!(outcome.seeded <= total * 7 / 4, "each piece hardly twice: {} of {total} bytes", outcome.seeded);
    assert!(outcome.received >= 4 * total, "the rest is from each other: {} bytes", outcome.received);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_nodes_get_their_parts_from_one_seeder() {
    let model = Model::of(257);
    let outcome = swarm(&model, 100, 16, &SeedLimits::default()).await;
    assert!(
        outcome.seeded < outcome.received / 2,
        "most comes from others: {} MB",
        outcome.seeded / 1_000_000
    );
}

#[tokio::test]
#[ignore = "prints a table, and writes 13 GB for its last line"]
async fn how_it_grows_with_the_number_of_nodes() {
    // A GiB, of which each node gets the header and an eighth.
    const EIGHTH: u32 = 512;
    let model = Model::of(8 * EIGHTH as usize + 1);
    println!("| nodes | seconds | messages | messages a piece | MB received | MB from the seeder |");
    println!("|---|---|---|---|---|---|");
    for nodes in [10, 25, 50, 100] {
        let Outcome { took, messages, seeded, received } =
            swarm(&model, nodes, EIGHTH, &SeedLimits::default()).await;
        let pieces = nodes * (EIGHTH as usize + 1);
        println!(
            "| {nodes} | {:.1} | {messages} | {:.1} | {} | {} |",
            took.as_secs_f64(),
            messages as f64 / pieces as f64,
            received / 1_000_000,
            seeded / 1_000_000
        );
    }
}
