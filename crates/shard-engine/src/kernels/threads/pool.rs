//! Threads that help the caller with short pieces of work, hundreds of times for each token.
//!
//! A job is a number of pieces, which caller and helpers take one after the other. The caller does not wait for a
//! helper that has not come yet: only for those that are at work when nothing is left to take. A helper that finds no
//! job spins for a moment, as the next one is usually near, and then sleeps.

#![allow(unsafe_code)]

use std::{
    hint, io,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long a helper looks for the next job before it sleeps: longer than what the caller does alone between two of
/// them, and a small part of a step.
const SPIN: Duration = Duration::from_micros(50);

/// Looks between two looks at the clock, or between two offers of the core to others.
const LOOKS: u32 = 64;

/// Of the state: the job is open to helpers.
const OPEN: u64 = 1 << 31;

/// Of the state: helpers at work on the job.
const AT_WORK: u64 = OPEN - 1;

/// Of the state: what the number of a job counts in.
const JOB: u64 = 1 << 32;

/// The helpers.
pub(super) struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Held by who has a job: one at a time.
    turn: Mutex<()>,
}

struct Shared {
    /// The number of the last job, [`OPEN`], and how many helpers are [`AT_WORK`] on it.
    state: AtomicU64,
    job: Mutex<Option<Job>>,
    /// Of the job: the next piece to take.
    next: AtomicUsize,
    /// A piece panicked.
    failed: AtomicBool,
    /// The pool ends.
    ends: AtomicBool,
    /// Of each helper, whether it sleeps.
    asleep: Vec<AtomicBool>,
}

/// What helpers are to do.
#[derive(Clone, Copy)]
struct Job {
    each: *const (dyn Fn(usize) + Sync),
    count: usize,
}

// SAFETY: what is pointed to may be shared among threads, and outlives their use of it (see `Pool::for_each`).
unsafe impl Send for Job {}

impl Pool {
    /// Starts so many helpers.
    pub(super) fn start(helpers: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: Mutex::new(None),
            next: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            asleep: (0..helpers).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut pool = Self { shared, helpers: Vec::with_capacity(helpers), turn: Mutex::new(()) };
        for number in 0..helpers {
            let shared = pool.shared.clone();
            let named = thread::Builder::new().name(format!("engine-{}", number + 1));
            // When one cannot be started, dropping the pool ends those that were.
            pool.helpers.push(named.spawn(move || shared.help(number))?);
        }
        Ok(pool)
    }

    pub(super) fn helpers(&self) -> usize {
        self.helpers.len()
    }

    /// See [`super::Threads::for_each`]. No more helpers than that are woken; one that has not fallen asleep yet may
    /// come too.
    pub(super) fn for_each(&self, helpers: usize, count: usize, each: &(dyn Fn(usize) + Sync)) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Helpers use the pointer between entering the job and leaving it, and
        // `close` below waits, also when a piece panics, until all that have entered have left; none enters later.
        let each: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(each) };
        let job = Job { each, count };
        *shared.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
        shared.next.store(0, Ordering::Relaxed);
        // Nobody is at work, and the job before is closed: only its number is left in the state.
        let number = shared.state.load(Ordering::Relaxed) & !(JOB - 1);
        shared.state.store(number.wrapping_add(JOB) | OPEN, Ordering::SeqCst);
        for (asleep, helper) in shared.asleep.iter().zip(&self.helpers).take(helpers) {
            if asleep.swap(false, Ordering::SeqCst) {
                helper.thread().unpark();
            }
        }
        let mine = catch_unwind(AssertUnwindSafe(|| shared.take_pieces(job)));
        shared.close();
        if let Err(panic) = mine {
            std::panic::resume_unwind(panic);
        }
        assert!(!shared.failed.swap(false, Ordering::Relaxed), "a piece of work panicked on another thread");
    }

    /// See [`super::Threads::for_chunks`].
    pub(super) fn for_chunks<T: Send>(
        &self,
        helpers: usize,
        out: &mut [T],
        chunk: usize,
        each: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let (length, chunks) = (out.len(), Chunks { first: out.as_mut_ptr(), of: PhantomData });
        self.for_each(helpers, length.div_ceil(chunk), &|number| {
            let start = number * chunk;
            // SAFETY: chunks do not overlap, each number is taken once, and `out` is borrowed until all are done.
            let part = unsafe { chunks.part(start, chunk.min(length - start)) };
            each(number, part);
        });
    }

    /// See [`super::Threads::for_parts`].
    pub(super) fn for_parts<T: Send>(
        &self,
        helpers: usize,
        out: &mut [T],
        starts: &[usize],
        each: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let within = starts.last().is_none_or(|end| *end <= out.len());
        assert!(within && starts.is_sorted(), "parts follow each other within what they are of");
        let chunks = Chunks { first: out.as_mut_ptr(), of: PhantomData };
        self.for_each(helpers, starts.len().saturating_sub(1), &|number| {
            let (start, end) = (starts[number], starts[number + 1]);
            // SAFETY: starts rise, so parts do not overlap and lie within `out`; each number is taken once, and `out`
            // is borrowed until all are done.
            let part = unsafe { chunks.part(start, end - start) };
            each(number, part);
        });
    }
}

/// A slice that several threads write, each other chunks of it.
struct Chunks<'a, T> {
    first: *mut T,
    of: PhantomData<&'a mut [T]>,
}

// SAFETY: threads get different chunks, as if each had been given its own to keep.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<T> Chunks<'_, T> {
    /// # Safety
    /// The part must lie within the slice, and nobody else may have any of it.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, start: usize, length: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(start), length) }
    }
}

impl Shared {
    fn take_pieces(&self, job: Job) {
        // SAFETY: the job is still open, or the caller waits for this thread to leave it.
        let each = unsafe { &*job.each };
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= job.count {
                return;
            }
            each(piece);
        }
    }

    /// Lets no helper enter the job any more, and waits for those that are at work.
    fn close(&self) {
        // What they wrote is seen once they have left.
        let mut state = self.state.fetch_and(!OPEN, Ordering::SeqCst);
        let mut looks = 0;
        while state & AT_WORK != 0 {
            looks += 1;
            if looks % LOOKS == 0 {
                thread::yield_now()
            } else {
                hint::spin_loop()
            }
            state = self.state.load(Ordering::Acquire);
        }
    }

    /// A helper's life.
    fn help(&self, number: usize) {
        let mut last = 0;
        while let Some(state) = self.next_job(number, last) {
            // Only who counts as at work may look at the job. Another helper's coming or going makes it try again.
            let entered =
                self.state.compare_exchange(state, state + 1, Ordering::SeqCst, Ordering::Relaxed).is_ok();
            if !entered {
                continue;
            }
            last = state / JOB;
            let job = *self.job.lock().unwrap_or_else(PoisonError::into_inner);
            let work = || job.into_iter().for_each(|job| self.take_pieces(job));
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// The state with an open job that is not the last one; `None` when the pool ends.
    fn next_job(&self, number: usize, last: u64) -> Option<u64> {
        let open = |state: u64| state & OPEN != 0 && state / JOB != last;
        let mut since = Instant::now();
        loop {
            for _ in 0..LOOKS {
                let state = self.state.load(Ordering::SeqCst);
                if open(state) {
                    return Some(state);
                }
                hint::spin_loop();
            }
            if self.ends.load(Ordering::SeqCst) {
                return None;
            }
            if since.elapsed() < SPIN {
                continue;
            }
            // Told first, looked then: who opens a job looks in the other order.
            self.asleep[number].store(true, Ordering::SeqCst);
            if !open(self.state.load(Ordering::SeqCst)) && !self.ends.load(Ordering::SeqCst) {
                thread::park();
            }
            self.asleep[number].store(false, Ordering::SeqCst);
            since = Instant::now();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // Its panics were caught.
            let _ = helper.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("helpers", &self.helpers.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn every_piece_is_done_once_however_many_help() {
        for helpers in [0, 1, 3] {
            let pool = Pool::start(helpers).expect("started");
            for count in [1, 2, 7, 1000] {
                let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                pool.for_each(helpers, count, &|piece| {
                    done[piece].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1), "{helpers} {count}");
            }
            let mut numbers = vec![0; 1001];
            pool.for_chunks(helpers, &mut numbers, 10, |chunk, part| part.fill(chunk + 1));
            assert!(numbers.iter().enumerate().all(|(place, number)| *number == place / 10 + 1), "{helpers}");
            let starts = [0, 1, 1, 500, 999];
            pool.for_parts(helpers, &mut numbers, &starts, |part, numbers| numbers.fill(part));
            let part_of = |place: usize| starts.partition_point(|start| *start <= place) - 1;
            assert!(numbers[..999].iter().enumerate().all(|(place, number)| *number == part_of(place)));
        }
    }

    #[test]
    fn helpers_do_help_also_when_they_had_gone_to_sleep() {
        let pool = Pool::start(1).expect("started");
        for _ in 0..3 {
            // Each piece waits for the other: one thread alone would never end.
            let both = Barrier::new(2);
            pool.for_each(1, 2, &|_| {
                both.wait();
            });
            while !pool.shared.asleep[0].load(Ordering::SeqCst) {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::start(2).expect("started");
        for _ in 0..20 {
            let all = catch_unwind(AssertUnwindSafe(|| {
                pool.for_each(2, 100, &|piece| assert!(piece != 50, "the piece that fails"));
            }));
            assert!(all.is_err());
            let done = AtomicUsize::new(0);
            pool.for_each(2, 100, &|_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.load(Ordering::Relaxed), 100);
        }
    }
}
