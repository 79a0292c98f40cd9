//! The first half of a layer: what a row takes from the positions before it.
//!
//! Softmax goes over a row's positions block by block, as Milakov and Gimelshein describe it ("Online normalizer
//! calculation for softmax", 2018): every product has one shape, and a block that a row does not see leaves what it has
//! as it is, bit for bit. So neither the company of a row nor how rows came in chunks changes its result.

use candle_core::{DType, Result, Tensor};

use super::{
    cache::{Block, LayerCache},
    linear::Linear,
    norm::{Norm, Norms},
    pass::{Pass, SlotRows},
    place::Loading,
    sight::Tile,
};
use crate::{EngineError, arch::Turn, hyper::HyperParameters, matrices, source::TensorSource};

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
    /// Rows look at the model's window and no further.
    windowed: bool,
}

impl Attention {
    pub(crate) fn load(
        source: &mut TensorSource,
        layer: u32,
        hyper: &HyperParameters,
        loading: &Loading,
    ) -> std::result::Result<Self, EngineError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let matrices::Attention { query, key, value, output } = matrices::attention(layer, hyper);
        let mut linear = |matrix| Linear::load(source, matrix, loading);
        let (query, key, value) = (linear(&query)?, linear(&key)?, linear(&value)?);
        let output = linear(&output)?;
        let [of_queries, of_keys] = hyper.query_norms();
        let (queries, keys) = (name("attn_q_norm.weight"), name("attn_k_norm.weight"));
        let norms = ["attn_norm.weight", "post_attention_norm.weight"].map(name);
        Ok(Self {
            norms: Norms::load(source, norms.each_ref().map(String::as_str), hyper, &loading.place)?,
            query,
            key,
            value,
            query_norm: Norm::opt_load(source, &queries, of_queries[0], hyper, &loading.place)?,
            key_norm: Norm::opt_load(source, &keys, of_keys[0], hyper, &loading.place)?,
            output,
            turn: (hyper.arch.turn)(layer),
            windowed: hyper.window_of(layer).is_some(),
        })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        let linears = [&self.query, &self.key, &self.value, &self.output];
        linears.into_iter().map(Linear::byte_count).sum::<usize>() + self.norms.byte_count()
    }

    /// What it adds to `x` `[rows, hidden]`; `slots` own the rows in order, and this is their layer of that number.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        slots: &mut [SlotRows<'_>],
        number: usize,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let normed = self.norms.before(x)?;
        let scale = f64::from(pass.hyper.score_scale);
        let query = (self.heads(&self.query, self.query_norm.as_ref(), &normed, pass)? * scale)?;
        let key = self.heads(&self.key, self.key_norm.as_ref(), &normed, pass)?;
        let value = heads(&self.value.forward(&normed)?, pass.hyper.head)?;
        let mut attended = Vec::with_capacity(slots.len());
        for slot in slots {
            let own = |of: &Tensor| of.narrow(1, slot.first, slot.count);
            let cache = &mut slot.cache.layers[number];
            debug_assert_eq!(cache.len(), slot.position);
            cache.extend(&own(&key)?, &own(&value)?, pass.layout)?;
            attended.extend(self.attend(&own(&query)?, &slot.tiles, cache, pass)?);
        }
        let attended = Tensor::cat(&attended, 1)?.transpose(0, 1)?.contiguous()?;
        self.norms.behind(self.output.forward(&attended.flatten_from(1)?)?)
    }

    /// Queries or keys of all rows, `[heads, rows, head]`, normed and turned.
    fn heads(&self, of: &Linear, norm: Option<&Norm>, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let mut y = of.forward(x)?;
        if let Some(norm) = norm {
            y = norm.apply(&y)?;
        }
        let y = heads(&y, pass.hyper.head)?;
        match pass.rotations.of(self.turn) {
            Some(rotation) => rotation.turn(&y),
            None => Ok(y),
        }
    }

    /// Weighs what each row of a slot looks at: `[heads, rows, head]` of each tile. `query` is of all its rows.
    fn attend(
        &self,
        query: &Tensor,
        tiles: &[Tile],
        cache: &LayerCache,
        pass: &Pass<'_>,
    ) -> Result<Vec<Tensor>> {
        let queries = tiles.iter().map(|tile| gathered(query, tile, pass)).collect::<Result<Vec<_>>>()?;
        let mut running: Vec<Option<Running>> = tiles.iter().map(|_| None).collect();
        for (number, block) in cache.blocks().iter().enumerate() {
            let mut numbers = None;
            for ((tile, query), running) in tiles.iter().zip(&queries).zip(&mut running) {
                let Some(mask) = tile.sight(self.windowed).of(number) else { continue };
                let [keys, values] = match &mut numbers {
                    Some(numbers) => numbers,
                    None => numbers.insert(in_single(block)?),
                };
                let scores = scores(query, keys, mask, pass)?;
                *running = Some(Running::with(running.take(), scores, values)?);
            }
        }
        let result = |(tile, running): (&Tile, Option<Running>)| {
            let running = running.expect("a row sees at least itself");
            let shape = (pass.hyper.heads, pass.place.tile, pass.hyper.head);
            running.result()?.reshape(shape)?.narrow(1, 0, tile.count)
        };
        tiles.iter().zip(running).map(result).collect()
    }
}

/// `[rows, heads · head]` as `[heads, rows, head]`.
fn heads(y: &Tensor, head: usize) -> Result<Tensor> {
    let (rows, width) = y.dims2()?;
    y.reshape((rows, width / head, head))?.transpose(0, 1)?.contiguous()
}

/// A tile's queries, those of heads with the same keys below each other: `[kv heads, group · tile, head]`.
fn gathered(query: &Tensor, tile: &Tile, pass: &Pass<'_>) -> Result<Tensor> {
    let full = pass.place.tile;
    let rows = query.narrow(1, tile.first, tile.count)?.pad_with_zeros(1, 0, full - tile.count)?;
    let group = pass.hyper.heads / pass.hyper.kv_heads;
    rows.contiguous()?.reshape((pass.hyper.kv_heads, group * full, pass.hyper.head))
}

/// Keys and values as f32.
fn in_single(block: &Block) -> Result<[Tensor; 2]> {
    Ok([block.keys.to_dtype(DType::F32)?, block.values.to_dtype(DType::F32)?])
}

/// Of queries and a block's keys: `[kv heads, group · tile, positions]`.
fn scores(query: &Tensor, keys: &Tensor, mask: Option<&Tensor>, pass: &Pass<'_>) -> Result<Tensor> {
    let mut scores = query.matmul(&keys.t()?)?;
    if let Some(cap) = pass.hyper.score_cap {
        scores = softcap(&scores, cap)?;
    }
    let Some(mask) = mask else { return Ok(scores) };
    let (kv_heads, rows, positions) = scores.dims3()?;
    let by_row = (kv_heads, rows / pass.place.tile, pass.place.tile, positions);
    scores.reshape(by_row)?.broadcast_add(mask)?.reshape((kv_heads, rows, positions))
}

/// `x` bent to stay within `cap`.
pub(crate) fn softcap(x: &Tensor, cap: f32) -> Result<Tensor> {
    let cap = f64::from(cap);
    (x / cap)?.tanh()? * cap
}

/// What a tile's rows have of the blocks that they have seen.
struct Running {
    /// `[kv heads, group · tile, 1]`, as the sum of exponentials of what scores have above it.
    largest: Tensor,
    sum: Tensor,
    /// Values weighed by these: `[kv heads, group · tile, head]`.
    values: Tensor,
}

impl Running {
    /// With one more block.
    fn with(before: Option<Self>, scores: Tensor, values: &Tensor) -> Result<Self> {
        let mut largest = scores.max_keepdim(2)?;
        if let Some(before) = &before {
            largest = before.largest.maximum(&largest)?;
        }
        let shares = scores.broadcast_sub(&largest)?.exp()?;
        let (mut sum, mut values) = (shares.sum_keepdim(2)?, shares.matmul(values)?);
        if let Some(before) = before {
            let kept = (before.largest - &largest)?.exp()?;
            sum = ((before.sum * &kept)? + sum)?;
            values = (before.values.broadcast_mul(&kept)? + values)?;
        }
        Ok(Self { largest, sum, values })
    }

    fn result(self) -> Result<Tensor> {
        self.values.broadcast_div(&self.sum)
    }
}
