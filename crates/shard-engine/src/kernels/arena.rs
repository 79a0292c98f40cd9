//! Memory for weights: in large pages where the system has them, and from there handed out piece by piece.
//!
//! A pass reads all weights once. With pages of 4 KiB the processor looks up an address at each, and its prefetchers
//! begin again; besides, each takes the system's time when it is first written.

// A region is a part of a mapping that nobody else has.
#![allow(unsafe_code)]

use std::{
    io,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use memmap2::MmapMut;

/// What is mapped at once, at least. Only what is written takes memory.
const MAPPED: usize = 64 << 20;
/// A large page of most systems.
const PAGE: usize = 2 << 20;
/// Regions begin at lines of memory.
const LINE: usize = 64;

/// Where regions come from. They live on without it.
#[derive(Debug, Default)]
pub(crate) struct Arena(Mutex<Option<Rest>>);

/// What is left of the mapping that was made last.
#[derive(Debug)]
struct Rest {
    mapping: Arc<Mapping>,
    from: usize,
}

/// Memory of the system. Regions alone touch what is in it.
#[derive(Debug)]
struct Mapping {
    /// Of a large page.
    start: NonNull<u8>,
    bytes: usize,
    _memory: MmapMut,
}

// SAFETY: `start` points into `_memory`, which lives as long and may be moved between threads.
unsafe impl Send for Mapping {}
// SAFETY: nobody reads or writes by a shared reference to it.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let bytes = bytes.max(MAPPED).checked_next_multiple_of(PAGE).ok_or_else(too_large)?;
        let mut memory = MmapMut::map_anon(bytes.checked_add(PAGE).ok_or_else(too_large)?)?;
        // A system without large pages gives small ones.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let first = memory.as_mut_ptr();
        let skipped = first.align_offset(PAGE).min(PAGE);
        let start = NonNull::new(first.wrapping_add(skipped)).expect("a mapping is not at address 0");
        Ok(Self { start, bytes, _memory: memory })
    }
}

impl Arena {
    /// So many bytes, all zero.
    ///
    /// # Errors
    /// When the system gives no more memory.
    pub(crate) fn region(&self, bytes: usize) -> io::Result<Region> {
        let mut rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |rest: &Rest| bytes <= rest.mapping.bytes - rest.from;
        let (mapping, from) = match rest.take().filter(fits) {
            Some(rest) => (rest.mapping, rest.from),
            None => (Arc::new(Mapping::new(bytes)?), 0),
        };
        // The next begins at a line; a mapping ends at one.
        *rest = Some(Rest { mapping: mapping.clone(), from: from + bytes.next_multiple_of(LINE) });
        // SAFETY: `from + bytes` is at most `mapping.bytes`, and so many bytes follow `start` in the mapping.
        let start = unsafe { mapping.start.add(from) };
        Ok(Region { start, bytes, _mapping: mapping })
    }
}

/// Some bytes that nobody else has. They begin at a line of memory.
#[derive(Debug)]
pub(crate) struct Region {
    start: NonNull<u8>,
    bytes: usize,
    _mapping: Arc<Mapping>,
}

// SAFETY: it alone has its bytes, like a `Vec`.
unsafe impl Send for Region {}
// SAFETY: a shared reference to it only reads.
unsafe impl Sync for Region {}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `bytes` bytes from `start` on are in `_mapping`, which is there as long as this; they were zero at
        // first, and no other region has any of them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for Region {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this reference is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_zero_begin_at_lines_and_have_nothing_in_common() {
        let arena = Arena::default();
        let sizes = [1, 64, 65, 0, 3 * PAGE + 1, MAPPED - PAGE, MAPPED + 1, 7];
        let mut regions: Vec<Region> =
            sizes.iter().map(|bytes| arena.region(*bytes).expect("memory")).collect();
        drop(arena);
        for (place, region) in regions.iter_mut().enumerate() {
            assert_eq!(region.len(), sizes[place]);
            assert_eq!(region.as_ptr().align_offset(LINE), 0);
            // Of large ones, a byte of each small page.
            for byte in region.iter_mut().step_by(4096) {
                assert_eq!(*byte, 0);
                *byte = place as u8 + 1;
            }
        }
        for (place, region) in regions.iter().enumerate() {
            assert!(region.iter().step_by(4096).all(|byte| *byte == place as u8 + 1));
        }
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        assert!(Arena::default().region(1 << 60).is_err());
    }
}
