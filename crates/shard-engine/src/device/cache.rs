//! Keys and values of the positions that a slot has passed, on a device.

use candle_core::{DType, Device, Result, Tensor};
use swarm_types::LayerRange;

use crate::{KvType, kernels::page::Layout};

/// Positions of a block: memory is taken, and attention computed, by as many. Fewer would be more kernels for a long
/// session, more would be memory that short ones never use.
pub(crate) const POSITIONS: usize = 256;

/// A slot's caches.
#[derive(Debug)]
pub(crate) struct SlotCache {
    /// One for each layer that it runs.
    pub layers: Vec<LayerCache>,
}

/// One layer's cache of one slot.
#[derive(Debug, Default)]
pub(crate) struct LayerCache {
    blocks: Vec<Block>,
    /// Positions in it.
    len: usize,
    /// Positions of its blocks below which something was written, and not cleared since.
    written: usize,
}

/// `[kv heads, positions, head]` each. Behind the last position of a cache are numbers that say nothing, but are
/// finite: what a mask hides is multiplied by 0.
#[derive(Debug)]
pub(crate) struct Block {
    pub keys: Tensor,
    pub values: Tensor,
}

/// Bytes of one layer's cache of so many positions.
pub(crate) fn layer_bytes(layout: Layout, positions: u32) -> u64 {
    let Layout { kv_heads, head, kv_type } = layout;
    let number = number_type(kv_type).size_in_bytes();
    let block = (2 * POSITIONS * kv_heads * head * number) as u64;
    u64::from(positions).div_ceil(POSITIONS as u64).saturating_mul(block)
}

impl SlotCache {
    pub(crate) fn new(layers: LayerRange) -> Self {
        Self { layers: layers.iter().map(|_| LayerCache::default()).collect() }
    }

    /// Forgets what lies from this position on.
    pub(crate) fn truncate(&mut self, position: usize) {
        for layer in &mut self.layers {
            layer.len = layer.len.min(position);
            layer.blocks.truncate(layer.len.div_ceil(POSITIONS));
            layer.written = layer.written.min(layer.blocks.len() * POSITIONS);
        }
    }
}

impl LayerCache {
    /// Positions in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All positions, in order.
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Adds rows, keys and values each f32 `[kv heads, rows, head]`.
    pub(crate) fn extend(&mut self, keys: &Tensor, values: &Tensor, layout: Layout) -> Result<()> {
        let dtype = number_type(layout.kv_type);
        let (keys, values) = (keys.to_dtype(dtype)?, values.to_dtype(dtype)?);
        let (rows, mut done) = (keys.dim(1)?, 0);
        while done < rows {
            let at = self.len % POSITIONS;
            if at == 0 {
                self.blocks.push(Block::new(layout, keys.device())?);
            }
            let count = (rows - done).min(POSITIONS - at);
            let block = self.blocks.last().expect("one was added before the first of its positions");
            block.put(&keys.narrow(1, done, count)?, &values.narrow(1, done, count)?, at)?;
            self.len += count;
            self.written = self.written.max(self.len);
            done += count;
        }
        self.clear_behind(layout)
    }

    /// Of what was taken back, all that was not written over goes: it need not be finite.
    fn clear_behind(&mut self, layout: Layout) -> Result<()> {
        if let Some(block) = self.blocks.last()
            && self.written > self.len
        {
            let nothing = empty(layout, self.written - self.len, block.keys.device())?;
            block.put(&nothing, &nothing, self.len % POSITIONS)?;
        }
        self.written = self.len;
        Ok(())
    }
}

impl Block {
    fn new(layout: Layout, device: &Device) -> Result<Self> {
        let empty = || empty(layout, POSITIONS, device);
        Ok(Self { keys: empty()?, values: empty()? })
    }

    fn put(&self, keys: &Tensor, values: &Tensor, at: usize) -> Result<()> {
        self.keys.slice_set(&keys.contiguous()?, 1, at)?;
        self.values.slice_set(&values.contiguous()?, 1, at)
    }
}

fn empty(layout: Layout, positions: usize, device: &Device) -> Result<Tensor> {
    Tensor::zeros((layout.kv_heads, positions, layout.head), number_type(layout.kv_type), device)
}

fn number_type(kv_type: KvType) -> DType {
    match kv_type {
        KvType::F16 => DType::F16,
        KvType::F32 => DType::F32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::numbers;

    const LAYOUT: Layout = Layout { kv_heads: 2, head: 4, kv_type: KvType::F32 };

    fn rows(of: &[f32]) -> Tensor {
        Tensor::from_slice(of, (2, of.len() / 8, 4), &Device::Cpu).expect("as many numbers")
    }

    fn keys(cache: &LayerCache) -> Vec<f32> {
        let blocks = cache.blocks().iter().map(|block| block.keys.flatten_all()?.to_vec1());
        blocks.collect::<Result<Vec<_>>>().expect("on the host").concat()
    }

    fn filled(chunks: &[usize]) -> SlotCache {
        let mut cache = SlotCache::new(LayerRange::new(3, 4).expect("valid"));
        let all = rows(&numbers(8 * chunks.iter().sum::<usize>()));
        let mut first = 0;
        for count in chunks {
            let rows = all.narrow(1, first, *count).expect("there");
            cache.layers[0].extend(&rows, &rows, LAYOUT).expect("added");
            first += count;
        }
        cache
    }

    #[test]
    fn rows_lie_in_the_same_places_however_they_were_cut_and_memory_is_taken_block_by_block() {
        let cache = filled(&[600]);
        let expected = keys(&cache.layers[0]);
        assert_eq!((cache.layers[0].len(), cache.layers[0].blocks().len()), (600, 3));
        assert_eq!(layer_bytes(LAYOUT, 600), 3 * 2 * 256 * 8 * 4);
        for chunks in [&[1, 599][..], &[256, 256, 88], &[255, 2, 343]] {
            assert!(keys(&filled(chunks).layers[0]) == expected, "{chunks:?}");
        }
    }

    #[test]
    fn what_was_taken_back_is_given_back_and_nothing_of_it_is_left_behind() {
        let nothing = rows(&[f32::NAN; 80]);
        for position in [0, 1, 255, 256, 257, 300] {
            let mut cache = filled(&[300]);
            cache.layers[0].extend(&nothing, &nothing, LAYOUT).expect("added");
            cache.truncate(position);
            let layer = &mut cache.layers[0];
            assert_eq!((layer.len(), layer.blocks().len()), (position, position.div_ceil(256)));
            let one = rows(&[1.0; 8]);
            layer.extend(&one, &one, LAYOUT).expect("added");
            assert_eq!(layer.len(), position + 1);
            assert!(keys(layer).iter().all(|number| number.is_finite()), "back to {position}");
        }
    }
}
