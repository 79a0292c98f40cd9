//! The threads that kernels share their work among.

mod pool;

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use self::pool::Pool;

/// Where products are computed.
#[derive(Debug)]
pub(crate) struct Threads {
    pool: Option<Pool>,
    /// How many take part now, the caller among them.
    active: AtomicUsize,
}

impl Threads {
    /// So many, but no more than the cores that the process may use: one that waits for a core while the others wait
    /// for it is worse than none. One thread is the caller's own.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        // Heeds the process' affinity and the quota of its control group.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::exactly(count.min(cores))
    }

    /// As many as that, whatever the cores.
    pub(crate) fn exactly(count: usize) -> io::Result<Self> {
        let pool = if count > 1 { Some(Pool::start(count - 1)?) } else { None };
        Ok(Self { pool, active: AtomicUsize::new(count.max(1)) })
    }

    /// From now on so many of them take part, as far as there are so many.
    pub(crate) fn use_only(&self, count: usize) {
        self.active.store(count, Relaxed);
    }

    /// The pool, if others than the caller are to take part, and how many.
    fn helped(&self) -> Option<(&Pool, usize)> {
        let helpers = self.active.load(Relaxed).saturating_sub(1);
        self.pool.as_ref().filter(|_| helpers > 0).map(|pool| (pool, helpers))
    }

    /// Runs `each` for every number below `count`; which thread takes which is of no consequence.
    pub(crate) fn for_each(&self, count: usize, each: impl Fn(usize) + Sync) {
        match self.helped() {
            Some((pool, helpers)) if count > 1 => pool.for_each(helpers, count, &each),
            _ => (0..count).for_each(each),
        }
    }

    /// Runs `each` for every chunk of `out`, with the chunk's number; which thread takes which is of no consequence.
    pub(crate) fn for_chunks<T: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        each: impl Fn(usize, &mut [T]) + Sync,
    ) {
        match self.helped() {
            Some((pool, helpers)) if out.len() > chunk => pool.for_chunks(helpers, out, chunk, each),
            _ => out.chunks_mut(chunk).enumerate().for_each(|(number, part)| each(number, part)),
        }
    }

    /// Runs `each` for every part of `out`, with the part's number; which thread takes which is of no consequence. The
    /// part of a number is from its start to the next.
    ///
    /// # Panics
    /// When starts do not rise, or are not within `out`.
    pub(crate) fn for_parts<T: Send>(
        &self,
        out: &mut [T],
        starts: &[usize],
        each: impl Fn(usize, &mut [T]) + Sync,
    ) {
        match self.helped() {
            Some((pool, helpers)) if starts.len() > 2 => pool.for_parts(helpers, out, starts, each),
            _ => {
                for (number, part) in starts.windows(2).enumerate() {
                    each(number, &mut out[part[0]..part[1]]);
                }
            }
        }
    }

    /// How many take part.
    pub(crate) fn count(&self) -> usize {
        self.helped().map_or(1, |(pool, helpers)| pool.helpers().min(helpers) + 1)
    }
}
