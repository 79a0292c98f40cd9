//! Layers on the host: activations are f32 in memory, caches there as configured, products are ours.

mod angles;
mod attention;
mod block;
mod experts;
mod feed_forward;
mod gated;
pub(crate) mod head;
pub(crate) mod kv;
mod linear;
pub(crate) mod norm;
mod pass;
pub(crate) mod rope;

use std::ops::Range;

use swarm_types::LayerRange;

use self::{
    block::Block,
    head::{Embedding, Head, embed},
    kv::{SlotCache, layer_bytes},
    linear::{Arithmetic, ThreadCounts},
    pass::{Pass, SlotRows},
    rope::Ropes,
};
use crate::{
    EngineConfig, EngineError,
    backend::{Backend, Cache, Hidden, Input, Rows},
    hyper::HyperParameters,
    kernels::{
        buffer,
        isa::{Isa, VARIABLE},
        page::Layout,
        threads::Threads,
    },
    part::Part,
    source::TensorSource,
};

/// A part of a model in memory.
#[derive(Debug)]
pub(crate) struct CpuBackend {
    hyper: HyperParameters,
    arithmetic: Arithmetic,
    /// Of caches.
    layout: Layout,
    ropes: Ropes,
    /// The number of the first of `blocks` in the model.
    first_layer: u32,
    embedding: Option<Embedding>,
    blocks: Vec<Block>,
    head: Option<Head>,
}

impl Backend for CpuBackend {
    fn load(
        source: &mut TensorSource,
        hyper: &HyperParameters,
        part: Part,
        config: &EngineConfig,
        on_progress: &mut dyn FnMut(u8),
    ) -> Result<Self, EngineError> {
        let arithmetic = arithmetic(config)?;
        let ropes = Ropes::load(source, hyper)?;
        let total = part.file_bytes(source, hyper).max(1);
        let mut progress =
            |source: &TensorSource| on_progress((source.bytes_read() * 100 / total).min(100) as u8);
        // Grows with what is there: the number of layers is only what the header says.
        let mut blocks = Vec::new();
        for layer in part.layers.iter() {
            progress(source);
            blocks.push(Block::load(source, layer, hyper, &arithmetic)?);
        }
        progress(source);
        let head = if part.samples { Some(Head::load(source, hyper, &arithmetic)?) } else { None };
        progress(source);
        // Tied to a head that is held here, it is that.
        let tied = hyper.tied && head.is_some();
        let embedding = match part.embeds && !tied {
            true => Some(Embedding::load(source, hyper, &arithmetic.threads)?),
            false => None,
        };
        progress(source);
        let layout = Layout { kv_heads: hyper.kv_heads, head: hyper.head, kv_type: config.kv_type };
        let (hyper, first_layer) = (hyper.clone(), part.layers.start());
        Ok(Self { hyper, arithmetic, layout, ropes, first_layer, embedding, blocks, head })
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

    fn new_cache(&self, layers: LayerRange, positions: u32) -> Cache {
        Cache::new(SlotCache::new(layers.count(), positions, self.layout))
    }

    fn forward(&self, layers: LayerRange, rows: &mut [Rows<'_>]) -> Result<Hidden, EngineError> {
        let places = |rows: &Rows<'_>| rows.position..rows.position + rows.count as u32;
        let positions: Vec<u32> = rows.iter().flat_map(places).collect();
        self.arithmetic.share_among(positions.len());
        let rotations = self.ropes.at(&positions);
        let pass = Pass {
            hyper: &self.hyper,
            arithmetic: &self.arithmetic,
            layout: self.layout,
            ropes: &self.ropes,
            rotations: &rotations,
        };
        let mut x = self.first_rows(rows);
        let mut slots: Vec<SlotRows<'_>> = rows.iter_mut().map(slot_rows).collect();
        for (number, block) in self.blocks_of(layers).iter().enumerate() {
            block.forward(&mut x, &mut slots, number, &pass);
        }
        buffer::let_go::<f32>();
        buffer::let_go::<i32>();
        Ok(Hidden::new(x))
    }

    fn finite(&self, hidden: &Hidden, runs: &[Range<usize>]) -> Result<Vec<bool>, EngineError> {
        let (x, width) = (hidden.get::<Vec<f32>>(), self.hyper.hidden);
        let finite = |rows: &Range<usize>| {
            x[rows.start * width..rows.end * width].iter().all(|number| number.is_finite())
        };
        Ok(runs.iter().map(finite).collect())
    }

    fn activations(&self, hidden: Hidden) -> Result<Vec<f32>, EngineError> {
        Ok(hidden.into())
    }

    fn logits(
        &self,
        hidden: &Hidden,
        rows: &[usize],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        let (x, width) = (hidden.get::<Vec<f32>>(), self.hyper.hidden);
        let head = self.head.as_ref().expect("only a part that ends with the head is asked for logits");
        let wanted: Vec<f32> =
            rows.iter().flat_map(|row| &x[row * width..(row + 1) * width]).copied().collect();
        head.logits(&wanted, &self.arithmetic, each);
        buffer::let_go::<f32>();
        Ok(())
    }

    fn normed(
        &self,
        hidden: &Hidden,
        rows: Range<usize>,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<(), EngineError> {
        let (x, width) = (hidden.get::<Vec<f32>>(), self.hyper.hidden);
        let head = self.head.as_ref().expect("only a part that ends with the head is asked for its norm");
        head.normed(&x[rows.start * width..rows.end * width], &self.arithmetic, each);
        Ok(())
    }

    fn truncate(&self, cache: &mut Cache, position: u32) {
        cache.get::<SlotCache>().truncate(position as usize);
    }
}

impl CpuBackend {
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
                    let own = self.embedding.as_ref().map(Embedding::weights);
                    let weights = own.or_else(|| self.head.as_ref().map(Head::packed));
                    let weights = weights.expect("tokens go only to a part that begins with the embedding");
                    let start = x.len();
                    embed(weights, tokens, self.arithmetic.isa, &mut x);
                    if self.hyper.embedding_scale != 1.0 {
                        x[start..].iter_mut().for_each(|x| *x *= self.hyper.embedding_scale);
                    }
                }
            }
        }
        debug_assert_eq!(x.len(), rows.iter().map(|rows| rows.count).sum::<usize>() * self.hyper.hidden);
        x
    }
}

fn slot_rows<'a>(rows: &'a mut Rows<'_>) -> SlotRows<'a> {
    let (count, position) = (rows.count, rows.position as usize);
    SlotRows { count, position, cache: rows.cache.get() }
}

fn arithmetic(config: &EngineConfig) -> Result<Arithmetic, EngineError> {
    let counts = ThreadCounts { few_rows: config.threads, many_rows: config.threads_batch };
    Ok(Arithmetic { precision: config.precision, threads: threads(config)?, counts, isa: chosen_isa()? })
}

/// The threads of our kernels.
pub(crate) fn threads(config: &EngineConfig) -> Result<Threads, EngineError> {
    let most = config.threads.max(config.threads_batch);
    Threads::new(most).map_err(|error| EngineError::invalid("threads", error.to_string()))
}

/// The instruction set that kernels are to run on.
pub(crate) fn chosen_isa() -> Result<Isa, EngineError> {
    Isa::chosen().map_err(|error| EngineError::invalid(VARIABLE, error))
}
