//! The same sums eight at a time. All sizes of tiles add in the same order, so they may be mixed freely.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, _MM_HINT_T0, _mm_prefetch, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_setzero_ps, _mm256_storeu_ps,
};

use crate::kernels::{isa::Avx2, panel::PANEL};

/// Some whole panels: `x` `[rows][inputs]`, `weights` `[panels][inputs][PANEL]`, `out` `[panels][rows][PANEL]`.
#[inline(always)]
pub(super) fn multiply(x: &[f32], weights: &[f32], inputs: usize, out: &mut [f32], proof: Avx2) {
    let rows = x.len() / inputs;
    let panels = weights.len() / (inputs * PANEL);
    debug_assert_eq!(out.len(), panels * rows * PANEL);
    // One row is bound by memory: four panels at once keep enough sums in flight.
    let at_once = match rows {
        1 => 4,
        2 | 3 => 2,
        _ => 1,
    };
    let mut panel = 0;
    while panel < panels {
        let count = if panels - panel >= at_once { at_once } else { 1 };
        let w = &weights[panel * inputs * PANEL..(panel + count) * inputs * PANEL];
        let tile = &mut out[panel * rows * PANEL..(panel + count) * rows * PANEL];
        match (rows, count) {
            (1, 4) => tile_of::<1, 4>(x, w, inputs, tile, proof),
            (2, 2) => tile_of::<2, 2>(x, w, inputs, tile, proof),
            (3, 2) => tile_of::<3, 2>(x, w, inputs, tile, proof),
            _ => one_panel(x, w, inputs, tile, proof),
        }
        panel += count;
    }
}

/// `w` holds one panel.
#[inline(always)]
fn one_panel(x: &[f32], w: &[f32], inputs: usize, out: &mut [f32], proof: Avx2) {
    let rows = x.len() / inputs;
    let mut row = 0;
    while row < rows {
        let count = (rows - row).min(6);
        let x = &x[row * inputs..(row + count) * inputs];
        let out = &mut out[row * PANEL..(row + count) * PANEL];
        match count {
            6 => tile_of::<6, 1>(x, w, inputs, out, proof),
            5 => tile_of::<5, 1>(x, w, inputs, out, proof),
            4 => tile_of::<4, 1>(x, w, inputs, out, proof),
            3 => tile_of::<3, 1>(x, w, inputs, out, proof),
            2 => tile_of::<2, 1>(x, w, inputs, out, proof),
            _ => tile_of::<1, 1>(x, w, inputs, out, proof),
        }
        row += count;
    }
}

/// `ROWS` rows by `PANELS` panels with all sums in registers; `out` is `[PANELS][ROWS][PANEL]`.
#[inline(always)]
fn tile_of<const ROWS: usize, const PANELS: usize>(
    x: &[f32],
    w: &[f32],
    inputs: usize,
    out: &mut [f32],
    _proof: Avx2,
) {
    assert!(x.len() >= ROWS * inputs && w.len() >= PANELS * inputs * PANEL);
    assert!(out.len() >= PANELS * ROWS * PANEL);
    let (x, w, out) = (x.as_ptr(), w.as_ptr(), out.as_mut_ptr());
    // SAFETY: the proof is of the features that these instructions need. `x` holds ROWS rows of `inputs` numbers, `w`
    // PANELS panels of `inputs` × PANEL, `out` PANELS × ROWS × PANEL, and k < inputs; a prefetch past the end touches
    // nothing.
    unsafe {
        let mut sums: [[[__m256; 2]; PANELS]; ROWS] = [[[_mm256_setzero_ps(); 2]; PANELS]; ROWS];
        for k in 0..inputs {
            for panel in 0..PANELS {
                let at = w.add((panel * inputs + k) * PANEL);
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(16 * PANEL).cast());
                let (low, high) = (_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let value = _mm256_broadcast_ss(&*x.add(row * inputs + k));
                    sums[panel][0] = _mm256_fmadd_ps(value, low, sums[panel][0]);
                    sums[panel][1] = _mm256_fmadd_ps(value, high, sums[panel][1]);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (panel, [low, high]) in sums.iter().enumerate() {
                let at = out.add((panel * ROWS + row) * PANEL);
                _mm256_storeu_ps(at, *low);
                _mm256_storeu_ps(at.add(8), *high);
            }
        }
    }
}
