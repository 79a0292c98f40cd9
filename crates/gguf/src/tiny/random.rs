//! Random weights.

use crate::write::Writer;

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

    /// Some matrices, one behind the other, that keep the size of what they multiply.
    pub(super) fn stack(&mut self, file: &mut Writer, name: String, [columns, rows, count]: [u64; 3]) {
        let scale = (3.0 / columns as f32).sqrt();
        let values = self.list(columns * rows * count, scale, 0.0);
        file.tensor_f32(name, &[columns, rows, count], &values);
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

    pub(super) fn norm(&mut self, file: &mut Writer, name: String, size: u64) {
        let values = self.list(size, 0.1, 1.0);
        file.tensor_f32(name, &[size], &values);
    }
}
