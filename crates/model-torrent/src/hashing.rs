//! Going over all pieces with several threads.

use std::{
    num::NonZeroUsize,
    panic,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    thread,
};

use crate::{
    error::TorrentError,
    layout::{Layout, Piece},
    piece_set::PieceIndex,
};

/// How files are read and hashed.
pub struct Hashing<'a> {
    /// How many threads hash at once. Each has a buffer of one piece.
    pub threads: NonZeroUsize,
    /// Is told how many bytes are done, by any of the threads; a smaller number may come after a larger one.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

impl Hashing<'_> {
    /// Looks at each piece once, about in their order, and gives what was found in their order. The first error ends
    /// it. The buffer is the thread's own, to be used again.
    pub(crate) fn pieces<T: Send>(
        &self,
        layout: &Layout,
        look: impl Fn(&Piece, &mut Vec<u8>) -> Result<T, TorrentError> + Sync,
    ) -> Result<Vec<T>, TorrentError> {
        let (next, done) = (AtomicU32::new(0), AtomicU64::new(0));
        let work = || {
            let (mut found, mut buffer) = (vec![], vec![]);
            while let Some(piece) = layout.piece(PieceIndex(next.fetch_add(1, Relaxed))) {
                // The other threads need not go on.
                let one = look(&piece, &mut buffer).inspect_err(|_| next.store(layout.pieces(), Relaxed))?;
                found.push((piece.index, one));
                let length = u64::from(piece.length);
                (self.progress)(done.fetch_add(length, Relaxed) + length);
            }
            Ok(found)
        };
        let mut found = vec![];
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads.get()).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                found.extend(thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))?);
            }
            Ok(())
        })?;
        found.sort_unstable_by_key(|(index, _)| *index);
        Ok(found.into_iter().map(|(_, one)| one).collect())
    }
}
