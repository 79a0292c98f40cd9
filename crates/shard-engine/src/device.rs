//! Layers on a device, with candle's kernels: tensors stay there from the first layer to the last, caches too. Rows are
//! copied there once and back once; masks and rotations of a pass are made once for all its layers.
//!
//! On a processor the same code runs for comparison, and so that it is tested where there is no other device.

mod attention;
mod block;
pub(crate) mod cache;
mod experts;
mod feed_forward;
mod gated;
mod head;
mod linear;
mod norm;
mod pass;
mod place;
mod rope;
mod sight;

use std::ops::Range;

use candle_core::Tensor;
use swarm_types::LayerRange;

use self::{
    block::Block,
    cache::{SlotCache, layer_bytes},
    head::Head,
    pass::{Pass, SlotRows},
    place::Loading,
    rope::Rotations,
    sight::Tile,
};
use crate::{
    EngineConfig, EngineError,
    arch::{Activation, Architecture, Halves, Norm},
    backend::{Backend, Cache, Hidden, Input, Rows},
    cpu::{
        head::{Embedding, embed},
        rope::Ropes,
    },
    cut::CutError,
    hyper::HyperParameters,
    kernels::page::Layout,
    part::Part,
    source::TensorSource,
};

/// A part of a model on a device.
#[derive(Debug)]
pub(crate) struct DeviceBackend {
    hyper: HyperParameters,
    loading: Loading,
    /// Of caches.
    layout: Layout,
    ropes: Ropes,
    /// The number of the first of `blocks` in the model.
    first_layer: u32,
    /// On the host: of all its rows a pass needs a few.
    embedding: Option<Embedding>,
    blocks: Vec<Block>,
    head: Option<Head>,
}

impl Backend for DeviceBackend {
    fn load(
        source: &mut TensorSource,
        hyper: &HyperParameters,
        part: Part,
        config: &EngineConfig,
        on_progress: &mut dyn FnMut(u8),
    ) -> Result<Self, EngineError> {
        can_compute(hyper.arch).map_err(|error| source.failed(error))?;
        let loading = Loading::new(config)?;
        let ropes = Ropes::load(source, hyper)?;
        let total = part.file_bytes(source, hyper).max(1);
        let mut progress =
            |source: &TensorSource| on_progress((source.bytes_read() * 100 / total).min(100) as u8);
        // Grows with what is there: the number of layers is only what the header says.
        let mut blocks = Vec::new();
        for layer in part.layers.iter() {
            progress(source);
            blocks.push(Block::load(source, layer, hyper, &loading)?);
        }
        progress(source);
        let head = if part.samples { Some(Head::load(source, hyper, &loading)?) } else { None };
        progress(source);
        let embedding = match part.embeds {
            true => Some(Embedding::load(source, hyper, &loading.threads)?),
            false => None,
        };
        progress(source);
        let layout = Layout { kv_heads: hyper.kv_heads, head: hyper.head, kv_type: config.kv_type };
        let (hyper, first_layer) = (hyper.clone(), part.layers.start());
        Ok(Self { hyper, loading, layout, ropes, first_layer, embedding, blocks, head })
    }

    fn weight_bytes(&self) -> u64 {
        let bytes = self.blocks.iter().map(Block::byte_count).sum::<usize>()
            + self.head.as_ref().map_or(0, Head::byte_count)
            + self.embedding.as_ref().map_or(0, Embedding::byte_count);
        bytes as u64
    }

    fn bytes_per_token(&self) -> u64 {
        let bytes = self.blocks.iter().map(Block::bytes_per_row).sum::<usize>()
            + self.head.as_ref().map_or(0, Head::byte_count);
        bytes as u64
    }

    fn cache_bytes(&self, layers: LayerRange, positions: u32) -> u64 {
        u64::from(layers.count()).saturating_mul(layer_bytes(self.layout, positions))
    }

    fn new_cache(&self, layers: LayerRange, _: u32) -> Cache {
        Cache::new(SlotCache::new(layers))
    }

    fn forward(&self, layers: LayerRange, rows: &mut [Rows<'_>]) -> Result<Hidden, EngineError> {
        let places = |rows: &Rows<'_>| rows.position..rows.position + rows.count as u32;
        let positions: Vec<u32> = rows.iter().flat_map(places).collect();
        let place = &self.loading.place;
        let rotations = Rotations::at(&positions, &self.ropes, &self.hyper, place)?;
        let pass = Pass { hyper: &self.hyper, place, layout: self.layout, rotations };
        let entering = self.first_rows(rows);
        let mut x = Tensor::from_vec(entering, (positions.len(), self.hyper.hidden), &place.device)?;
        let mut slots = self.slots(rows)?;
        for (number, block) in self.blocks_of(layers).iter().enumerate() {
            x = block.forward(x, &mut slots, number, &pass)?;
        }
        Ok(Hidden::new(x))
    }

    fn finite(&self, hidden: &Hidden, runs: &[Range<usize>]) -> Result<Vec<bool>, EngineError> {
        // What is finite gives 0, and anything else no number.
        let rows: Vec<f32> = hidden.get::<Tensor>().affine(0.0, 0.0)?.sum(1)?.to_vec1()?;
        Ok(runs.iter().map(|run| rows[run.clone()].iter().all(|row| *row == 0.0)).collect())
    }

    fn activations(&self, hidden: Hidden) -> Result<Vec<f32>, EngineError> {
        Ok(hidden.into::<Tensor>().flatten_all()?.to_vec1()?)
    }

    fn logits(
        &self,
        hidden: &Hidden,
        rows: &[usize],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        let head = self.head.as_ref().expect("only a part that ends with the head is asked for logits");
        if rows.is_empty() {
            return Ok(());
        }
        let rows: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
        let rows = Tensor::new(rows, &self.loading.place.device)?;
        Ok(head.logits(&hidden.get::<Tensor>().index_select(&rows, 0)?, each)?)
    }

    fn normed(
        &self,
        hidden: &Hidden,
        rows: Range<usize>,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<(), EngineError> {
        let head = self.head.as_ref().expect("only a part that ends with the head is asked for its norm");
        Ok(head.normed(&hidden.get::<Tensor>().narrow(0, rows.start, rows.len())?, each)?)
    }

    fn truncate(&self, cache: &mut Cache, position: u32) {
        cache.get::<SlotCache>().truncate(position as usize);
    }
}

/// Refuses architectures with parts that are computed on processors alone.
///
/// # Errors
/// Names the architecture.
pub(crate) fn can_compute(arch: &'static Architecture) -> Result<(), CutError> {
    let is_known = !arch.sinks
        && arch.halves == Halves::InTurn
        && arch.norm == Norm::RootMeanSquare
        && arch.activation != Activation::Clamped;
    if is_known { Ok(()) } else { Err(CutError::OnDevices(arch.name)) }
}

impl DeviceBackend {
    fn blocks_of(&self, layers: LayerRange) -> &[Block] {
        let place = |layer: u32| (layer - self.first_layer) as usize;
        &self.blocks[place(layers.start())..place(layers.end())]
    }

    /// `[rows][hidden]`: embedded tokens, or the activations that came.
    fn first_rows(&self, rows: &[Rows<'_>]) -> Vec<f32> {
        let mut x = vec![];
        for rows in rows {
            match rows.input {
                Input::Activations(activations) => x.extend_from_slice(activations),
                Input::Tokens(tokens) => {
                    let embedding = self.embedding.as_ref();
                    let embedding =
                        embedding.expect("tokens go only to a part that begins with the embedding");
                    let start = x.len();
                    embed(embedding.weights(), tokens, self.loading.isa, &mut x);
                    x[start..].iter_mut().for_each(|x| *x *= self.hyper.embedding_scale);
                }
            }
        }
        x
    }

    fn slots<'a>(&self, rows: &'a mut [Rows<'_>]) -> Result<Vec<SlotRows<'a>>, EngineError> {
        let (mut slots, mut first) = (Vec::with_capacity(rows.len()), 0);
        for Rows { position, count, cache, .. } in rows {
            let (position, count) = (*position as usize, *count);
            let tiles = Tile::all(position, count, self.hyper.window, &self.loading.place)?;
            slots.push(SlotRows { first, count, position, tiles, cache: cache.get() });
            first += count;
        }
        Ok(slots)
    }
}
