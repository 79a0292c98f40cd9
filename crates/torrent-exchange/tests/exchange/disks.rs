//! A node whose disk fails is no liar: it gives what is right, and says of the rest that it is not here.

use std::{fs, sync::Arc};

use model_torrent::{PieceIndex, Store};
use torrent_exchange::Left;

use crate::{
    net::{Model, Net, Node, PIECE, id},
    soon,
};

#[tokio::test(start_paused = true)]
async fn what_went_bad_on_a_disk_comes_from_another_and_nobody_is_banned() {
    let (net, model, folder) = (Net::default(), Model::of(20), tempfile::tempdir().unwrap());
    let [bad, good, leech] = [1, 2, 3].map(|number| Node::new(&net, number));
    let (path, mut bytes) = (folder.path().join("bad.gguf"), fs::read(&model.path).unwrap());
    let damaged = [3, 11].map(PieceIndex);
    damaged.iter().for_each(|piece| bytes[piece.0 as usize * PIECE + 7] ^= 1);
    fs::write(&path, bytes).unwrap();
    let store = Arc::new(Store::whole(model.metainfo.clone(), &[path]).unwrap());
    let _shelved = bad.shelf.put(store.clone());

    let fetcher = soon(leech.open(&model)).await;
    let mut progress = fetcher.progress();
    let all = fetcher.fetch(model.all());
    let from_another = async {
        progress.wait_for(|progress| progress.pieces_here == 18).await.unwrap();
        model.shelve(&good)
    };
    let (all, _shelved) = soon(async { tokio::join!(all, from_another) }).await;
    all.unwrap();
    assert!(model.is_in(fetcher.store(), &model.all()));
    assert_eq!(leech.metrics.received.get(), model.metainfo.layout().total(), "nothing wrong came");
    assert_eq!((leech.metrics.wrong.get(), leech.metrics.left(Left::Wrong)), (0, 0));
    assert!(!leech.fetchers.banned.contains(&id(1)));
    assert_eq!((bad.metrics.damaged.get(), good.metrics.damaged.get()), (2, 0), "each was looked at once");
    assert_eq!(store.here(), model.all().without(&model.some([3, 11])));
    assert_eq!(good.metrics.sent.get(), 2 * PIECE as u64);
}

#[tokio::test(start_paused = true)]
async fn what_went_bad_where_it_was_fetched_is_fetched_again() {
    let (net, model) = (Net::default(), Model::of(20));
    let [seeder, relay, leech] = [1, 2, 3].map(|number| Node::new(&net, number));
    let shelved = model.shelve(&seeder);
    let relays = soon(relay.open(&model)).await;
    soon(relays.fetch(model.all())).await.unwrap();
    let path = relays.store().paths().next().unwrap().to_owned();
    let mut bytes = fs::read(&path).unwrap();
    bytes[3 * PIECE + 7] ^= 1;
    fs::write(&path, bytes).unwrap();
    shelved.take_off().await;

    let fetcher = soon(leech.open(&model)).await;
    let mut progress = fetcher.progress();
    let all = fetcher.fetch(model.all());
    let comes_back = async {
        progress.wait_for(|progress| progress.pieces_here == 19).await.unwrap();
        model.shelve(&seeder)
    };
    let (all, _shelved) = soon(async { tokio::join!(all, comes_back) }).await;
    all.unwrap();
    assert!(model.is_in(fetcher.store(), &model.all()));
    // Told by a second's tick of the other's load.
    soon(relays.fetch(model.all())).await.unwrap();
    let mut here = relays.progress();
    soon(here.wait_for(|progress| progress.pieces_here == 20)).await.unwrap();
    assert_eq!((relay.metrics.damaged.get(), leech.metrics.wrong.get()), (1, 0));
}
