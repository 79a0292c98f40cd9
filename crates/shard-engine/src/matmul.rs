//! Matrix products in f32 whose every result is one sum in one fixed order.
//!
//! `y[m][n] = Σ_k x[m][k] · w[n][k]`, summed from k = 0 upwards with one fused multiply-add a term, however many rows
//! are computed together and however the columns are split over threads. General matrix libraries choose the order by
//! the shape, so that a row computed alone and the same row in a batch differ in their last bits.
//!
//! Weights are packed into panels of [`PANEL`] outputs: for each k the panel's weights lie side by side.

use rayon::prelude::*;

/// Outputs in a panel: two AVX registers of f32.
const PANEL: usize = 16;

/// A packed weight matrix.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    /// Panel after panel, each `[inputs][PANEL]`; the last is padded with zeros.
    panels: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

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

    fn count(&self) -> usize {
        self.0.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }
}

impl Packed {
    /// Room for a matrix of `outputs` × `inputs`, all zeros.
    pub(crate) fn zeros(outputs: usize, inputs: usize) -> Self {
        Self { panels: vec![0.0; outputs.div_ceil(PANEL) * PANEL * inputs], inputs, outputs }
    }

    /// Puts in rows of weights from output `first` on; `rows` is `[count][inputs]`.
    pub(crate) fn put(&mut self, first: usize, rows: &[f32]) {
        for (row, weights) in rows.chunks_exact(self.inputs).enumerate() {
            let (panel, lane) = ((first + row) / PANEL, (first + row) % PANEL);
            let start = panel * PANEL * self.inputs + lane;
            self.panels[start..].iter_mut().step_by(PANEL).zip(weights).for_each(|(place, w)| *place = *w);
        }
    }

    pub(crate) fn byte_count(&self) -> usize {
        size_of_val(self.panels.as_slice())
    }

    /// `x` is `[rows][inputs]`; the result is `[rows][outputs]`.
    pub(crate) fn multiply(&self, x: &[f32], threads: &Threads) -> Vec<f32> {
        let rows = x.len() / self.inputs;
        let panels = self.panels.len() / (PANEL * self.inputs);
        let share = panels.div_ceil(threads.count()).max(1);
        // Panel-major, so that each thread writes its own stretch of memory.
        let mut tiles = vec![0.0; rows * panels * PANEL];
        threads.for_chunks(&mut tiles, share * rows * PANEL, |part, out| {
            let count = out.len() / (rows * PANEL);
            let start = part * share * PANEL * self.inputs;
            let weights = &self.panels[start..start + count * PANEL * self.inputs];
            multiply_panels(x, weights, self.inputs, out);
        });
        self.gather(&tiles, rows)
    }

    /// From `[panels][rows][PANEL]` to `[rows][outputs]`.
    fn gather(&self, tiles: &[f32], rows: usize) -> Vec<f32> {
        let mut y = vec![0.0; rows * self.outputs];
        for (panel, tile) in tiles.chunks_exact(rows * PANEL).enumerate() {
            let start = panel * PANEL;
            let width = PANEL.min(self.outputs - start);
            for (row, values) in tile.chunks_exact(PANEL).enumerate() {
                let place = row * self.outputs + start;
                y[place..place + width].copy_from_slice(&values[..width]);
            }
        }
        y
    }
}

/// Some whole panels: `x` `[rows][inputs]`, `weights` `[panels][inputs][PANEL]`, `out` `[panels][rows][PANEL]`.
fn multiply_panels(x: &[f32], weights: &[f32], inputs: usize, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has AVX2 and FMA, as just checked.
        #[allow(unsafe_code)]
        unsafe {
            avx2::multiply_panels(x, weights, inputs, out);
        }
        return;
    }
    multiply_panels_portable(x, weights, inputs, out);
}

fn multiply_panels_portable(x: &[f32], weights: &[f32], inputs: usize, out: &mut [f32]) {
    let rows = x.len() / inputs;
    for (panel, tile) in weights.chunks_exact(inputs * PANEL).zip(out.chunks_exact_mut(rows * PANEL)) {
        for (row, sums) in x.chunks_exact(inputs).zip(tile.chunks_exact_mut(PANEL)) {
            let mut lanes = [0f32; PANEL];
            for (value, w) in row.iter().zip(panel.chunks_exact(PANEL)) {
                for (lane, w) in lanes.iter_mut().zip(w) {
                    *lane = multiply_add(*value, *w, *lane);
                }
            }
            sums.copy_from_slice(&lanes);
        }
    }
}

/// Fused where that is an instruction, as on every 64-bit Arm; a call of a library function elsewhere would be slow.
#[inline]
fn multiply_add(a: f32, b: f32, sum: f32) -> f32 {
    if cfg!(target_arch = "aarch64") { a.mul_add(b, sum) } else { a * b + sum }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx2 {
    //! The same sums eight at a time. All tile sizes add in the same order, so they may be mixed freely.

    use std::arch::x86_64::{
        __m256, _MM_HINT_T0, _mm_prefetch, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_setzero_ps, _mm256_storeu_ps,
    };

    use super::PANEL;

    /// # Safety
    /// The processor must have AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn multiply_panels(x: &[f32], weights: &[f32], inputs: usize, out: &mut [f32]) {
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
            // SAFETY: the features are the caller's promise; `w` and `tile` hold `count` panels.
            unsafe {
                match (rows, count) {
                    (1, 4) => tile_of::<1, 4>(x, w, inputs, rows, tile),
                    (2, 2) => tile_of::<2, 2>(x, w, inputs, rows, tile),
                    (3, 2) => tile_of::<3, 2>(x, w, inputs, rows, tile),
                    _ => one_panel(x, w, inputs, rows, tile),
                }
            }
            panel += count;
        }
    }

    /// # Safety
    /// As [`multiply_panels`]; `w` holds one panel.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn one_panel(x: &[f32], w: &[f32], inputs: usize, rows: usize, out: &mut [f32]) {
        let mut row = 0;
        while row < rows {
            let count = (rows - row).min(6);
            let x = &x[row * inputs..(row + count) * inputs];
            let out = &mut out[row * PANEL..(row + count) * PANEL];
            // SAFETY: the features are the caller's promise; `x` and `out` hold `count` rows.
            unsafe {
                match count {
                    6 => tile_of::<6, 1>(x, w, inputs, count, out),
                    5 => tile_of::<5, 1>(x, w, inputs, count, out),
                    4 => tile_of::<4, 1>(x, w, inputs, count, out),
                    3 => tile_of::<3, 1>(x, w, inputs, count, out),
                    2 => tile_of::<2, 1>(x, w, inputs, count, out),
                    _ => tile_of::<1, 1>(x, w, inputs, count, out),
                }
            }
            row += count;
        }
    }

    /// `ROWS` rows by `PANELS` panels with all sums in registers; `out` is `[PANELS][rows][PANEL]`.
    ///
    /// # Safety
    /// As [`multiply_panels`]; `x` holds `ROWS` rows, `w` holds `PANELS` panels, `rows` is `ROWS`.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile_of<const ROWS: usize, const PANELS: usize>(
        x: &[f32],
        w: &[f32],
        inputs: usize,
        rows: usize,
        out: &mut [f32],
    ) {
        assert!(x.len() >= ROWS * inputs && w.len() >= PANELS * inputs * PANEL);
        assert!(rows == ROWS && out.len() >= PANELS * ROWS * PANEL);
        let mut sums: [[[__m256; 2]; PANELS]; ROWS] = [[[_mm256_setzero_ps(); 2]; PANELS]; ROWS];
        let (x, w) = (x.as_ptr(), w.as_ptr());
        for k in 0..inputs {
            for panel in 0..PANELS {
                // SAFETY: `w` holds PANELS panels of `inputs` × PANEL numbers and k < inputs; a prefetch past the
                // end touches nothing.
                let (low, high) = unsafe {
                    let at = w.add((panel * inputs + k) * PANEL);
                    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(16 * PANEL).cast());
                    (_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8)))
                };
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: `x` holds ROWS rows of `inputs` numbers.
                    let value = unsafe { _mm256_broadcast_ss(&*x.add(row * inputs + k)) };
                    sums[panel][0] = _mm256_fmadd_ps(value, low, sums[panel][0]);
                    sums[panel][1] = _mm256_fmadd_ps(value, high, sums[panel][1]);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (panel, [low, high]) in sums.iter().enumerate() {
                // SAFETY: `out` holds PANELS × ROWS × PANEL numbers.
                unsafe {
                    let at = out.as_mut_ptr().add((panel * ROWS + row) * PANEL);
                    _mm256_storeu_ps(at, *low);
                    _mm256_storeu_ps(at.add(8), *high);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn packed(outputs: usize, inputs: usize) -> (Packed, Vec<f32>) {
        let weights = numbers(outputs * inputs, 7);
        let mut packed = Packed::zeros(outputs, inputs);
        packed.put(0, &weights);
        (packed, weights)
    }

    #[test]
    fn products_are_the_sums_they_should_be() {
        for (rows, outputs, inputs) in [(1, 1, 1), (1, 100, 33), (5, 16, 8), (13, 40, 70)] {
            let (packed, weights) = packed(outputs, inputs);
            let x = numbers(rows * inputs, 9);
            let y = packed.multiply(&x, &Threads::new(1).expect("started"));
            for row in 0..rows {
                for output in 0..outputs {
                    let products = (0..inputs)
                        .map(|k| f64::from(x[row * inputs + k]) * f64::from(weights[output * inputs + k]));
                    let expected: f64 = products.sum();
                    assert!((f64::from(y[row * outputs + output]) - expected).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn a_row_gets_the_same_bits_in_every_company_and_on_every_number_of_threads() {
        let (packed, _) = packed(100, 96);
        let x = numbers(17 * 96, 3);
        let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let one = Threads::new(1).expect("started");
        let together = packed.multiply(&x, &one);
        assert_eq!(bits(&packed.multiply(&x, &Threads::new(3).expect("started"))), bits(&together));
        for group in 1..=17 {
            let apart: Vec<f32> = x.chunks(group * 96).flat_map(|part| packed.multiply(part, &one)).collect();
            assert_eq!(bits(&apart), bits(&together), "in groups of {group}");
        }
    }
}
