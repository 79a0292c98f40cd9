//! One transformer layer of the llama family.

use super::{
    kv::LayerCache,
    linear::{Arithmetic, Linear},
    rope::{Rope, Rotation},
};
use crate::{
    EngineError,
    hyper::HyperParameters,
    kernels::attention::{Context, attend},
    source::{MatrixShape, TensorSource},
};

/// What a layer may consist of; anything else would change results and is refused.
const KNOWN: [&str; 16] = [
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
    "ffn_norm.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
    "ffn_down.bias",
];

/// A layer's weights.
#[derive(Debug)]
pub(crate) struct Block {
    attention_norm: Vec<f32>,
    query: Linear,
    key: Linear,
    value: Linear,
    query_norm: Option<Vec<f32>>,
    key_norm: Option<Vec<f32>>,
    output: Linear,
    feed_forward_norm: Vec<f32>,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// Rows of one session in a batch, and the cache that they go on.
pub(crate) struct Rows<'a> {
    pub count: usize,
    pub cache: &'a mut LayerCache,
    /// Most numbers that the cache may hold.
    pub limit: usize,
}

/// What all layers of a pass share.
pub(crate) struct Pass<'a> {
    pub hyper: &'a HyperParameters,
    pub arithmetic: &'a Arithmetic,
    pub rope: &'a Rope,
    pub rotation: &'a Rotation,
}

impl Block {
    pub(crate) fn load(
        source: &mut TensorSource,
        layer: u32,
        hyper: &HyperParameters,
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        let prefix = format!("blk.{layer}.");
        if let Some(part) = hyper.required.iter().find(|part| !source.has(&format!("{prefix}{part}"))) {
            return Err(source.failed(format!("tensor {prefix}{part} is missing")));
        }
        let names = source.header().tensors.keys();
        let mut unknown =
            names.filter_map(|name| name.strip_prefix(&prefix)).filter(|part| !KNOWN.contains(part));
        if let Some(part) = unknown.next() {
            return Err(source.failed(format!("tensor {prefix}{part} is not supported")));
        }
        let name = |part: &str| format!("{prefix}{part}");
        let (hidden, wide) = (hyper.hidden, hyper.feed_forward);
        let (queries, keys) = (hyper.heads * hyper.head, hyper.kv_width());
        let mut linear = |part: &str, columns, rows| {
            Linear::load(source, &name(part), MatrixShape { rows, columns }, arithmetic)
        };
        let query = linear("attn_q", hidden, queries)?;
        let key = linear("attn_k", hidden, keys)?;
        let value = linear("attn_v", hidden, keys)?;
        let output = linear("attn_output", queries, hidden)?;
        let gate = linear("ffn_gate", hidden, wide)?;
        let up = linear("ffn_up", hidden, wide)?;
        let down = linear("ffn_down", wide, hidden)?;
        Ok(Self {
            attention_norm: source.vector(&name("attn_norm.weight"), hidden)?,
            query_norm: source.opt_vector(&name("attn_q_norm.weight"), hyper.head)?,
            key_norm: source.opt_vector(&name("attn_k_norm.weight"), hyper.head)?,
            feed_forward_norm: source.vector(&name("ffn_norm.weight"), hidden)?,
            query,
            key,
            value,
            output,
            gate,
            up,
            down,
        })
    }

    pub(crate) fn byte_count(&self) -> usize {
        let linears = [&self.query, &self.key, &self.value, &self.output, &self.gate, &self.up, &self.down];
        let norms = [&self.attention_norm, &self.feed_forward_norm];
        linears.into_iter().map(Linear::byte_count).sum::<usize>()
            + norms.into_iter().map(|norm| size_of_val(norm.as_slice())).sum::<usize>()
    }

    /// Passes `x` `[rows][hidden]` through the layer, in place; `sessions` own its rows in order.
    pub(crate) fn forward(
        &self,
        x: &mut [f32],
        sessions: &mut [Rows<'_>],
        pass: &Pass<'_>,
    ) -> candle_core::Result<()> {
        let hyper = pass.hyper;
        let normed = rms_norm(x, &self.attention_norm, hyper.norm_epsilon);
        let mut query = self.query.forward(&normed, pass.arithmetic)?;
        let mut key = self.key.forward(&normed, pass.arithmetic)?;
        let value = self.value.forward(&normed, pass.arithmetic)?;
        if let Some(norm) = &self.query_norm {
            query = rms_norm(&query, norm, hyper.norm_epsilon);
        }
        if let Some(norm) = &self.key_norm {
            key = rms_norm(&key, norm, hyper.norm_epsilon);
        }
        pass.rope.rotate(&mut query, hyper.head, pass.rotation);
        pass.rope.rotate(&mut key, hyper.head, pass.rotation);
        let attended = attention(&query, &key, &value, sessions, pass);
        add(x, &self.output.forward(&attended, pass.arithmetic)?);

        let normed = rms_norm(x, &self.feed_forward_norm, hyper.norm_epsilon);
        let mut gate = self.gate.forward(&normed, pass.arithmetic)?;
        let up = self.up.forward(&normed, pass.arithmetic)?;
        gate.iter_mut().zip(&up).for_each(|(gate, up)| *gate = silu(*gate) * up);
        add(x, &self.down.forward(&gate, pass.arithmetic)?);
        Ok(())
    }
}

fn attention(
    query: &[f32],
    key: &[f32],
    value: &[f32],
    sessions: &mut [Rows<'_>],
    pass: &Pass<'_>,
) -> Vec<f32> {
    let (width, queries) = (pass.hyper.kv_width(), pass.hyper.heads * pass.hyper.head);
    // Each row with the cache it looks at and how many numbers of it.
    let mut contexts = Vec::new();
    let mut first = 0;
    for rows in sessions {
        let range = first * width..(first + rows.count) * width;
        let before = rows.cache.keys.len();
        rows.cache.extend(&key[range.clone()], &value[range], rows.limit);
        let cache: &LayerCache = rows.cache;
        contexts.extend((1..=rows.count).map(|row| (cache, before + row * width)));
        first += rows.count;
    }
    let mut out = vec![0.0; query.len()];
    let isa = pass.arithmetic.isa();
    pass.arithmetic.threads.for_chunks(&mut out, queries, |row, out| {
        let (cache, seen) = contexts[row];
        let context = Context {
            keys: &cache.keys[..seen],
            values: &cache.values[..seen],
            kv_heads: pass.hyper.kv_heads,
            head: pass.hyper.head,
        };
        attend(&query[row * queries..(row + 1) * queries], context, isa, out);
    });
    out
}

/// Root-mean-square normalisation (Zhang and Sennrich, 2019) of rows as long as `weights`. A row whose squares overflow
/// comes out as NaN: it would be all zeros otherwise, which nobody could tell from an answer.
pub(crate) fn rms_norm(x: &[f32], weights: &[f32], epsilon: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weights.len()) {
        let squares: f32 = row.iter().map(|v| v * v).sum();
        let root = (squares / row.len() as f32 + epsilon).sqrt();
        let scale = if root.is_finite() { 1.0 / root } else { f32::NAN };
        out.extend(row.iter().zip(weights).map(|(v, w)| v * scale * w));
    }
    out
}

fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
