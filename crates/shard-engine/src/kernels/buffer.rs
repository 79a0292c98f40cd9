//! Memory for what a layer computes: taken for a moment, and used again by the next.
//!
//! Each thread keeps some of what it has given back, so that a step of few rows allocates nothing on its way through
//! the layers.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
    thread::LocalKey,
};

/// A larger one is kept until the pass has ended: those of long pieces of prompts would take more than all else.
const LARGEST_KEPT: usize = 1 << 20;

/// Of each type. More than are in use at any time.
const MOST_KEPT: usize = 24;

/// What a thread keeps of one type.
pub(crate) type Kept<T> = RefCell<Vec<Vec<T>>>;

/// Numbers that buffers are made of.
pub(crate) trait Reusable: Copy + Default + 'static {
    /// What this thread has to use again.
    fn kept() -> &'static LocalKey<Kept<Self>>;
}

/// Implements [`Reusable`] for a type.
macro_rules! reusable {
    ($type:ty) => {
        impl $crate::kernels::buffer::Reusable for $type {
            fn kept() -> &'static std::thread::LocalKey<$crate::kernels::buffer::Kept<Self>> {
                use std::cell::RefCell;
                thread_local!(static KEPT: RefCell<Vec<Vec<$type>>> = const { RefCell::new(vec![]) });
                &KEPT
            }
        }
    };
}
pub(crate) use reusable;

reusable!(f32);
reusable!(i32);
reusable!(usize);

/// Some numbers. When it is dropped, its memory is used again.
#[derive(Debug)]
pub(crate) struct Buffer<T: Reusable> {
    /// All of it is numbers, old ones behind `length`.
    memory: Vec<T>,
    length: usize,
}

impl<T: Reusable> Buffer<T> {
    /// So many numbers, whatever they are: for what is written as a whole.
    pub(crate) fn stale(length: usize) -> Self {
        // A thread that ends keeps nothing any more.
        let kept = T::kept().try_with(|kept| take(&mut kept.borrow_mut(), length)).ok().flatten();
        Self { memory: kept.unwrap_or_else(|| vec![T::default(); length]), length }
    }

    /// So many zeros.
    pub(crate) fn zeros(length: usize) -> Self {
        let mut zeros = Self::stale(length);
        zeros.fill(T::default());
        zeros
    }
}

/// The smallest that holds so many.
fn take<T>(kept: &mut Vec<Vec<T>>, length: usize) -> Option<Vec<T>> {
    let fitting = kept.iter().enumerate().filter(|(_, memory)| memory.len() >= length);
    let (place, _) = fitting.min_by_key(|(_, memory)| memory.len())?;
    Some(kept.swap_remove(place))
}

impl<T: Reusable> Drop for Buffer<T> {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if memory.is_empty() {
            return;
        }
        // A thread that ends keeps nothing any more.
        let _ = T::kept().try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() >= MOST_KEPT {
                let smallest = (0..kept.len()).min_by_key(|place| kept[*place].len());
                smallest.map(|place| kept.swap_remove(place));
            }
            kept.push(memory);
        });
    }
}

/// A pass has ended: gives back what is large of these numbers. The allocator has it for the next, or for others.
pub(crate) fn let_go<T: Reusable>() {
    let small = |memory: &Vec<T>| memory.len() * size_of::<T>() <= LARGEST_KEPT;
    let _ = T::kept().try_with(|kept| kept.borrow_mut().retain(small));
}

impl<T: Reusable> From<Vec<T>> for Buffer<T> {
    fn from(numbers: Vec<T>) -> Self {
        Self { length: numbers.len(), memory: numbers }
    }
}

impl<T: Reusable> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.memory[..self.length]
    }
}

impl<T: Reusable> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A type of this test alone.
    #[derive(Clone, Copy, Default, PartialEq, Debug)]
    struct Number(u64);
    reusable!(Number);

    fn kept() -> Vec<usize> {
        let mut sizes: Vec<usize> = Number::kept().with_borrow(|kept| kept.iter().map(Vec::len).collect());
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn memory_is_used_again_and_comes_back_as_zeros() {
        let (mut a, b) = (Buffer::<Number>::zeros(10), Buffer::<Number>::zeros(100));
        a.fill(Number(7));
        let (small, large) = (a.as_ptr(), b.as_ptr());
        drop((a, b));
        assert_eq!(kept(), [10, 100]);
        let again = Buffer::<Number>::zeros(9);
        assert_eq!((again.as_ptr(), &again[..]), (small, &[Number(0); 9][..]));
        assert_eq!(Buffer::<Number>::zeros(9).as_ptr(), large, "the only one that is left");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let all: Vec<_> = (1..=MOST_KEPT + 5).map(Buffer::<Number>::zeros).collect();
        drop(all);
        assert_eq!(kept(), (6..=MOST_KEPT + 5).collect::<Vec<_>>(), "the largest");
        drop(Buffer::<Number>::zeros(LARGEST_KEPT / 8 + 1));
        assert_eq!(
            (kept().len(), kept().pop()),
            (MOST_KEPT, Some(LARGEST_KEPT / 8 + 1)),
            "until the pass ends"
        );
        let_go::<Number>();
        assert_eq!(kept(), (7..=MOST_KEPT + 5).collect::<Vec<_>>());
    }
}
