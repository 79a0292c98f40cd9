//! The threads that kernels share their work among.

use rayon::prelude::*;

/// Where products are computed.
#[derive(Debug)]
pub(crate) struct Threads(Option<rayon::ThreadPool>);

impl Threads {
    /// One thread is the caller's own.
    pub(crate) fn new(count: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let named = |place| format!("engine-{place}");
        let pool = || rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(named).build();
        Ok(Self(if count > 1 { Some(pool()?) } else { None }))
    }

    /// Runs `each` for every number below `count`; which thread takes which is of no consequence.
    pub(crate) fn for_each(&self, count: usize, each: impl Fn(usize) + Sync + Send) {
        match &self.0 {
            Some(pool) if count > 1 => pool.install(|| (0..count).into_par_iter().for_each(each)),
            _ => (0..count).for_each(each),
        }
    }

    /// Runs `each` for every chunk of `out`; which thread takes which is of no consequence.
    pub(crate) fn for_chunks<T: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        each: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        match &self.0 {
            Some(pool) if out.len() > chunk => {
                pool.install(|| out.par_chunks_mut(chunk).enumerate().for_each(|(i, part)| each(i, part)));
            }
            _ => out.chunks_mut(chunk).enumerate().for_each(|(i, part)| each(i, part)),
        }
    }

    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.0.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }
}
