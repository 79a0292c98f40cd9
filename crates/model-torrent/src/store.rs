//! Keeps a torrent's pieces on disk, and knows after any end of the process which of them are there.
//!
//! Each file has its whole length from the beginning, with holes where pieces are missing (on a disk without holes it
//! takes its whole length). Beside the files lie the torrent, a record of the pieces, and a lock.
//!
//! What the record says is never more than what is there. A piece is written, then the file is synced, then the record,
//! a new file each time, is synced and gets its name. A process that is killed leaves the record behind the files; a
//! loss of power does too, unless the disk lies about having synced. The record carries length and modification time of
//! each file, so it counts only for files that nobody has touched since. If anything about it is otherwise, all pieces
//! are hashed again.

mod kept;
mod lock;
mod record;

use std::{
    fs::{self, File, OpenOptions},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use crate::{
    disk,
    dot_torrent::TORRENT_LIMIT,
    error::TorrentError,
    hashing::Hashing,
    layout::Piece,
    making::in_order,
    metainfo::{Metainfo, hash_piece},
    piece_set::{PieceIndex, PieceSet},
    sealed,
};

pub use kept::Kept;
pub use lock::is_used;

use lock::Lock;
use record::Record;

/// Syncing each piece would make the disk the slowest part. So much is fetched again in seconds, if power is lost; who
/// is only killed loses nothing but the time to hash.
const SYNC_EVERY: u64 = 64 << 20;

/// The torrent in the folder.
const TORRENT: &str = "model.torrent";
/// Who has it locked keeps the folder.
const LOCK: &str = "lock";

/// A torrent's pieces that are here. Reading and writing may go on in several threads at once.
#[derive(Debug)]
pub struct Store {
    metainfo: Arc<Metainfo>,
    files: Vec<OpenFile>,
    here: RwLock<PieceSet>,
    /// Nothing for files that are whole and of others: they are not written to.
    keeping: Option<Keeping>,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: File,
}

#[derive(Debug)]
struct Keeping {
    record: Record,
    /// Written, but not in the record yet. Locked while something is written or synced.
    unsynced: Mutex<Vec<Piece>>,
    _lock: Lock,
}

impl Store {
    /// The pieces in a folder, which is made if need be. It belongs to this torrent alone.
    ///
    /// # Errors
    /// When another process keeps the folder, or it cannot be read and written.
    pub fn open(folder: &Path, metainfo: Arc<Metainfo>, hashing: &Hashing<'_>) -> Result<Self, TorrentError> {
        fs::create_dir_all(folder).map_err(TorrentError::io(folder))?;
        let lock = Lock::take(&folder.join(LOCK))?;
        let record = Record::new(folder, metainfo.info_hash());
        let (mut files, mut states) = (vec![], vec![]);
        for (number, length) in metainfo.layout().lengths().enumerate() {
            let (file, state) = open_file(folder.join(metainfo.layout().path(number)), length)?;
            files.push(file);
            states.push(state);
        }
        let empty = states.iter().all(|state| state.is_none());
        let stamps = states.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>();
        let recorded = record.load(&stamps, metainfo.layout().pieces());
        let is_recorded = recorded.is_some();
        let known = recorded.or_else(|| empty.then(|| PieceSet::empty(metainfo.layout().pieces())));
        let here = known.map_or_else(|| find_pieces(&metainfo, &files, hashing), Ok)?;
        let keeping = Keeping { record, unsynced: Mutex::default(), _lock: lock };
        let store = Self { metainfo, files, here: RwLock::new(here), keeping: Some(keeping) };
        if Self::torrent_in(folder).is_none_or(|torrent| torrent != *store.metainfo) {
            let (path, bytes) = (folder.join(TORRENT), store.metainfo.to_bytes());
            sealed::replace(&path, &bytes).map_err(TorrentError::writing(path, bytes.len() as u64))?;
        }
        if !is_recorded {
            // That it cannot be recorded, on a full disk for example, only costs the same time again.
            _ = store.sync();
        }
        Ok(store)
    }

    /// The files that a torrent was made of, where they lie. They are only read, and not hashed again. As long as this
    /// lives, they have a lock that others can share, as far as the disk has locks.
    ///
    /// # Errors
    /// When one cannot be read, or has another length than in the torrent, or they are not all parts of one model.
    pub fn whole(metainfo: Arc<Metainfo>, paths: &[PathBuf]) -> Result<Self, TorrentError> {
        let (layout, paths, mut files) = (metainfo.layout(), in_order(paths)?, vec![]);
        if paths.len() != layout.files() {
            let reason = format!("there are {} files, the torrent has {}", paths.len(), layout.files());
            return Err(TorrentError::Files(reason));
        }
        for (path, expected) in paths.iter().zip(layout.lengths()) {
            let file = File::open(path).map_err(TorrentError::io(path))?;
            let got = file.metadata().map_err(TorrentError::io(path))?.len();
            if got != expected {
                return Err(TorrentError::Length { path: path.into(), expected, got });
            }
            lock::use_whole(&file);
            files.push(OpenFile { path: path.into(), file });
        }
        let here = RwLock::new(PieceSet::full(layout.pieces()));
        Ok(Self { metainfo, files, here, keeping: None })
    }

    /// Of which torrent a folder has pieces. Nothing if that cannot be read, or is damaged.
    #[must_use]
    pub fn torrent_in(folder: &Path) -> Option<Metainfo> {
        let path = folder.join(TORRENT);
        let short = fs::metadata(&path).ok()?.len() <= TORRENT_LIMIT as u64;
        Metainfo::from_bytes(&fs::read(path).ok().filter(|_| short)?, TORRENT_LIMIT).ok()
    }

    /// Which torrent.
    #[must_use]
    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.metainfo
    }

    /// Which pieces are here.
    #[must_use]
    pub fn here(&self) -> PieceSet {
        self.here.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a piece is here.
    #[must_use]
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.here.read().unwrap_or_else(PoisonError::into_inner).contains(piece)
    }

    /// Where the files lie, in order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// In which file a piece lies.
    #[must_use]
    pub fn path_of(&self, index: PieceIndex) -> Option<&Path> {
        let piece = self.metainfo.layout().piece(index)?;
        self.files.get(piece.file).map(|file| file.path.as_path())
    }

    /// A part of a piece that is here.
    ///
    /// # Errors
    /// When the piece is not here, has no such bytes, or cannot be read.
    pub fn read(&self, index: PieceIndex, range: Range<u32>) -> Result<Vec<u8>, TorrentError> {
        let (piece, _) = self.metainfo.piece(index)?;
        if range.start > range.end || range.end > piece.length {
            return Err(TorrentError::OutOfBounds(format!("bytes {range:?} of piece {index}")));
        }
        if !self.has(index) {
            return Err(TorrentError::NotHere { piece: index });
        }
        let from = &self.files[piece.file];
        let mut bytes = vec![0; range.len()];
        let read = disk::read_at(&from.file, &mut bytes, piece.offset + u64::from(range.start));
        read.map_err(TorrentError::io(&from.path))?;
        Ok(bytes)
    }

    /// Reads and hashes a piece that is here: a file can be written to by others, and disks go bad. A piece that is
    /// wrong counts as not here from then on.
    ///
    /// # Errors
    /// As [`Self::read`]; and when the file has other bytes by now.
    pub fn check(&self, index: PieceIndex) -> Result<(), TorrentError> {
        let (piece, _) = self.metainfo.piece(index)?;
        let bytes = self.read(index, 0..piece.length)?;
        self.metainfo.verify_piece(index, &bytes).inspect_err(|_| {
            self.forget(&[piece]);
            // It will be written over: until then, the record must not go on saying that it is here.
            _ = self.sync();
        })
    }

    /// Puts a whole piece where it belongs, if these are its bytes. It is here from then on; that it is here after a
    /// loss of power is sure after [`Self::sync`], which happens by itself now and then and at the last piece.
    ///
    /// # Errors
    /// When these are not the piece's bytes, or they cannot be written; a full disk is [`TorrentError::NoSpace`].
    pub fn write(&self, index: PieceIndex, bytes: &[u8]) -> Result<(), TorrentError> {
        self.metainfo.verify_piece(index, bytes)?;
        let (piece, _) = self.metainfo.piece(index)?;
        let Some(keeping) = &self.keeping else { return Ok(()) };
        let mut unsynced = keeping.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has(index) {
            return Ok(());
        }
        let to = &self.files[piece.file];
        let written = disk::write_at(&to.file, bytes, piece.offset);
        written.map_err(|error| TorrentError::writing(&to.path, self.missing(piece.file))(error))?;
        let full = {
            let mut here = self.here.write().unwrap_or_else(PoisonError::into_inner);
            here.insert(index);
            here.is_full()
        };
        unsynced.push(piece);
        let waiting: u64 = unsynced.iter().map(|piece| u64::from(piece.length)).sum();
        if full || waiting >= SYNC_EVERY { self.sync_all(keeping, &mut unsynced) } else { Ok(()) }
    }

    /// Makes sure that all pieces that are here are here after a loss of power too.
    ///
    /// # Errors
    /// When the disk refuses. Pieces of which it is not sure then count as not here.
    pub fn sync(&self) -> Result<(), TorrentError> {
        let Some(keeping) = &self.keeping else { return Ok(()) };
        let mut unsynced = keeping.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        self.sync_all(keeping, &mut unsynced)
    }

    fn sync_all(&self, keeping: &Keeping, unsynced: &mut Vec<Piece>) -> Result<(), TorrentError> {
        let mut stamps = vec![];
        for (number, OpenFile { path, file }) in self.files.iter().enumerate() {
            // A system that failed to write may forget what it had: nobody knows what of it is there.
            let synced = file.sync_all().inspect_err(|_| self.forget(&std::mem::take(unsynced)));
            synced.map_err(|error| TorrentError::writing(path, self.missing(number))(error))?;
            let stamp = file.metadata().and_then(|state| sealed::stamp(&state));
            stamps.push(stamp.map_err(TorrentError::io(path))?);
        }
        keeping.record.save(&stamps, &self.here())?;
        unsynced.clear();
        Ok(())
    }

    fn forget(&self, pieces: &[Piece]) {
        let mut here = self.here.write().unwrap_or_else(PoisonError::into_inner);
        pieces.iter().for_each(|piece| here.remove(piece.index));
    }

    /// Bytes of a file that are not here.
    fn missing(&self, file: usize) -> u64 {
        let (here, layout) = (self.here(), self.metainfo.layout());
        let missing = layout.pieces_of(file).unwrap_or_default().map(PieceIndex);
        let missing = missing.filter(|piece| !here.contains(*piece)).filter_map(|piece| layout.piece(piece));
        missing.map(|piece| u64::from(piece.length)).sum()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let waiting =
            |keeping: &Keeping| !keeping.unsynced.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if self.keeping.as_ref().is_some_and(waiting) {
            // Whoever opens it next hashes instead.
            _ = self.sync();
        }
    }
}

/// A file of this length, and the stamp that it had; no stamp if there was nothing.
fn open_file(path: PathBuf, length: u64) -> Result<(OpenFile, Option<[u8; 24]>), TorrentError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(TorrentError::io(folder))?;
    }
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let file = file.map_err(TorrentError::io(&path))?;
    let state = file.metadata().map_err(TorrentError::io(&path))?;
    let stamp = sealed::stamp(&state).map_err(TorrentError::io(&path))?;
    if state.len() != length {
        file.set_len(length).map_err(TorrentError::writing(&path, length))?;
    }
    Ok((OpenFile { path, file }, (state.len() > 0).then_some(stamp)))
}

/// Which pieces are in the files, by their hashes.
fn find_pieces(
    metainfo: &Metainfo,
    files: &[OpenFile],
    hashing: &Hashing<'_>,
) -> Result<PieceSet, TorrentError> {
    let layout = metainfo.layout();
    let zeros = layout.piece(PieceIndex(0)).filter(|piece| piece.length == layout.piece_length());
    let zeros = zeros.map(|piece| hash_piece(&piece, &vec![0; piece.length as usize]));
    let found = hashing.pieces(layout, |piece, buffer| {
        buffer.resize(piece.length as usize, 0);
        let from = &files[piece.file];
        disk::read_at(&from.file, buffer, piece.offset).map_err(TorrentError::io(&from.path))?;
        let (_, hash) = metainfo.piece(piece.index)?;
        // Most of a file may be a hole, which is read faster than hashed.
        let hole = piece.length == layout.piece_length() && is_zero(buffer);
        Ok(match zeros.filter(|_| hole) {
            Some(zeros) => zeros == *hash,
            None => hash_piece(piece, buffer) == *hash,
        })
    })?;
    let mut here = PieceSet::empty(layout.pieces());
    let right = (0..).map(PieceIndex).zip(found).filter(|(_, right)| *right);
    right.for_each(|(piece, _)| here.insert(piece));
    Ok(here)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|some| some.iter().fold(0, |all, byte| all | byte) == 0)
}
