//! From files to torrents, and to bytes and back.

use std::{
    fs,
    num::NonZeroUsize,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use model_torrent::{Hashing, Metainfo, TORRENT_LIMIT, TorrentError};
use swarm_types::ModelDigest;

use crate::{KIB, PIECE, files, hashing, noise, torrent};

#[test]
fn a_model_is_the_same_under_any_name_and_with_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let mut hashes = vec![];
    for (name, threads) in [("a.gguf", 1), ("another name", 3), ("a-00001-of-00001.gguf", 64)] {
        let path = folder.path().join(name);
        fs::write(&path, noise(5 * PIECE + 77, 9)).unwrap();
        let done = AtomicU64::new(0);
        let progress = |bytes| _ = done.fetch_max(bytes, Relaxed);
        let hashing = Hashing { threads: NonZeroUsize::new(threads).unwrap(), progress: &progress };
        hashes.push(Metainfo::of_files(&[path], &hashing).unwrap().info_hash());
        assert_eq!(done.into_inner(), (5 * PIECE + 77) as u64);
    }
    assert_eq!(hashes, [hashes[0]; 3]);
}

/// What nodes of all versions must agree on. libtorrent 2.0.8 makes the same of the same files, see `clients.rs`.
#[test]
fn info_hashes_never_change() {
    let table = [
        (&[5][..], "10f5b08455e5507233acb40b91ec8ff7c3ba7e0930c2eb05171ef3f900ab6bfd"),
        (&[600 * KIB + 1], "b2e3e806eb8f93ffcc9f76800a3ef53b6f3c8f44b2350a786846b8b905862237"),
        (&[300 * KIB, 5, PIECE], "d88a6e0b8084e4d875531a497bcfe7dd15a7cd618ca449987e4355876cf6ca2d"),
    ];
    let got = table.map(|(lengths, _)| torrent(lengths).0.info_hash().to_string());
    assert_eq!(got, table.map(|(_, expected)| expected));
}

#[test]
fn a_torrent_is_read_as_it_was_written() {
    for lengths in [&[1][..], &[PIECE], &[PIECE + 1], &[9 * PIECE - 3], &[3 * PIECE, 3, 700 * KIB]] {
        let metainfo = torrent(lengths).0;
        let bytes = metainfo.to_bytes();
        let again = Metainfo::from_bytes(&bytes, TORRENT_LIMIT).unwrap();
        assert_eq!(again, *metainfo);
        assert_eq!(again.to_bytes(), bytes);
        let shown = metainfo.info_hash().to_string();
        assert_eq!(shown.parse::<ModelDigest>().unwrap(), again.info_hash());
    }
}

/// Two parts with the same bytes have one layer together.
#[test]
fn files_with_the_same_bytes_are_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let paths = files(folder.path(), &[3 * PIECE, 1]);
    fs::copy(&paths[0], &paths[1]).unwrap();
    let metainfo = Metainfo::of_files(&paths, &hashing()).unwrap();
    assert_eq!(metainfo.layout().pieces(), 6);
    assert_eq!(Metainfo::from_bytes(&metainfo.to_bytes(), TORRENT_LIMIT).unwrap(), metainfo);
}

#[test]
fn what_cannot_be_hashed_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let there = files(folder.path(), &[10, 0]);
    let gone = folder.path().join("gone.gguf");
    let make = |paths: &[PathBuf]| Metainfo::of_files(paths, &hashing()).unwrap_err();
    assert!(matches!(make(std::slice::from_ref(&gone)), TorrentError::Io { path, .. } if path == gone));
    assert!(matches!(make(&[]), TorrentError::Files(_)));
    assert!(make(&there).to_string().contains("file 2 is empty"));
    assert!(matches!(make(&[there[0].clone(), gone.clone()]), TorrentError::NotAPart { .. }));
}
