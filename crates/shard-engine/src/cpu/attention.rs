//! The first half of a layer: what a row takes from the positions before it.

use super::{
    linear::{Arithmetic, Linear, forward_all},
    norm::Norm,
    pass::{Pass, SlotRows},
};
use crate::{
    EngineError,
    arch::{Projections, ScoreScale, Window},
    hyper::HyperParameters,
    kernels::{
        attention::{Rows, Shape, attend},
        buffer::Buffer,
        isa::Isa,
    },
    source::{MatrixShape, TensorSource},
};

/// What it may consist of.
pub(crate) const PARTS: [&str; 11] = [
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_q.bias",
    "attn_k.bias",
    "attn_v.bias",
    "attn_q_norm.weight",
    "attn_k_norm.weight",
    "attn_output.weight",
    "attn_output.bias",
];

/// Its weights.
#[derive(Debug)]
pub(crate) struct Attention {
    norm: Norm,
    query: Linear,
    key: Linear,
    value: Linear,
    query_norm: Option<Norm>,
    key_norm: Option<Norm>,
    output: Linear,
    window: Window,
    score_scale: f32,
}

impl Attention {
    pub(crate) fn load(
        source: &mut TensorSource,
        layer: u32,
        hyper: &HyperParameters,
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let hidden = hyper.hidden;
        let (queries, keys) = (hyper.heads * hyper.head, hyper.kv_width());
        let mut linear = |part: &str, columns, rows| {
            Linear::load(source, &name(part), MatrixShape { rows, columns }, arithmetic)
        };
        let (query, key, value) = match hyper.arch.projections {
            Projections::Separate => (
                linear("attn_q", hidden, queries)?,
                linear("attn_k", hidden, keys)?,
                linear("attn_v", hidden, keys)?,
            ),
        };
        let output = linear("attn_output", queries, hidden)?;
        Ok(Self {
            norm: Norm::load(source, &name("attn_norm.weight"), hidden, hyper)?,
            query,
            key,
            value,
            query_norm: Norm::opt_load(source, &name("attn_q_norm.weight"), hyper.head, hyper)?,
            key_norm: Norm::opt_load(source, &name("attn_k_norm.weight"), hyper.head, hyper)?,
            output,
            window: (hyper.arch.window)(layer),
            score_scale: match hyper.arch.score_scale {
                ScoreScale::RootOfHead => 1.0 / (hyper.head as f32).sqrt(),
            },
        })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        let linears = [&self.query, &self.key, &self.value, &self.output];
        linears.into_iter().map(Linear::byte_count).sum::<usize>() + self.norm.byte_count()
    }

    /// What it adds to `x` `[rows][hidden]`; `slots` own the rows in order, and this is their layer of that number.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        slots: &mut [SlotRows<'_>],
        number: usize,
        pass: &Pass<'_>,
    ) -> candle_core::Result<Buffer<f32>> {
        let Arithmetic { isa, threads, .. } = pass.arithmetic;
        let normed = self.norm.apply(x, *isa, threads);
        let [mut query, mut key, value] =
            forward_all([&self.query, &self.key, &self.value], &normed, pass.arithmetic)?;
        if let Some(norm) = &self.query_norm {
            query = norm.apply(&query, *isa, threads);
        }
        if let Some(norm) = &self.key_norm {
            key = norm.apply(&key, *isa, threads);
        }
        pass.rope.rotate(&mut query, pass.hyper.head, pass.rotation, *isa, threads);
        pass.rope.rotate(&mut key, pass.hyper.head, pass.rotation, *isa, threads);
        let width = pass.hyper.kv_width();
        extend(slots, number, [&key, &value], width, *isa);
        let attended = self.attend(&query, slots, number, pass);
        self.output.forward(&attended, pass.arithmetic)
    }

    /// Weighs what each row looks at: `[rows][heads][head]`.
    fn attend(&self, query: &[f32], slots: &[SlotRows<'_>], number: usize, pass: &Pass<'_>) -> Buffer<f32> {
        let hyper = pass.hyper;
        let queries = hyper.heads * hyper.head;
        let Arithmetic { isa, threads, .. } = pass.arithmetic;
        let rows = |slot: usize| {
            let first: usize = slots[..slot].iter().map(|slot| slot.count).sum();
            let SlotRows { count, position, cache } = &slots[slot];
            let queries = &query[first * queries..(first + count) * queries];
            Rows { pages: cache.layers[number].pages(), first: *position, queries }
        };
        let shape = Shape { layout: pass.layout, heads: hyper.heads, scale: self.score_scale };
        match self.window {
            Window::Whole => attend(slots.len(), rows, shape, *isa, threads),
        }
    }
}

/// Adds the rows' keys and values, `[rows][width]` each, to the caches of a layer.
fn extend(
    slots: &mut [SlotRows<'_>],
    number: usize,
    [mut keys, mut values]: [&[f32]; 2],
    width: usize,
    isa: Isa,
) {
    for SlotRows { count, position, cache } in slots {
        let layer = &mut cache.layers[number];
        debug_assert_eq!(layer.len(), *position);
        let (own_keys, own_values);
        (own_keys, keys) = keys.split_at(*count * width);
        (own_values, values) = values.split_at(*count * width);
        layer.extend(own_keys, own_values, isa);
    }
}
