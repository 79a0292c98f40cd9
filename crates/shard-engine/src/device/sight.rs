//! What rows see of the positions before them: some blocks of a cache, and masks for those that are not seen whole.
//! Made once a pass, for all layers.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::{cache::POSITIONS, place::Place};

/// What is added to a score that a row must not see: it becomes exactly this, and its exponential exactly 0 beside any
/// score that counts. No infinity, whose difference with itself is no number.
const HIDDEN: f32 = -1e30;

/// Neighbouring rows of one slot, at most a tile of them. Those that it lacks are copies of its last.
#[derive(Debug)]
pub(crate) struct Tile {
    /// The number of its first among the slot's rows of the pass.
    pub first: usize,
    pub count: usize,
    whole: Sight,
    windowed: Option<Sight>,
}

/// What the rows of a tile see.
#[derive(Debug)]
pub(crate) struct Sight {
    blocks: Range<usize>,
    /// One for each of the blocks: `[tile, positions]`, or nothing where all is seen.
    masks: Vec<Option<Tensor>>,
}

impl Tile {
    /// Those of a slot's rows, of which the first is at this position; `window` is that of the layers that have one.
    pub(crate) fn all(
        position: usize,
        rows: usize,
        window: Option<usize>,
        place: &Place,
    ) -> Result<Vec<Self>> {
        let tile = |first: usize| {
            let count = place.tile.min(rows - first);
            let see = |window| Sight::new(position + first, count, window, place);
            let windowed = window.map(see).transpose()?;
            Ok(Self { first, count, whole: see(usize::MAX)?, windowed })
        };
        (0..rows).step_by(place.tile).map(tile).collect()
    }

    /// What its rows see in a layer with a window, or without.
    pub(crate) fn sight(&self, windowed: bool) -> &Sight {
        self.windowed.as_ref().filter(|_| windowed).unwrap_or(&self.whole)
    }
}

impl Sight {
    fn new(position: usize, count: usize, window: usize, place: &Place) -> Result<Self> {
        let last = position + count - 1;
        let blocks = (position + 1).saturating_sub(window) / POSITIONS..last / POSITIONS + 1;
        let mask = |block: usize| {
            let start = block * POSITIONS;
            let all = start + POSITIONS - 1 <= position && start.saturating_add(window) > last;
            (!all).then(|| mask(position..last + 1, window, start, place)).transpose()
        };
        let masks = blocks.clone().map(mask).collect::<Result<_>>()?;
        Ok(Self { blocks, masks })
    }

    /// Whether any row sees anything of this block, and its mask then.
    pub(crate) fn of(&self, block: usize) -> Option<Option<&Tensor>> {
        self.blocks.contains(&block).then(|| self.masks[block - self.blocks.start].as_ref())
    }
}

/// Of rows at these positions and the block that starts at a position: 0 for what is seen.
fn mask(rows: Range<usize>, window: usize, start: usize, place: &Place) -> Result<Tensor> {
    let (first, last) = (rows.start, rows.end - 1);
    let row = |row: usize| {
        let own = (first + row).min(last);
        let seen = move |position: usize| position <= own && position.saturating_add(window) > own;
        (start..start + POSITIONS).map(move |position| if seen(position) { 0.0 } else { HIDDEN })
    };
    let numbers: Vec<f32> = (0..place.tile).flat_map(row).collect();
    Tensor::from_vec(numbers, (place.tile, POSITIONS), &place.device)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Positions that each row of a tile sees.
    fn seen(sight: &Sight, tile: usize) -> Vec<Vec<usize>> {
        let mut rows = vec![vec![]; tile];
        for block in 0..8 {
            let Some(mask) = sight.of(block) else { continue };
            let mask = mask.map(|mask| mask.to_vec2::<f32>().expect("on the host"));
            for (row, seen) in rows.iter_mut().enumerate() {
                let sees = |place: &usize| mask.as_ref().is_none_or(|mask| mask[row][*place] == 0.0);
                seen.extend((0..POSITIONS).filter(sees).map(|place| block * POSITIONS + place));
            }
        }
        rows
    }

    #[test]
    fn a_row_sees_all_up_to_itself_or_as_many_as_its_window_has() {
        let place = Place { device: Device::Cpu, tile: 4 };
        for (position, rows) in [(0, 1), (0, 9), (250, 13), (255, 2), (256, 4), (700, 3), (1023, 5)] {
            for window in [None, Some(1), Some(7), Some(256), Some(300), Some(5000)] {
                for tile in Tile::all(position, rows, window, &place).expect("tiles") {
                    for windowed in [false, true] {
                        let seen = seen(tile.sight(windowed), tile.count);
                        for (row, seen) in seen.iter().enumerate() {
                            let own = position + tile.first + row;
                            let window = window.filter(|_| windowed).unwrap_or(usize::MAX);
                            let expected: Vec<usize> = ((own + 1).saturating_sub(window)..=own).collect();
                            assert_eq!(seen, &expected, "{position} {rows} {window:?} {windowed}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_come_in_tiles_and_each_is_in_one() {
        let place = Place { device: Device::Cpu, tile: 4 };
        let tiles = Tile::all(100, 10, None, &place).expect("tiles");
        let rows: Vec<(usize, usize)> = tiles.iter().map(|tile| (tile.first, tile.count)).collect();
        assert_eq!(rows, [(0, 4), (4, 4), (8, 2)]);
    }
}
