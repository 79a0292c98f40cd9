//! What another BitTorrent client makes of our torrents.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use model_torrent::Metainfo;

use crate::{KIB, PIECE, files, hashing};

/// Debian's Python, which has libtorrent where `python3-libtorrent` is installed.
const PYTHON: &str = "/usr/bin/python3";

fn has_libtorrent() -> bool {
    Command::new(PYTHON)
        .args(["-c", "import libtorrent"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// As elsewhere: what is left out is told, and in CI nothing is.
fn is_left_out() -> bool {
    if has_libtorrent() {
        return false;
    }
    let ci = std::env::var("CI").is_ok_and(|ci| !matches!(ci.as_str(), "" | "0" | "false"));
    assert!(!ci, "must run in CI: install python3-libtorrent");
    // Not by `eprintln!`, which the test harness keeps to itself.
    let why = "\n!!! SKIPPED: torrents in another client: no python3-libtorrent\n";
    writeln!(std::io::stderr(), "{why}").expect("stderr");
    true
}

#[test]
fn libtorrent_has_the_same_info_hash_and_finds_every_piece() {
    if is_left_out() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/torrent.py");
    for lengths in [&[5][..], &[600 * KIB + 1], &[PIECE], &[300 * KIB, 5, PIECE]] {
        let folder = tempfile::tempdir().unwrap();
        let paths = files(folder.path(), lengths);
        let metainfo = Metainfo::of_files(&paths, &hashing()).unwrap();
        for (number, path) in paths.iter().enumerate() {
            let place: PathBuf = folder.path().join(metainfo.layout().path(number));
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::rename(path, place).unwrap();
        }
        let torrent = folder.path().join("model.torrent");
        fs::write(&torrent, metainfo.to_bytes()).unwrap();
        let mut client = Command::new(PYTHON);
        client.arg(&script).args([&torrent, folder.path()]).arg(metainfo.info_hash().to_string());
        let output = client.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.trim_end().ends_with("ok"), "{lengths:?}: {said}\n{error}");
    }
}
