//! Keys and values of the positions that a slot has passed.

use crate::kernels::{
    isa::Isa,
    page::{Layout, POSITIONS, Page},
};

/// A slot's caches.
#[derive(Debug)]
pub(crate) struct SlotCache {
    /// One for each layer that it runs.
    pub layers: Vec<LayerCache>,
}

/// One layer's cache of one slot. Memory is taken for 64 positions at a time, when the first of them comes.
#[derive(Debug)]
pub(crate) struct LayerCache {
    layout: Layout,
    pages: Vec<Page>,
    /// Positions in it.
    len: usize,
    /// Most positions, so that growing never takes more memory than was reserved.
    limit: usize,
}

/// Bytes that one layer's cache of so many positions takes.
pub(crate) fn layer_bytes(layout: Layout, positions: u32) -> u64 {
    u64::from(positions).div_ceil(POSITIONS as u64).saturating_mul(layout.page_bytes() as u64)
}

impl SlotCache {
    /// Empty caches that will hold at most so many positions in each layer.
    pub(crate) fn new(layers: u32, positions: u32, layout: Layout) -> Self {
        let layer = || LayerCache { layout, pages: vec![], len: 0, limit: positions as usize };
        Self { layers: (0..layers).map(|_| layer()).collect() }
    }

    /// Forgets what lies from this position on.
    pub(crate) fn truncate(&mut self, position: usize) {
        for layer in &mut self.layers {
            layer.len = layer.len.min(position);
            layer.pages.truncate(layer.len.div_ceil(POSITIONS));
        }
    }
}

impl LayerCache {
    /// Positions in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All positions, in order.
    pub(crate) fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// Adds rows, keys and values each `[rows][kv heads][head]`.
    pub(crate) fn extend(&mut self, mut keys: &[f32], mut values: &[f32], isa: Isa) {
        let width = self.layout.kv_heads * self.layout.head;
        debug_assert!(self.len + keys.len() / width <= self.limit, "a slot stays within what was reserved");
        while !keys.is_empty() {
            let place = self.len % POSITIONS;
            if place == 0 {
                self.pages.push(Page::new(self.layout));
            }
            let count = (keys.len() / width).min(POSITIONS - place);
            let page = self.pages.last_mut().expect("one was added before the first of its positions");
            page.put(place, &keys[..count * width], &values[..count * width], isa);
            self.len += count;
            (keys, values) = (&keys[count * width..], &values[count * width..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bench::numbers, config::KvType};

    const LAYOUT: Layout = Layout { kv_heads: 2, head: 16, kv_type: KvType::F16 };

    fn bytes(layer: &LayerCache) -> Vec<u8> {
        let blocks = layer.pages.iter().flat_map(|page| (0..2).map(|head| page.block(head)));
        blocks.flat_map(|block| [block.keys, block.values].concat()).collect()
    }

    #[test]
    fn memory_is_taken_page_by_page_and_given_back() {
        let mut cache = SlotCache::new(1, 300, LAYOUT);
        let rows = numbers(300 * 32);
        let mut pages = vec![];
        for range in [0..1, 1..64, 64..65, 65..190, 190..300] {
            let rows = &rows[range.start * 32..range.end * 32];
            cache.layers[0].extend(rows, rows, Isa::best());
            pages.push((cache.layers[0].len(), cache.layers[0].pages().len()));
        }
        assert_eq!(pages, [(1, 1), (64, 1), (65, 2), (190, 3), (300, 5)]);
        assert_eq!(layer_bytes(LAYOUT, 300), 5 * LAYOUT.page_bytes() as u64);
        for (position, pages) in [(400, 5), (257, 5), (256, 4), (65, 2), (64, 1), (0, 0)] {
            cache.truncate(position);
            assert_eq!((cache.layers[0].len(), cache.layers[0].pages().len()), (position.min(300), pages));
        }
    }

    #[test]
    fn rows_lie_in_the_same_places_however_they_were_cut() {
        let rows = numbers(150 * 32);
        let filled = |chunk: usize| {
            let mut cache = SlotCache::new(1, 150, LAYOUT);
            rows.chunks(chunk * 32).for_each(|rows| cache.layers[0].extend(rows, rows, Isa::best()));
            bytes(&cache.layers[0])
        };
        let expected = filled(150);
        for chunk in [1, 7, 64, 65] {
            assert!(filled(chunk) == expected, "chunks of {chunk}");
        }
    }
}
