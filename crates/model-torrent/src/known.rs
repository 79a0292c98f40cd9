//! Torrents of files that were hashed before: a file is hashed once, not at every start.

use std::{
    fs,
    path::{self, Path, PathBuf},
};

use crate::{
    dot_torrent::TORRENT_LIMIT, error::TorrentError, hash::Hash, hashing::Hashing, making::in_order,
    metainfo::Metainfo, sealed,
};

/// Another form of these files has another number.
const FORM: &[u8] = b"llama-swarm torrent of files, form 1\n";

/// A folder with a small file for each model that was hashed. It is found by the paths of the model's files, and counts
/// while their lengths and modification times, to the nanosecond, are the same.
#[derive(Clone, Debug)]
pub struct Known {
    folder: PathBuf,
}

impl Known {
    /// In this folder, which need not be there.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The torrent of these files, if they were hashed before and are as they were.
    #[must_use]
    pub fn find(&self, paths: &[PathBuf]) -> Option<Metainfo> {
        let (place, subject) = self.entry(paths).ok()?;
        let torrent = sealed::load(&place, &subject, TORRENT_LIMIT)?;
        Metainfo::from_bytes(&torrent, TORRENT_LIMIT).ok()
    }

    /// The torrent of these files, from before or by hashing them now. That it cannot be kept is no error: it is only
    /// slower the next time.
    ///
    /// # Errors
    /// As [`Metainfo::of_files`].
    pub fn torrent_of(&self, paths: &[PathBuf], hashing: &Hashing<'_>) -> Result<Metainfo, TorrentError> {
        if let Some(known) = self.find(paths) {
            return Ok(known);
        }
        let (place, subject) = self.entry(paths)?;
        let metainfo = Metainfo::of_files(paths, hashing)?;
        let unchanged = self.entry(paths).is_ok_and(|(_, now)| now == subject);
        if unchanged && fs::create_dir_all(&self.folder).is_ok() {
            _ = sealed::save(&place, &subject, &metainfo.to_bytes());
        }
        Ok(metainfo)
    }

    /// Forgets what is known of these files, which are there still. That it cannot be forgotten harms nobody.
    pub fn forget(&self, paths: &[PathBuf]) {
        if let Ok((place, _)) = self.entry(paths) {
            _ = fs::remove_file(place);
        }
    }

    /// Where the file about these files lies, and how it begins.
    fn entry(&self, paths: &[PathBuf]) -> Result<(PathBuf, Vec<u8>), TorrentError> {
        let mut subject = FORM.to_vec();
        let mut names = vec![];
        for path in in_order(paths)? {
            let absolute = path::absolute(path).map_err(TorrentError::io(path))?;
            let stamp = fs::metadata(&absolute).and_then(|file| sealed::stamp(&file));
            let name = name_bytes(&absolute);
            subject.extend([name.as_slice(), &stamp.map_err(TorrentError::io(path))?].concat());
            names.extend(name);
        }
        Ok((self.folder.join(format!("{}.torrent-of", Hash::of(&names))), subject))
    }
}

/// A path, with its length before it so that no two lists of paths are the same bytes.
fn name_bytes(path: &Path) -> Vec<u8> {
    let bytes = path.as_os_str().as_encoded_bytes();
    [&(bytes.len() as u64).to_be_bytes(), bytes].concat()
}
