//! What a kernel multiplies by: some panels of a matrix.

use super::columns::Columns;
use crate::kernels::{
    formats::{Format, PART},
    simd::LANES,
};

/// Some panels, and where their results go.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub bytes: &'a [u8],
    /// Bytes of one.
    pub size: usize,
    /// The number of the first in its matrix.
    pub first: usize,
    pub columns: Columns<'a>,
}

impl Panels<'_> {
    /// Bytes of one panel's block of a format.
    pub(super) const fn block_bytes<F: Format>() -> usize {
        LANES * F::BYTES
    }

    /// Puts a row's results of one of these panels in their place.
    #[inline(always)]
    pub(super) fn put(&self, row: usize, panel: usize, values: &[f32; LANES]) {
        self.columns.put(row, (self.first + panel) * LANES, values);
    }
}

/// A part's place in a panel: its block, and its number in it.
#[inline(always)]
pub(super) fn block_of<F: Format>(panel: &[u8], part: usize) -> (&[u8], usize) {
    let (in_block, size) = (F::INPUTS / PART, Panels::block_bytes::<F>());
    (&panel[part / in_block * size..][..size], part % in_block)
}
