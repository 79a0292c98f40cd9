//! Random weights.

use crate::{Dtype, write::Writer};

/// Xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Uniform in [-1, 1).
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
        bits as f32 / (1u32 << 23) as f32 - 1.0
    }

    fn list(&mut self, count: u64, scale: f32, offset: f32) -> Vec<f32> {
        (0..count).map(|_| offset + scale * self.next()).collect()
    }

    /// Some matrices, one behind the other, that make what they multiply so many times as large.
    pub(super) fn stack(
        &mut self,
        file: &mut Writer,
        name: String,
        [columns, rows, count]: [u64; 3],
        grow: f32,
    ) {
        let scale = grow * (3.0 / columns as f32).sqrt();
        let values = self.list(columns * rows * count, scale, 0.0);
        file.tensor_f32(name, &[columns, rows, count], &values);
    }

    /// The same in MXFP4: a power of two for every 32 numbers, then these, four bits each.
    pub(super) fn stack_of_four_bits(
        &mut self,
        file: &mut Writer,
        name: String,
        [columns, rows, count]: [u64; 3],
        grow: f32,
    ) {
        // Numbers of four bits are 2.9 on the average of squares, and powers between one half and one of this.
        let largest = (grow / (2.2 * (columns as f32).sqrt())).log2().round() as i32;
        let (numbers, size) = Dtype::Mxfp4.block();
        let mut bytes = vec![];
        for _ in 0..columns * rows * count / numbers {
            let power = largest - i32::from(self.next() < 0.0);
            bytes.push((127 + power) as u8);
            bytes.extend((1..size).map(|_| (self.next() * 128.0) as i8 as u8));
        }
        file.tensor(name, Dtype::Mxfp4, &[columns, rows, count], bytes);
    }

    /// A matrix that keeps the size of what it multiplies.
    pub(super) fn matrix(&mut self, file: &mut Writer, name: String, columns: u64, rows: u64) {
        let scale = (3.0 / columns as f32).sqrt();
        let values = self.list(columns * rows, scale, 0.0);
        file.tensor_f32(name, &[columns, rows], &values);
    }

    pub(super) fn vector(&mut self, file: &mut Writer, name: String, size: u64) {
        let values = self.list(size, 0.1, 0.0);
        file.tensor_f32(name, &[size], &values);
    }

    /// One vector for each of some matrices.
    pub(super) fn vectors(&mut self, file: &mut Writer, name: String, [size, count]: [u64; 2]) {
        let values = self.list(size * count, 0.5, 0.0);
        file.tensor_f32(name, &[size, count], &values);
    }

    /// Scores between 1 and 3, which show beside those of positions.
    pub(super) fn sinks(&mut self, file: &mut Writer, name: String, heads: u64) {
        let values = self.list(heads, 1.0, 2.0);
        file.tensor_f32(name, &[heads], &values);
    }

    /// A norm's weights for each of some heads.
    pub(super) fn norms(&mut self, file: &mut Writer, name: String, [size, count]: [u64; 2]) {
        let values = self.list(size * count, 0.3, 1.0);
        file.tensor_f32(name, &[size, count], &values);
    }

    pub(super) fn norm(&mut self, file: &mut Writer, name: String, size: u64) {
        let values = self.list(size, 0.1, 1.0);
        file.tensor_f32(name, &[size], &values);
    }
}
