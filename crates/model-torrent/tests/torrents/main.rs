//! Torrents of real files on disk: made, read, kept, and judged by another client.

mod clients;
mod hostile;
mod keeping;
mod killed;
mod known;
mod making;

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use model_torrent::{Hashing, Metainfo, PieceIndex};

const KIB: usize = 1024;
/// Of small models.
const PIECE: usize = 256 * KIB;

/// Two threads, so that they meet.
fn hashing() -> Hashing<'static> {
    Hashing { threads: NonZeroUsize::new(2).expect("not zero"), progress: &|_| {} }
}

/// Bytes that look random and are the same every time: xorshift64 (Marsaglia, "Xorshift RNGs").
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

/// Files of these lengths in a folder, named as a model's parts or as one model.
fn files(folder: &Path, lengths: &[usize]) -> Vec<PathBuf> {
    let name = |number| match lengths.len() {
        1 => "some name.gguf".to_owned(),
        count => format!("some-{number:05}-of-{count:05}.gguf"),
    };
    let write = |(place, length): (usize, &usize)| {
        let path = folder.join(name(place + 1));
        fs::write(&path, noise(*length, place as u64 + 1)).expect("written");
        path
    };
    lengths.iter().enumerate().map(write).collect()
}

/// A torrent of such files, and the bytes of each piece.
fn torrent(lengths: &[usize]) -> (Arc<Metainfo>, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = files(folder.path(), lengths);
    let metainfo = Metainfo::of_files(&paths, &hashing()).expect("a torrent");
    let read = |path| fs::read(path).expect("read");
    let pieces =
        paths.iter().flat_map(|path| read(path).chunks(PIECE).map(<[u8]>::to_vec).collect::<Vec<_>>());
    let pieces = pieces.collect();
    (metainfo.into(), pieces)
}

/// All pieces' numbers.
fn numbers(metainfo: &Metainfo) -> impl Iterator<Item = PieceIndex> + use<> {
    (0..metainfo.layout().pieces()).map(PieceIndex)
}
