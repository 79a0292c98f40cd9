//! One node fetches from one other.

use std::sync::Arc;

use model_torrent::{Hashing, Store, TorrentError};
use torrent_exchange::ExchangeError;

use crate::{
    net::{Model, Net, Node, PIECE},
    soon,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_comes_whole_the_header_first() {
    let (net, model) = (Net::default(), Model::of(40));
    let (seeder, leech) = (Node::new(&net, 1), Node::new(&net, 2));
    let _shelved = model.shelve(&seeder);
    let fetcher = soon(leech.open(&model)).await;
    assert_eq!(fetcher.metainfo(), &model.metainfo, "which nobody had told it");
    let header = model.some([0]);
    soon(fetcher.fetch(header.clone())).await.unwrap();
    assert!(fetcher.store().here() == header && model.is_in(fetcher.store(), &header));
    soon(fetcher.fetch(model.all())).await.unwrap();
    assert!(model.is_in(fetcher.store(), &model.all()));
    let total = model.metainfo.layout().total();
    let progress = *fetcher.progress().borrow();
    assert_eq!((progress.pieces_wanted, progress.pieces_here), (40, 40));
    assert_eq!((progress.bytes_wanted, progress.bytes_here), (total, total));
    assert_eq!(leech.metrics.received.get(), total, "nothing came twice");
    assert_eq!((seeder.metrics.sent.get(), leech.metrics.verified.get()), (total, 40));
    fetcher.close().await;
    assert!(leech.shelf.info_hashes().is_empty());
}

#[tokio::test]
async fn what_came_before_the_end_is_not_fetched_again() {
    let (net, model) = (Net::default(), Model::of(60));
    let (seeder, leech) = (Node::new(&net, 1), Node::new(&net, 2));
    let _shelved = model.shelve(&seeder);
    let fetcher = soon(leech.open(&model)).await;
    let mut progress = fetcher.progress();
    {
        let mut all = Box::pin(fetcher.fetch(model.all()));
        let some = progress.wait_for(|progress| progress.pieces_here >= 5);
        tokio::select! {
            _ = &mut all => panic!("too fast to be left in the middle"),
            some = soon(some) => assert!(some.is_ok()),
        }
    }
    drop(fetcher);
    let fetcher = soon(leech.open(&model)).await;
    let kept = fetcher.store().here();
    assert!(kept.count() >= 5 && !kept.is_full(), "{}", kept.count());
    let before = leech.metrics.received.get();
    soon(fetcher.fetch(model.all())).await.unwrap();
    assert!(model.is_in(fetcher.store(), &model.all()));
    let came = leech.metrics.received.get() - before;
    assert_eq!(came, model.bytes_of(&model.all().without(&kept)));
}

#[tokio::test]
async fn what_somebody_else_puts_into_the_store_is_not_waited_for() {
    let (net, model) = (Net::default(), Model::of(3));
    let leech = Node::new(&net, 1);
    let wanted = leech.wanted(model.metainfo.info_hash(), Some(model.metainfo.clone()));
    let fetcher = leech.fetchers.open(wanted).await.unwrap();
    let store = fetcher.store().clone();
    let fetch = tokio::spawn(async move { fetcher.fetch(model.some([1])).await.map(|()| model) });
    let file = crate::net::noise(2 * PIECE);
    store.write(model_torrent::PieceIndex(1), &file[PIECE..]).unwrap();
    assert!(soon(fetch).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_torrent_or_pieces_that_are_others_are_refused() {
    let (net, model, other) = (Net::default(), Model::of(3), Model::of(2));
    let leech = Node::new(&net, 1);
    let wanted = leech.wanted(model.metainfo.info_hash(), Some(other.metainfo.clone()));
    assert!(matches!(leech.fetchers.open(wanted).await, Err(ExchangeError::OtherTorrent)));
    let wanted = leech.wanted(model.metainfo.info_hash(), Some(model.metainfo.clone()));
    let fetcher = leech.fetchers.open(wanted.clone()).await.unwrap();
    let refused = fetcher.fetch(other.all()).await.unwrap_err();
    assert!(refused.to_string().contains("set of 2 pieces"), "{refused}");
    let hashing = Hashing { threads: std::num::NonZeroUsize::MIN, progress: &|_| {} };
    let busy = Store::open(&wanted.folder, Arc::clone(&model.metainfo), &hashing);
    assert!(matches!(busy, Err(TorrentError::Busy { .. })));
    fetcher.close().await;
    assert!(Store::open(&wanted.folder, model.metainfo, &hashing).is_ok(), "it is free when that is over");
}

#[cfg(unix)]
#[tokio::test]
async fn what_cannot_be_kept_ends_the_fetch_with_that_error() {
    let (net, model) = (Net::default(), Model::of(9));
    let (seeder, leech) = (Node::new(&net, 1), Node::new(&net, 2));
    let _shelved = model.shelve(&seeder);
    let wanted = leech.wanted(model.metainfo.info_hash(), None);
    let fetcher = soon(leech.fetchers.open(wanted.clone())).await.unwrap();
    // Then there is nowhere to write down which pieces are here.
    std::fs::remove_dir_all(&wanted.folder).unwrap();
    let (one, other) =
        soon(async { tokio::join!(fetcher.fetch(model.all()), fetcher.fetch(model.all())) }).await;
    for error in [one.unwrap_err(), other.unwrap_err()] {
        let ExchangeError::Torrent(cause) = error else { panic!("{error}") };
        assert!(matches!(&*cause, TorrentError::Io { .. }), "{cause}");
    }
}
