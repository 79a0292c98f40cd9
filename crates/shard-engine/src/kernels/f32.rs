//! Matrix products in f32 whose every result is one sum in one fixed order.
//!
//! `y[m][n] = Σ_k x[m][k] · w[n][k]`, summed from k = 0 upwards with one fused multiply-add a term, however many rows
//! are computed together and however the columns are split over threads. General matrix libraries choose the order by
//! the shape, so that a row computed alone and the same row in a batch differ in their last bits.
//!
//! Weights are packed into panels of [`PANEL`] outputs: for each k the panel's weights lie side by side.

#[cfg(target_arch = "x86_64")]
mod avx2;

use super::{
    isa::{Isa, Kernel},
    panel::PANEL,
    threads::Threads,
};

/// A packed weight matrix.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    /// Panel after panel, each `[inputs][PANEL]`; the last is padded with zeros.
    panels: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

/// The product with some whole panels.
struct Product<'a> {
    /// `[rows][inputs]`.
    x: &'a [f32],
    /// `[panels][inputs][PANEL]`.
    weights: &'a [f32],
    inputs: usize,
    /// `[panels][rows][PANEL]`.
    out: &'a mut [f32],
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

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        size_of_val(self.panels.as_slice())
    }

    /// `x` is `[rows][inputs]`; the result is `[rows][outputs]`.
    pub(crate) fn multiply(&self, x: &[f32], isa: Isa, threads: &Threads) -> Vec<f32> {
        let rows = x.len() / self.inputs;
        let panels = self.panels.len() / (PANEL * self.inputs);
        let share = panels.div_ceil(threads.count()).max(1);
        // Panel-major, so that each thread writes its own stretch of memory.
        let mut tiles = vec![0.0; rows * panels * PANEL];
        threads.for_chunks(&mut tiles, share * rows * PANEL, |part, out| {
            let count = out.len() / (rows * PANEL);
            let start = part * share * PANEL * self.inputs;
            let weights = &self.panels[start..start + count * PANEL * self.inputs];
            isa.run(Product { x, weights, inputs: self.inputs, out });
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

impl Kernel for Product<'_> {
    #[inline(always)]
    fn portable(self) {
        let Self { x, weights, inputs, out } = self;
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

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx2(self, proof: super::isa::Avx2) {
        avx2::multiply(self.x, self.weights, self.inputs, self.out, proof);
    }
}

/// Fused where that is an instruction, as on every 64-bit Arm; a call of a library function elsewhere would be slow.
#[inline(always)]
fn multiply_add(a: f32, b: f32, sum: f32) -> f32 {
    if cfg!(target_arch = "aarch64") { a.mul_add(b, sum) } else { a * b + sum }
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

    /// What this processor can run.
    fn sets() -> [Isa; 2] {
        [Isa::Portable, Isa::detect()]
    }

    #[test]
    fn products_are_the_sums_they_should_be() {
        let sizes = [(1, 1, 1), (1, 100, 33), (5, 16, 8), (13, 40, 70)];
        for ((rows, outputs, inputs), isa) in sizes.into_iter().flat_map(|size| sets().map(|isa| (size, isa)))
        {
            let (packed, weights) = packed(outputs, inputs);
            let x = numbers(rows * inputs, 9);
            let y = packed.multiply(&x, isa, &Threads::new(1).expect("started"));
            for row in 0..rows {
                for output in 0..outputs {
                    let products = (0..inputs)
                        .map(|k| f64::from(x[row * inputs + k]) * f64::from(weights[output * inputs + k]));
                    let expected: f64 = products.sum();
                    assert!((f64::from(y[row * outputs + output]) - expected).abs() < 1e-4, "{isa:?}");
                }
            }
        }
    }

    #[test]
    fn a_row_gets_the_same_bits_with_any_other_rows_and_on_any_number_of_threads() {
        let (packed, _) = packed(100, 96);
        let x = numbers(17 * 96, 3);
        let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let one = Threads::new(1).expect("started");
        let three = Threads::new(3).expect("started");
        for isa in sets() {
            let together = packed.multiply(&x, isa, &one);
            assert_eq!(bits(&packed.multiply(&x, isa, &three)), bits(&together), "{isa:?}");
            for group in 1..=17 {
                let parts = x.chunks(group * 96);
                let apart: Vec<f32> = parts.flat_map(|part| packed.multiply(part, isa, &one)).collect();
                assert_eq!(bits(&apart), bits(&together), "{isa:?} in groups of {group}");
            }
        }
    }
}
