//! Small files that are whole or not there: their bytes are followed by their hash, and they get their name when they
//! are written.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    path::Path,
    time::UNIX_EPOCH,
};

use crate::hash::Hash;

/// Bytes of the hash at the end.
const SEAL: usize = 32;

/// Saves `subject` and `body`.
pub(crate) fn save(path: &Path, subject: &[u8], body: &[u8]) -> io::Result<()> {
    let content = [subject, body].concat();
    replace(path, &[content.as_slice(), &Hash::of(&content).0].concat())
}

/// Writes a file as a whole. After a loss of power there is the old one, the new one, or one that is not whole.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let written = File::create(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        // Before it gets its name: a file with the name has its bytes.
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&part, path)).inspect_err(|_| _ = fs::remove_file(&part))
}

/// The body of a file that is whole, about this subject, and no longer than `limit`.
pub(crate) fn load(path: &Path, subject: &[u8], limit: usize) -> Option<Vec<u8>> {
    load_about(path, subject, 0, limit)
}

/// The same, where `unknown` bytes of the subject are not known, which are its last.
pub(crate) fn load_about(path: &Path, subject: &[u8], unknown: usize, limit: usize) -> Option<Vec<u8>> {
    let most = subject.len() + unknown + limit + SEAL;
    let mut bytes = vec![];
    File::open(path).ok()?.take(most as u64 + 1).read_to_end(&mut bytes).ok()?;
    let (content, seal) = bytes.split_at_checked(bytes.len().checked_sub(SEAL)?)?;
    let body = content.strip_prefix(subject)?.get(unknown..)?;
    let whole = bytes.len() <= most && seal == Hash::of(content).0;
    whole.then(|| body.to_vec())
}

/// A file's length and when it was modified: another file, or a changed one, has another stamp.
pub(crate) fn stamp(file: &Metadata) -> io::Result<[u8; 24]> {
    let modified = match file.modified()?.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    };
    let mut stamp = [0; 24];
    stamp[..8].copy_from_slice(&file.len().to_be_bytes());
    stamp[8..].copy_from_slice(&modified.to_be_bytes());
    Ok(stamp)
}
