//! What of a model some shards are.

use swarm_types::{Cut, LayerRange, LayersError, ShardRange};

use crate::{hyper::HyperParameters, source::TensorSource};

/// Some layers in a row, and whether they come with the model's ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub layers: LayerRange,
    /// It begins with the embedding.
    pub embeds: bool,
    /// It ends with the head.
    pub samples: bool,
}

impl Part {
    pub(crate) fn of(shards: ShardRange, cut: &Cut) -> Result<Self, LayersError> {
        let layers = cut.layers(shards)?;
        // Told by the shards: several of them may end with the last layer, when some have none.
        Ok(Self { layers, embeds: shards.start() == 0, samples: shards.end() == cut.total_shards() })
    }

    /// Bytes of the file that loading it reads.
    pub(crate) fn file_bytes(self, source: &TensorSource, hyper: &HyperParameters) -> u64 {
        let of = |name: &str| source.header().tensors.get(name).map_or(0, |tensor| tensor.bytes);
        let mine = |name: &str| {
            let layer = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
            layer.is_some_and(|layer: u32| self.layers.iter().contains(&layer))
        };
        let tensors = source.header().tensors.iter();
        let blocks: u64 = tensors.filter(|(name, _)| mine(name)).map(|(_, tensor)| tensor.bytes).sum();
        let twice = self.embeds && self.samples && hyper.tied;
        let embedding = if self.embeds && !twice { of("token_embd.weight") } else { 0 };
        let head = match self.samples {
            true if hyper.tied => of("token_embd.weight"),
            true => of("output.weight"),
            false => 0,
        };
        blocks + embedding + head
    }
}
