//! A result that several threads write, each other columns of it.

#![allow(unsafe_code)]

use std::marker::PhantomData;

use crate::kernels::simd::LANES;

/// `[rows][outputs]`, to be written column by column.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    first: *mut f32,
    length: usize,
    outputs: usize,
    of: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a slice that is borrowed mutably, of which it only writes; who shares it among threads has them write
// different columns (see `put`), so no two write the same place.
unsafe impl Send for Columns<'_> {}
// SAFETY: as above.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    pub(super) fn new(out: &'a mut [f32], outputs: usize) -> Self {
        Self { first: out.as_mut_ptr(), length: out.len(), outputs, of: PhantomData }
    }

    /// Writes a row's values from an output on, as far as there are outputs. Only the piece of work that owns the panel
    /// of these outputs may do so.
    #[inline(always)]
    pub(super) fn put(&self, row: usize, output: usize, values: &[f32; LANES]) {
        let count = LANES.min(self.outputs - output);
        let place = row * self.outputs + output;
        assert!(place + count <= self.length, "within the result");
        // SAFETY: the place lies within the slice, and no other piece of work writes to this panel's outputs.
        unsafe {
            let to = self.first.add(place);
            match count {
                // One store instead of a call.
                LANES => to.cast::<[f32; LANES]>().write_unaligned(*values),
                _ => std::ptr::copy_nonoverlapping(values.as_ptr(), to, count),
            }
        }
    }
}
