//! Keys and values of the positions that a slot has passed.

/// A slot's caches.
#[derive(Debug)]
pub(crate) struct SlotCache {
    /// One for each layer that it runs.
    pub layers: Vec<LayerCache>,
}

/// One layer's cache of one slot; keys and values are each `[positions][kv heads][head]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerCache {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
    /// Most numbers that either may hold, so that growing never takes more memory than was reserved.
    limit: usize,
}

impl SlotCache {
    /// Empty caches that will hold at most `limit` keys, and as many values, in each layer.
    pub(crate) fn new(layers: u32, limit: usize) -> Self {
        let layer = LayerCache { limit, ..LayerCache::default() };
        Self { layers: vec![layer; layers as usize] }
    }

    /// Forgets what lies behind this many numbers.
    pub(crate) fn truncate(&mut self, numbers: usize) {
        for layer in &mut self.layers {
            layer.keys.truncate(numbers);
            layer.values.truncate(numbers);
        }
    }
}

impl LayerCache {
    /// Adds rows.
    pub(crate) fn extend(&mut self, keys: &[f32], values: &[f32]) {
        debug_assert!(self.keys.len() + keys.len() <= self.limit, "a slot stays within what was reserved");
        grow(&mut self.keys, keys.len(), self.limit);
        grow(&mut self.values, values.len(), self.limit);
        self.keys.extend_from_slice(keys);
        self.values.extend_from_slice(values);
    }
}

/// Doubles the capacity, but not past the limit.
fn grow(list: &mut Vec<f32>, more: usize, limit: usize) {
    let needed = list.len() + more;
    if needed > list.capacity() {
        let target = (2 * list.capacity()).max(needed).min(limit.max(needed));
        list.reserve_exact(target - list.len());
    }
}
