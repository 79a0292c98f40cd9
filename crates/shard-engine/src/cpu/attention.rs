//! The first half of a layer: what a row takes from the positions before it.

use super::{
    linear::{Arithmetic, Linear, forward_all},
    norm::{Norm, Norms},
    pass::{Pass, SlotRows},
};
use crate::{
    EngineError,
    arch::Turn,
    hyper::HyperParameters,
    kernels::{
        attention::{ALL, Rows, Shape, attend},
        buffer::Buffer,
        isa::Isa,
    },
    matrices,
    source::TensorSource,
};

/// Its weights.
#[derive(Debug)]
pub(crate) struct Attention {
    norms: Norms,
    query: Linear,
    key: Linear,
    value: Linear,
    query_norm: Option<Norm>,
    key_norm: Option<Norm>,
    output: Linear,
    turn: Turn,
    /// `[heads]`: scores that stand for no position.
    sinks: Option<Vec<f32>>,
    /// Positions that a row looks at.
    window: usize,
}

impl Attention {
    pub(crate) fn load(
        source: &mut TensorSource,
        layer: u32,
        hyper: &HyperParameters,
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let matrices::Attention { query, key, value, output } = matrices::attention(layer, hyper);
        let mut linear = |matrix| Linear::load(source, matrix, arithmetic);
        let (query, key, value) = (linear(&query)?, linear(&key)?, linear(&value)?);
        let output = linear(&output)?;
        let [of_queries, of_keys] = hyper.query_norms();
        let norms = ["attn_norm.weight", "post_attention_norm.weight"].map(name);
        Ok(Self {
            norms: Norms::load(source, norms.each_ref().map(String::as_str), hyper)?,
            query,
            key,
            value,
            query_norm: Norm::opt_load(source, &name("attn_q_norm.weight"), &of_queries, hyper)?,
            key_norm: Norm::opt_load(source, &name("attn_k_norm.weight"), &of_keys, hyper)?,
            output,
            turn: (hyper.arch.turn)(layer),
            sinks: match hyper.arch.sinks {
                true => Some(source.vector(&name("attn_sinks.weight"), hyper.heads)?),
                false => None,
            },
            window: hyper.window_of(layer).unwrap_or(ALL),
        })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        let linears = [&self.query, &self.key, &self.value, &self.output];
        let sinks = self.sinks.as_deref().map_or(0, size_of_val);
        linears.into_iter().map(Linear::byte_count).sum::<usize>() + self.norms.byte_count() + sinks
    }

    /// What it adds to `x` `[rows][hidden]`; `slots` own the rows in order, and this is their layer of that number.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        slots: &mut [SlotRows<'_>],
        number: usize,
        pass: &Pass<'_>,
    ) -> Buffer<f32> {
        let Arithmetic { isa, threads, .. } = pass.arithmetic;
        let normed = self.norms.before(x, pass.arithmetic);
        let [mut query, mut key, value] =
            forward_all([&self.query, &self.key, &self.value], &normed, pass.arithmetic);
        if let Some(norm) = &self.query_norm {
            query = norm.apply(&query, *isa, threads);
        }
        if let Some(norm) = &self.key_norm {
            key = norm.apply(&key, *isa, threads);
        }
        if let Some(rotation) = pass.rotations.of(self.turn) {
            pass.ropes.rotate(&mut query, pass.hyper.head, rotation, *isa, threads);
            pass.ropes.rotate(&mut key, pass.hyper.head, rotation, *isa, threads);
        }
        let width = pass.hyper.kv_width();
        extend(slots, number, [&key, &value], width, *isa);
        let attended = self.attend(&query, slots, number, pass);
        let made = self.output.forward(&attended, pass.arithmetic);
        self.norms.behind(made, pass.arithmetic)
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
        let shape = Shape {
            layout: pass.layout,
            heads: hyper.heads,
            scale: hyper.score_scale,
            window: self.window,
            cap: hyper.score_cap,
            sinks: self.sinks.as_deref(),
        };
        attend(slots.len(), rows, shape, *isa, threads)
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
