//! Rows laid side by side, so that a tile of them is read in one stream.

use crate::kernels::{
    buffer::{Buffer, Reusable},
    rows::PIECE_ROWS,
    threads::Threads,
};

/// `[tiles][numbers][rows of a tile]`.
#[derive(Debug)]
pub(super) struct Tiles<T: Reusable> {
    values: Buffer<T>,
    /// Numbers in a row.
    length: usize,
    rows: usize,
    /// Rows in a tile; the last may have fewer, and keeps the space.
    height: usize,
}

impl<T: Reusable + Sync + Send> Tiles<T> {
    /// Of `rows` `[rows][from]`, each padded to `length`, in tiles as even as can be of at most `most` rows.
    pub(super) fn new(values: &[T], from: usize, length: usize, most: usize, threads: &Threads) -> Self {
        let rows = values.len() / from;
        let height = rows.div_ceil(rows.div_ceil(most).max(1)).max(1);
        let size = rows.div_ceil(height) * height * length;
        // Nobody reads what a last tile has beyond its rows.
        let mut tiles = if from == length { Buffer::stale(size) } else { Buffer::zeros(size) };
        let at_once = (PIECE_ROWS / height).max(1);
        threads.for_chunks(&mut tiles, at_once * height * length, |number, tiles| {
            let first = number * at_once * height;
            let rows = values[first * from..].chunks_exact(from).take(at_once * height);
            for (number, row) in rows.enumerate() {
                let start = number / height * height * length + number % height;
                tiles[start..].iter_mut().step_by(height).zip(row).for_each(|(place, value)| *place = *value);
            }
        });
        Self { values: tiles, length, rows, height }
    }

    /// Rows in a tile.
    pub(super) fn height(&self) -> usize {
        self.height
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in a row.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Numbers `from..from + count` of a tile's rows: `[count][height]`.
    #[inline(always)]
    pub(super) fn tile(&self, tile: usize, from: usize, count: usize) -> &[T] {
        let start = (tile * self.length + from) * self.height;
        &self.values[start..start + count * self.height]
    }
}
