//! What shards take in memory, told by the header before anything is loaded.
//!
//! How a tensor and a cache are held is decided elsewhere; [`held_bytes`] and [`position_bytes`] are what is known of it
//! here.

use candle_core::Device;
use gguf::{Header, TensorInfo};
use swarm_types::{Cut, LayerRange, Precision, ShardRange};

use crate::{cut::CutError, hyper::HyperParameters, part::Part, storage::Storage};

/// Rows whose logits are in memory together.
const LOGIT_ROWS: u64 = 16;
const F32_BYTES: u64 = size_of::<f32>() as u64;

/// How an engine will be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Which arithmetic gives the answers.
    pub precision: Precision,
    /// Rows of its largest batch.
    pub batch_rows: u32,
}

/// What an engine with some shards takes in memory, besides what every process takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// The layers of the shards.
    pub layers: LayerRange,
    /// Bytes of the weights as they are held.
    pub weight_bytes: u64,
    /// Bytes of cache for each position of a session.
    pub position_bytes: u64,
    /// Bytes that the largest batch takes while it is computed.
    pub buffer_bytes: u64,
    /// Positions of the longest session.
    pub context_length: u32,
}

impl Footprint {
    /// Of these shards of the model.
    ///
    /// # Errors
    /// When the header is not of a model that is supported, or there are no such shards.
    pub fn of(header: &Header, cut: &Cut, shards: ShardRange, usage: Usage) -> Result<Self, CutError> {
        let hyper = HyperParameters::read(header)?;
        let part = Part::of(shards, cut)?;
        let layers = part.layers;
        Ok(Self {
            layers,
            weight_bytes: weight_bytes(header, part, usage.precision)?,
            position_bytes: u64::from(layers.count()) * position_bytes(&hyper),
            buffer_bytes: buffer_bytes(&hyper, part, usage.batch_rows),
            context_length: hyper.context,
        })
    }

    /// Bytes without which nothing can be computed: weights and buffers.
    #[must_use]
    pub fn least_bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.buffer_bytes)
    }

    /// Bytes of a session's cache when it has so many positions.
    #[must_use]
    pub fn cache_bytes(&self, positions: u32) -> u64 {
        self.position_bytes.saturating_mul(positions.into())
    }
}

/// Bytes of the part's weights as they are held.
fn weight_bytes(header: &Header, part: Part, precision: Precision) -> Result<u64, CutError> {
    let parts = header.parts()?;
    let held = |tensors: &[(&str, &TensorInfo)]| -> u64 {
        tensors.iter().map(|(_, tensor)| held_bytes(tensor, precision)).sum()
    };
    // Rows of it are looked up as the file has them.
    let stored: u64 = parts.embedding.iter().map(|(_, tensor)| tensor.bytes).sum();
    let layers: u64 = part.layers.iter().map(|layer| held(&parts.layers[layer as usize])).sum();
    let ends = [(part.embeds, stored), (part.samples, held(&parts.head))];
    Ok(layers + ends.iter().filter(|(here, _)| *here).map(|(_, bytes)| bytes).sum::<u64>())
}

/// Bytes of a tensor as it is held: vectors as f32, matrices as their storage says.
fn held_bytes(tensor: &TensorInfo, precision: Precision) -> u64 {
    let as_f32 = tensor.shape.iter().product::<u64>().saturating_mul(F32_BYTES);
    match Storage::of(precision, tensor.dtype, &Device::Cpu) {
        Storage::Quantised if tensor.shape.len() > 1 => tensor.bytes,
        _ => as_f32,
    }
}

/// Bytes of one layer's keys and values of one position.
fn position_bytes(hyper: &HyperParameters) -> u64 {
    2 * hyper.kv_width() as u64 * F32_BYTES
}

/// Bytes that live together while a batch of so many rows passes a layer, and those of its logits. What comes in, what
/// is computed on, and what goes out are three lists of activations.
fn buffer_bytes(hyper: &HyperParameters, part: Part, rows: u32) -> u64 {
    let (hidden, wide) = (hyper.hidden as u64, hyper.feed_forward as u64);
    let (queries, keys) = ((hyper.heads * hyper.head) as u64, hyper.kv_width() as u64);
    let attention = 2 * hidden + 2 * queries + 2 * keys;
    let feed_forward = 2 * hidden + 2 * wide;
    let row = 3 * hidden + if part.layers.count() > 0 { attention.max(feed_forward) } else { 0 };
    let logits = if part.samples { LOGIT_ROWS * hyper.vocabulary as u64 } else { 0 };
    (u64::from(rows) * row + logits) * F32_BYTES
}
