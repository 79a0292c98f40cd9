//! A model's files are hashed once.

use std::{fs, num::NonZeroUsize, path::Path};

use model_torrent::{Hashing, Known, Metainfo};

use crate::{PIECE, files, hashing, noise};

fn must_not_hash() -> Hashing<'static> {
    Hashing { threads: NonZeroUsize::MIN, progress: &|_| panic!("hashed again") }
}

fn the_one_file(folder: &Path) -> std::path::PathBuf {
    let mut entries = fs::read_dir(folder).expect("a folder");
    let only = entries.next().expect("a file").expect("a file").path();
    assert!(entries.next().is_none(), "one file a model, and no half ones");
    only
}

#[test]
fn a_model_is_hashed_again_only_when_it_changed() {
    let (models, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let known = Known::new(cache.path().join("not there yet"));
    let paths = files(models.path(), &[2 * PIECE, 3]);
    assert_eq!(known.find(&paths), None);
    let first = known.torrent_of(&paths, &hashing()).unwrap();
    assert_eq!(known.torrent_of(&paths, &must_not_hash()).unwrap(), first);
    let other_order = [paths[1].clone(), paths[0].clone()];
    assert_eq!(known.torrent_of(&other_order, &must_not_hash()).unwrap(), first);
    fs::write(&paths[1], [0; 3]).unwrap();
    assert_eq!(known.find(&paths), None);
    let second = known.torrent_of(&paths, &hashing()).unwrap();
    assert_ne!(second, first);
    assert_eq!(known.find(&paths), Some(second));
    the_one_file(&cache.path().join("not there yet"));
}

#[test]
fn a_damaged_note_is_as_none() {
    let (models, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let known = Known::new(cache.path());
    let paths = files(models.path(), &[2 * PIECE]);
    let torrent = known.torrent_of(&paths, &hashing()).unwrap();
    let note = the_one_file(cache.path());
    let whole = fs::read(&note).unwrap();
    let mut turned = whole.clone();
    turned[whole.len() / 2] ^= 1;
    for damaged in [vec![], whole[..whole.len() - 1].to_vec(), turned, noise(100, 1)] {
        fs::write(&note, damaged).unwrap();
        assert_eq!(known.find(&paths), None);
        assert_eq!(known.torrent_of(&paths, &hashing()).unwrap(), torrent);
        assert_eq!(fs::read(&note).unwrap(), whole);
    }
}

#[test]
fn a_cache_that_cannot_be_written_only_costs_time() {
    let models = tempfile::tempdir().unwrap();
    let paths = files(models.path(), &[PIECE]);
    let known = Known::new(paths[0].join("below a file"));
    assert_eq!(
        known.torrent_of(&paths, &hashing()).unwrap(),
        Metainfo::of_files(&paths, &hashing()).unwrap()
    );
    assert_eq!(known.find(&paths), None);
}
