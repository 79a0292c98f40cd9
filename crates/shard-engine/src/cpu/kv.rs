//! Keys and values of the positions a session has passed.

/// One layer's cache of one session; each `[positions][kv heads][head]`.
#[derive(Debug, Default)]
pub(crate) struct LayerCache {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

impl LayerCache {
    /// Adds rows. `limit` is the most numbers the session may ever hold, so that growing never takes more memory than
    /// was reserved.
    pub(crate) fn extend(&mut self, keys: &[f32], values: &[f32], limit: usize) {
        grow(&mut self.keys, keys.len(), limit);
        grow(&mut self.values, values.len(), limit);
        self.keys.extend_from_slice(keys);
        self.values.extend_from_slice(values);
    }

    /// Forgets what lies behind this many numbers.
    pub(crate) fn truncate(&mut self, numbers: usize) {
        self.keys.truncate(numbers);
        self.values.truncate(numbers);
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
