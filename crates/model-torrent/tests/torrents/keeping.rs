//! Pieces on disk: what is here is what was written, whatever happened to the folder meanwhile.

use std::{
    fs::{self, File, FileTimes},
    io,
    num::NonZeroUsize,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use model_torrent::{Hashing, Metainfo, PieceIndex, Store, TORRENT_LIMIT, TorrentError};

use crate::{KIB, PIECE, files, hashing, noise, numbers, torrent};

fn here(store: &Store) -> Vec<u32> {
    store.here().iter().map(|piece| piece.0).collect()
}

/// What is in the folder, and whether that had to be hashed.
fn reopened(folder: &Path, metainfo: &Arc<Metainfo>) -> (Vec<u32>, bool) {
    let hashed = AtomicBool::new(false);
    let progress = |_| hashed.store(true, Relaxed);
    let hashing = Hashing { threads: NonZeroUsize::MIN, progress: &progress };
    let store = Store::open(folder, metainfo.clone(), &hashing).expect("opened");
    (here(&store), hashed.into_inner())
}

#[test]
fn pieces_come_in_any_order_and_are_served_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let (metainfo, pieces) = torrent(&[600 * KIB + 1, 40 * KIB]);
    let store = Store::open(folder.path(), metainfo.clone(), &hashing()).unwrap();
    assert!(here(&store).is_empty());
    let length = fs::metadata(store.paths().next().unwrap()).unwrap();
    assert_eq!(length.len(), 600 * KIB as u64 + 1);
    assert!(length.blocks() * 512 < length.len(), "nothing is there yet");
    for piece in [2, 0, 3, 1] {
        assert!(matches!(store.read(PieceIndex(piece), 0..1), Err(TorrentError::NotHere { .. })));
        store.write(PieceIndex(piece), &pieces[piece as usize]).unwrap();
        assert!(store.has(PieceIndex(piece)));
        store.check(PieceIndex(piece)).unwrap();
        assert_eq!(store.read(PieceIndex(piece), 3..9).unwrap(), pieces[piece as usize][3..9]);
    }
    assert!(store.here().is_full());
    assert!(matches!(store.read(PieceIndex(3), 0..40 * KIB as u32 + 1), Err(TorrentError::OutOfBounds(_))));
    let paths: Vec<_> = store.paths().map(Path::to_owned).collect();
    for (path, whole) in paths.iter().zip([&pieces[..3].concat(), &pieces[3]]) {
        assert_eq!(&fs::read(path).unwrap(), whole);
    }
    assert_eq!(Metainfo::of_files(&paths, &hashing()).unwrap(), *metainfo);
}

#[test]
fn other_bytes_are_refused_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (metainfo, pieces) = torrent(&[2 * PIECE]);
    let store = Store::open(folder.path(), metainfo, &hashing()).unwrap();
    store.write(PieceIndex(0), &pieces[0]).unwrap();
    for (piece, bytes) in [(1, &pieces[0][..]), (0, &pieces[1]), (1, &pieces[1][1..]), (1, &[])] {
        let refused = store.write(PieceIndex(piece), bytes);
        assert!(matches!(refused, Err(TorrentError::WrongBytes { piece: named }) if named.0 == piece));
    }
    assert_eq!(here(&store), [0]);
    assert_eq!(store.read(PieceIndex(0), 0..PIECE as u32).unwrap(), pieces[0]);
}

#[test]
fn a_record_counts_for_files_that_nobody_touched() {
    let folder = tempfile::tempdir().unwrap();
    let (metainfo, pieces) = torrent(&[5 * PIECE, 9]);
    let store = Store::open(folder.path(), metainfo.clone(), &hashing()).unwrap();
    [1, 3, 5].into_iter().for_each(|piece| store.write(PieceIndex(piece), &pieces[piece as usize]).unwrap());
    let path = store.paths().next().unwrap().to_owned();
    drop(store);
    assert_eq!(Store::torrent_in(folder.path()).as_ref(), Some(&*metainfo));
    assert_eq!(reopened(folder.path(), &metainfo), (vec![1, 3, 5], false));

    // A byte of piece 3 turns.
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[pieces[3][0] ^ 1], 3 * PIECE as u64).unwrap();
    assert_eq!(reopened(folder.path(), &metainfo), (vec![1, 5], true));
    assert_eq!(reopened(folder.path(), &metainfo), (vec![1, 5], false), "what was hashed is recorded");

    // The file is cut off, then only touched, then gone.
    file.set_len(PIECE as u64 + 5).unwrap();
    assert_eq!(reopened(folder.path(), &metainfo), (vec![5], true));
    file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH - Duration::from_nanos(100)))
        .unwrap();
    assert_eq!(reopened(folder.path(), &metainfo), (vec![5], true));
    fs::remove_file(&path).unwrap();
    assert_eq!(reopened(folder.path(), &metainfo), (vec![5], true));
}

#[test]
fn a_damaged_record_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (metainfo, pieces) = torrent(&[3 * PIECE]);
    let store = Store::open(folder.path(), metainfo.clone(), &hashing()).unwrap();
    store.write(PieceIndex(1), &pieces[1]).unwrap();
    drop(store);
    let record = folder.path().join("model.pieces");
    let whole = fs::read(&record).unwrap();
    let bit_field = whole.len() - 33;
    assert_eq!(whole[bit_field], 0b0100_0000);
    for at in [0, 50, bit_field, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x80;
        fs::write(&record, damaged).unwrap();
        assert_eq!(reopened(folder.path(), &metainfo), (vec![1], true), "byte {at}");
    }
    for damaged in [&whole[..0], &whole[..40], &whole[..whole.len() - 1], &[&whole[..], &[0]].concat()] {
        fs::write(&record, damaged).unwrap();
        assert_eq!(reopened(folder.path(), &metainfo), (vec![1], true), "{} bytes", damaged.len());
    }
    assert_eq!(reopened(folder.path(), &metainfo), (vec![1], false));
}

#[test]
fn another_torrents_record_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (one, pieces) = torrent(&[2 * PIECE]);
    Store::open(folder.path(), one.clone(), &hashing()).unwrap().write(PieceIndex(0), &pieces[0]).unwrap();
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("other");
    fs::write(&path, [&pieces[1][..], &noise(PIECE, 99)].concat()).unwrap();
    let other = Arc::new(Metainfo::of_files(&[path], &hashing()).unwrap());
    assert_eq!(reopened(folder.path(), &other), (vec![], true));
    assert_eq!(Store::torrent_in(folder.path()).unwrap().info_hash(), other.info_hash());
}

#[test]
fn a_folder_has_one_keeper() {
    let folder = tempfile::tempdir().unwrap();
    let (metainfo, _) = torrent(&[10]);
    let first = Store::open(folder.path(), metainfo.clone(), &hashing()).unwrap();
    let second = Store::open(folder.path(), metainfo.clone(), &hashing());
    assert!(matches!(second, Err(TorrentError::Busy { path }) if path.starts_with(folder.path())));
    drop(first);
    Store::open(folder.path(), metainfo, &hashing()).unwrap();
}

#[test]
fn whole_files_are_served_from_where_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    let paths = files(folder.path(), &[2 * PIECE + 5, 7]);
    let metainfo = Arc::new(Metainfo::of_files(&paths, &hashing()).unwrap());
    let other_order = [paths[1].clone(), paths[0].clone()];
    let store = Store::whole(metainfo.clone(), &other_order).unwrap();
    assert!(store.here().is_full());
    for piece in numbers(&metainfo) {
        let length = metainfo.layout().piece(piece).unwrap().length;
        let bytes = store.read(piece, 0..length).unwrap();
        metainfo.verify_piece(piece, &bytes).unwrap();
        store.write(piece, &bytes).unwrap();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is put beside them");

    // Somebody writes into the file: what is no longer true is not told.
    let file = File::options().write(true).open(&paths[0]).unwrap();
    file.write_all_at(&noise(9, 5), PIECE as u64).unwrap();
    assert!(matches!(store.check(PieceIndex(1)), Err(TorrentError::WrongBytes { .. })));
    assert!(!store.has(PieceIndex(1)) && store.has(PieceIndex(0)));

    file.set_len(9).unwrap();
    assert!(matches!(Store::whole(metainfo.clone(), &paths), Err(TorrentError::Length { got: 9, .. })));
    assert!(matches!(Store::whole(metainfo, &paths[..1]), Err(TorrentError::Files(_))));
}

#[test]
fn several_threads_write_and_read_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (metainfo, pieces) = torrent(&[40 * PIECE]);
    let store = Store::open(folder.path(), metainfo.clone(), &hashing()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, pieces) = (&store, &pieces);
            // Each piece comes twice.
            scope.spawn(move || {
                for piece in (0..40).filter(|piece| piece % 2 == thread % 2) {
                    store.write(PieceIndex(piece), &pieces[piece as usize]).unwrap();
                    assert_eq!(
                        store.read(PieceIndex(piece), 0..PIECE as u32).unwrap(),
                        pieces[piece as usize]
                    );
                }
            });
        }
    });
    drop(store);
    assert_eq!(reopened(folder.path(), &metainfo), ((0..40).collect(), false));
}

/// A piece of zeros looks like a hole.
#[test]
fn zeros_that_belong_there_are_here() {
    let (source, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = source.path().join("zeros");
    fs::write(&path, [vec![0; 2 * PIECE], noise(PIECE, 3)].concat()).unwrap();
    let metainfo = Arc::new(Metainfo::of_files(&[path], &hashing()).unwrap());
    Metainfo::from_bytes(&metainfo.to_bytes(), TORRENT_LIMIT).unwrap();
    let store = Store::open(folder.path(), metainfo.clone(), &hashing()).unwrap();
    store.write(PieceIndex(0), &vec![0; PIECE]).unwrap();
    drop(store);
    fs::remove_file(folder.path().join("model.pieces")).unwrap();
    assert_eq!(reopened(folder.path(), &metainfo), (vec![0, 1], true), "what hashes to it is it");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let below = file.path().join("below");
    let refused = Store::open(&below, torrent(&[10]).0, &hashing());
    assert!(matches!(refused, Err(TorrentError::Io { path, source })
        if path == below && source.kind() == io::ErrorKind::NotADirectory));
}

#[test]
fn only_its_own_bytes_are_a_piece() {
    let (metainfo, pieces) = torrent(&[PIECE + 10]);
    metainfo.verify_piece(PieceIndex(1), &pieces[1]).unwrap();
    for wrong in [&pieces[1][1..], &pieces[0], &[&pieces[1][..], &[0]].concat()] {
        assert!(matches!(metainfo.verify_piece(PieceIndex(1), wrong), Err(TorrentError::WrongBytes { .. })));
    }
    assert!(matches!(metainfo.verify_piece(PieceIndex(2), &[]), Err(TorrentError::OutOfBounds(_))));
}
