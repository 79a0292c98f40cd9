//! From files to their torrent.

use std::{
    fs::{File, Metadata},
    path::{Path, PathBuf},
};

use crate::{
    disk,
    error::TorrentError,
    hashing::Hashing,
    layout::Layout,
    metainfo::{Metainfo, hash_piece},
};

impl Metainfo {
    /// Of a model's file, or of all its parts in any order. Each byte is read once.
    ///
    /// # Errors
    /// When a file cannot be read or changes meanwhile, or when they are not all parts of one model.
    pub fn of_files(paths: &[PathBuf], hashing: &Hashing<'_>) -> Result<Self, TorrentError> {
        let paths = in_order(paths)?;
        let open = |path: &&Path| File::open(path).map_err(TorrentError::io(*path));
        let files = paths.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let states = || -> Result<Vec<Metadata>, TorrentError> {
            let each = files.iter().zip(&paths);
            each.map(|(file, path)| file.metadata().map_err(TorrentError::io(*path))).collect()
        };
        let before = states()?;
        let lengths: Vec<_> = before.iter().map(Metadata::len).collect();
        let layout = Layout::new(&lengths).map_err(TorrentError::Files)?;
        let pieces = hashing.pieces(&layout, |piece, buffer| {
            buffer.resize(piece.length as usize, 0);
            let read = disk::read_at(&files[piece.file], buffer, piece.offset);
            read.map_err(TorrentError::io(paths[piece.file]))?;
            Ok(hash_piece(piece, buffer))
        })?;
        for ((before, after), path) in before.iter().zip(states()?).zip(&paths) {
            let same = before.len() == after.len() && before.modified().ok() == after.modified().ok();
            if !same {
                return Err(TorrentError::Changed { path: path.into() });
            }
        }
        Ok(Self::new(layout, pieces))
    }
}

/// The parts of a model by their numbers.
pub(crate) fn in_order(paths: &[PathBuf]) -> Result<Vec<&Path>, TorrentError> {
    let mut paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    if paths.len() < 2 {
        return Ok(paths);
    }
    paths.sort_by_key(|path| path.file_name());
    let first = paths[0].file_name().and_then(|name| name.to_str());
    let prefix = first.and_then(|name| name.strip_suffix(&part_suffix(1, paths.len())));
    for (place, path) in paths.iter().enumerate() {
        let expected = prefix.map(|prefix| format!("{prefix}{}", part_suffix(place + 1, paths.len())));
        if expected.is_none() || path.file_name().and_then(|name| name.to_str()) != expected.as_deref() {
            return Err(TorrentError::NotAPart { path: path.into() });
        }
    }
    Ok(paths)
}

/// As llama.cpp names the parts of a model.
fn part_suffix(number: usize, count: usize) -> String {
    format!("-{number:05}-of-{count:05}.gguf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_ordered_by_number_and_all_needed() {
        let order = |names: &[&str]| {
            let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
            in_order(&paths)
                .map(|paths| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(order(&["any.name"]).unwrap(), ["any.name"]);
        let two = ["b/m-00002-of-00002.gguf", "z/m-00001-of-00002.gguf"];
        assert_eq!(order(&two).unwrap(), [two[1], two[0]]);
        for wrong in [
            &["m-00001-of-00003.gguf", "m-00002-of-00003.gguf"][..],
            &["m-00001-of-00002.gguf", "m-00001-of-00002.gguf"],
            &["m-00001-of-00002.gguf", "n-00002-of-00002.gguf"],
            &["a.gguf", "b.gguf"],
        ] {
            assert!(matches!(order(wrong), Err(TorrentError::NotAPart { .. })), "{wrong:?}");
        }
    }
}
