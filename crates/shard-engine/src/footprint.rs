//! What shards take in memory, told by the header before anything is loaded.
//!
//! How tensors and caches are held is each backend's own business, and it is asked. Of a device this is what lies
//! there, and the embedding, which stays on the host; what candle sets aside for itself is not known.

use gguf::{Header, TensorInfo};
use swarm_types::{Cut, LayerRange, Precision, ShardRange};

use crate::{
    BackendChoice, KvType,
    arch::Halves,
    cpu::{self, rope},
    cut::CutError,
    device,
    hyper::HyperParameters,
    kernels::page::Layout,
    part::Part,
    parts,
    storage::{packed_bytes, tensor_weight_bytes, unpacked_bytes},
};

/// Rows whose logits are in memory together.
const LOGIT_ROWS: u64 = 16;
/// So many times activations lie beside the numbers that are computed on: in a message, and in what the network holds
/// of it, as they come and as they go.
const ON_THE_WAY: u64 = 4;
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
    /// Who computes: [`DeviceChoice::backend`](crate::DeviceChoice::backend) tells.
    pub backend: BackendChoice,
}

/// What an engine with some shards takes in memory, besides what every process takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// The layers of the shards.
    pub layers: LayerRange,
    /// Bytes of the weights as they are held.
    pub weight_bytes: u64,
    /// Bytes that the largest batch takes while it comes, is computed, and goes on.
    pub buffer_bytes: u64,
    /// Bytes of one row's activations, as they go from shard to shard.
    pub row_bytes: u64,
    /// Positions of the longest session.
    pub context_length: u32,
    /// How caches are held.
    layout: Layout,
    backend: BackendChoice,
}

impl Footprint {
    /// Of these shards of the model.
    ///
    /// # Errors
    /// When the header is not of a model that is supported, or not by who computes, or there are no such shards.
    pub fn of(header: &Header, cut: &Cut, shards: ShardRange, usage: Usage) -> Result<Self, CutError> {
        let hyper = HyperParameters::read(header)?;
        let part = Part::of(shards, cut)?;
        let layers = part.layers;
        parts::check(header, layers, &hyper)?;
        rope::check(&hyper)?;
        if usage.backend == BackendChoice::Candle {
            device::can_compute(hyper.arch)?;
        }
        Ok(Self {
            layers,
            weight_bytes: weight_bytes(header, part, usage)?,
            buffer_bytes: buffer_bytes(&hyper, part, usage).saturating_add(unpacked(header, part, usage)?),
            row_bytes: hyper.hidden as u64 * F32_BYTES,
            context_length: hyper.context,
            layout: Layout { kv_heads: hyper.kv_heads, head: hyper.head, kv_type: usage.kv_type },
            backend: usage.backend,
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
        let layer = match self.backend {
            BackendChoice::Native => cpu::kv::layer_bytes(self.layout, positions),
            BackendChoice::Candle => device::cache::layer_bytes(self.layout, positions),
        };
        u64::from(self.layers.count()).saturating_mul(layer)
    }
}

/// Bytes of the part's weights as they are held.
fn weight_bytes(header: &Header, part: Part, usage: Usage) -> Result<u64, CutError> {
    let parts = header.parts()?;
    let mut computed: Vec<_> = part.layers.iter().flat_map(|layer| &parts.layers[layer as usize]).collect();
    if part.samples {
        computed.extend(&parts.head);
    }
    // Where the embedding is the head too, a processor holds it once.
    let twice = usage.backend == BackendChoice::Candle;
    let looked_up = parts.embedding.iter().filter(|_| part.embeds);
    let looked_up = looked_up.filter(|tensor| twice || !computed.contains(tensor));
    let looked_up: u64 = looked_up.map(|(_, tensor)| packed_bytes(tensor)).sum();
    let bytes =
        |(_, tensor): &(&str, &TensorInfo)| tensor_weight_bytes(tensor, usage.precision, usage.backend);
    Ok(looked_up + computed.into_iter().map(bytes).sum::<u64>())
}

/// Bytes of the largest matrix that is made numbers for a product.
fn unpacked(header: &Header, part: Part, usage: Usage) -> Result<u64, CutError> {
    if usage.backend == BackendChoice::Native {
        return Ok(0);
    }
    let parts = header.parts()?;
    let layers = part.layers.iter().flat_map(|layer| &parts.layers[layer as usize]);
    let head = parts.head.iter().filter(|_| part.samples);
    let bytes = |(_, tensor): &(&str, &TensorInfo)| unpacked_bytes(tensor, usage.precision);
    Ok(layers.chain(head).map(bytes).max().unwrap_or(0))
}

/// Bytes that live together while the largest batch passes a layer, those of its logits, and those on the way. What
/// comes in, what is computed on, and what goes out are three lists of activations.
fn buffer_bytes(hyper: &HyperParameters, part: Part, usage: Usage) -> u64 {
    let (hidden, wide) = (hyper.hidden as u64, hyper.feed_forward as u64);
    let (queries, keys) = ((hyper.heads * hyper.head) as u64, hyper.kv_width() as u64);
    let operand = |inputs| operand_bytes(inputs, usage);
    let attention = (2 * hidden + 2 * queries + 2 * keys) * F32_BYTES + operand(queries.max(hidden));
    let feed_forward = match hyper.experts {
        // What all rows add, and of one expert what goes in and out; in the end of the shared one.
        Some(experts) => {
            let (wide, shared) = (experts.wide as u64, experts.shared as u64);
            let numbers = 3 * hidden + (hidden + 2 * wide + experts.count as u64).max(2 * shared);
            numbers * F32_BYTES + operand(wide.max(shared).max(hidden))
        }
        None => (2 * hidden + 2 * wide) * F32_BYTES + operand(wide.max(hidden)),
    };
    // What the first half adds waits for the second.
    let feed_forward = match hyper.arch.halves {
        Halves::InTurn => feed_forward,
        Halves::SideBySide => feed_forward + hidden * F32_BYTES,
    };
    let layer = if part.layers.count() > 0 { attention.max(feed_forward) } else { 0 };
    let row = (3 + ON_THE_WAY) * hidden * F32_BYTES + layer;
    let logits = if part.samples { LOGIT_ROWS * hyper.vocabulary as u64 } else { 0 };
    u64::from(usage.batch_rows) * row + logits * F32_BYTES
}

/// Bytes that a row of so many numbers takes in a product, besides the numbers themselves: rows are laid side by side
/// for it. For the standard precision they are rounded before, which is kept too, with a scale for every 32.
fn operand_bytes(inputs: u64, usage: Usage) -> u64 {
    match (usage.backend, usage.precision) {
        (BackendChoice::Candle, _) => 0,
        (BackendChoice::Native, Precision::Exact) => inputs * F32_BYTES,
        (BackendChoice::Native, Precision::Standard) => 2 * inputs * size_of::<i16>() as u64 + inputs / 2,
    }
}
