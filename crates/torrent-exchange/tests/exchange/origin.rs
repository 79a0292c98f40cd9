//! A node fetches from a place outside of the swarm too.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use model_torrent::{Piece, PieceIndex};
use torrent_exchange::{Fetcher, Origin, OriginError, OriginFailure, Reading};

use crate::{
    net::{Model, Net, Node, PIECE},
    soon,
};

/// Has a file, and does with each request what it is told to.
#[derive(Debug)]
struct Outside {
    file: Vec<u8>,
    asked: Mutex<Vec<PieceIndex>>,
    /// So many requests fail before any is answered.
    fails: AtomicUsize,
    gives: Gives,
}

#[derive(Debug)]
enum Gives {
    Right,
    Wrong,
    Nothing,
}

impl Outside {
    fn of(model: &Model, gives: Gives) -> Arc<Self> {
        let file = fs::read(&model.path).expect("it is there");
        Arc::new(Self { file, asked: Mutex::default(), fails: AtomicUsize::new(0), gives })
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("sound").len()
    }

    fn answer(&self, piece: Piece) -> Result<Vec<u8>, OriginError> {
        self.asked.lock().expect("sound").push(piece.index);
        if self.fails.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err(OriginError::Unavailable("busy".into()));
        }
        let start = piece.offset as usize;
        let mut bytes = self.file[start..start + piece.length as usize].to_vec();
        match self.gives {
            Gives::Right => {}
            Gives::Wrong => bytes[0] ^= 1,
            Gives::Nothing => return Err(OriginError::Useless("it gives no ranges".into())),
        }
        Ok(bytes)
    }
}

impl Origin for Outside {
    fn name(&self) -> String {
        "outside".into()
    }

    fn read(&self, piece: Piece) -> Reading<'_> {
        Box::pin(async move { self.answer(piece) })
    }
}

/// A fetcher that knows the torrent already.
async fn open(leech: &Node, model: &Model, origin: Arc<Outside>) -> Fetcher {
    let wanted = leech.wanted(model.metainfo.info_hash(), Some(model.metainfo.clone()));
    let fetcher = soon(leech.fetchers.open(wanted)).await.expect("opened");
    fetcher.read_from(origin).await.expect("it runs");
    fetcher
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_peer_has_comes_from_outside_and_nothing_else() {
    let (net, model) = (Net::default(), Model::of(20));
    let (half, leech) = (Node::new(&net, 1), Node::new(&net, 2));
    let here = model.some(0..10);
    let fetched = open(&half, &model, Outside::of(&model, Gives::Right)).await;
    soon(fetched.fetch(here.clone())).await.unwrap();
    assert_eq!(half.metrics.origin_received.get(), 10 * PIECE as u64, "there was nobody else");

    let outside = Outside::of(&model, Gives::Right);
    let fetcher = open(&leech, &model, outside.clone()).await;
    soon(fetcher.fetch(model.all())).await.unwrap();
    assert!(model.is_in(fetcher.store(), &model.all()));
    let gaps = model.all().without(&here);
    let asked = outside.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|piece| gaps.contains(*piece)), "{asked:?}");
    assert_eq!(asked.len(), 10, "each once");
    let progress = *fetcher.progress().borrow();
    assert_eq!((progress.pieces_here, leech.metrics.origin_received.get()), (20, model.bytes_of(&gaps)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_gives_other_bytes_or_none_is_left_and_peers_go_on() {
    for (gives, cause) in [(Gives::Wrong, OriginFailure::Wrong), (Gives::Nothing, OriginFailure::Useless)] {
        let (net, model) = (Net::default(), Model::of(12));
        let leech = Node::new(&net, 2);
        let outside = Outside::of(&model, gives);
        let fetcher = open(&leech, &model, outside.clone()).await;
        let left = async {
            while leech.metrics.origin_failures(cause) == 0 {
                tokio::task::yield_now().await;
            }
            let seeder = Node::new(&net, 1);
            let shelved = model.shelve(&seeder);
            (seeder, shelved)
        };
        let (fetched, _seeder) = soon(async { tokio::join!(fetcher.fetch(model.all()), left) }).await;
        fetched.unwrap();
        assert!(model.is_in(fetcher.store(), &model.all()));
        assert!((1..=4).contains(&outside.asked()), "{} pieces were asked for", outside.asked());
        assert_eq!(leech.metrics.origin_failures(cause), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_is_busy_is_asked_again_later() {
    let (net, model) = (Net::default(), Model::of(9));
    let leech = Node::new(&net, 2);
    let outside = Outside::of(&model, Gives::Right);
    outside.fails.store(1, Relaxed);
    let fetcher = open(&leech, &model, outside.clone()).await;
    soon(fetcher.fetch(model.all())).await.unwrap();
    assert!(model.is_in(fetcher.store(), &model.all()));
    assert_eq!(leech.metrics.origin_failures(OriginFailure::Unavailable), 1);
}
