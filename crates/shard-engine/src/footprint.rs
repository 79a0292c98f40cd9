//! What shards take in memory, told by the header before anything is loaded.
//!
//! For the backend in memory: how tensors and caches are held is its own business, and it is asked.

use gguf::Header;
use swarm_types::{Cut, LayerRange, Precision, ShardRange};

use crate::{
    KvType, arch::Halves, cpu::kv::layer_bytes, cut::CutError, hyper::HyperParameters, kernels::page::Layout,
    part::Part, parts, storage::tensor_weight_bytes,
};

/// Rows whose logits are in memory together.
const LOGIT_ROWS: u64 = 16;
const F32_BYTES: u64 = size_of::<f32>() as u64;

/// How an engine will be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Which arithmetic gives the answers.
    pub precision: Precision,
    /// How caches are held.
    pub kv_type: KvType,
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
    /// Bytes that the largest batch takes while it is computed.
    pub buffer_bytes: u64,
    /// Bytes of one row's activations, as they go from shard to shard.
    pub row_bytes: u64,
    /// Positions of the longest session.
    pub context_length: u32,
    /// How caches are held.
    layout: Layout,
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
        parts::check(header, layers, &hyper)?;
        Ok(Self {
            layers,
            weight_bytes: weight_bytes(header, part, usage.precision)?,
            buffer_bytes: buffer_bytes(&hyper, part, usage.batch_rows),
            row_bytes: hyper.hidden as u64 * F32_BYTES,
            context_length: hyper.context,
            layout: Layout { kv_heads: hyper.kv_heads, head: hyper.head, kv_type: usage.kv_type },
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
        u64::from(self.layers.count()).saturating_mul(layer_bytes(self.layout, positions))
    }
}

/// Bytes of the part's weights as they are held.
fn weight_bytes(header: &Header, part: Part, precision: Precision) -> Result<u64, CutError> {
    let parts = header.parts()?;
    let mut tensors: Vec<_> = part.layers.iter().flat_map(|layer| &parts.layers[layer as usize]).collect();
    if part.samples {
        tensors.extend(&parts.head);
    }
    // Where the embedding is the head too, it is held once.
    if part.embeds {
        let more = parts.embedding.iter().filter(|tensor| !tensors.contains(tensor));
        tensors.extend(more.collect::<Vec<_>>());
    }
    Ok(tensors.iter().map(|(_, tensor)| tensor_weight_bytes(tensor, precision)).sum())
}

/// Bytes that live together while a batch of so many rows passes a layer, and those of its logits. What comes in, what
/// is computed on, and what goes out are three lists of activations.
fn buffer_bytes(hyper: &HyperParameters, part: Part, rows: u32) -> u64 {
    let (hidden, wide) = (hyper.hidden as u64, hyper.feed_forward as u64);
    let (queries, keys) = ((hyper.heads * hyper.head) as u64, hyper.kv_width() as u64);
    let attention = 2 * hidden + 2 * queries + 2 * keys;
    let feed_forward = match hyper.experts {
        // What all rows add, and of one expert what goes in and out; in the end of the shared one.
        Some(experts) => {
            let (wide, shared) = (experts.wide as u64, experts.shared as u64);
            3 * hidden + (hidden + 2 * wide + experts.count as u64).max(2 * shared)
        }
        None => 2 * hidden + 2 * wide,
    };
    // What the first half adds waits for the second.
    let feed_forward = match hyper.arch.halves {
        Halves::InTurn => feed_forward,
        Halves::SideBySide => feed_forward + hidden,
    };
    let row = 3 * hidden + if part.layers.count() > 0 { attention.max(feed_forward) } else { 0 };
    let logits = if part.samples { LOGIT_ROWS * hyper.vocabulary as u64 } else { 0 };
    (u64::from(rows) * row + logits) * F32_BYTES
}
