//! The tensors of a tiny model.

use super::{
    model::{Scaling, TinyModel},
    numbers::{Shape, has_shared_expert, is_cohere},
    random::Random,
};
use crate::write::Writer;

/// Writes all of them.
pub(super) fn write(file: &mut Writer, tiny: &TinyModel, shape: Shape) {
    let mut random = Random::new(tiny.seed);
    let Shape { hidden, vocabulary, .. } = shape;
    random.matrix(file, "token_embd.weight".into(), hidden, vocabulary);
    for layer in 0..tiny.layers {
        let mut layer = Layer { file, random: &mut random, tiny, shape, layer };
        layer.norms();
        layer.attention();
        match tiny.experts {
            0 => layer.feed_forward(),
            count => layer.experts(count.into()),
        }
    }
    random.norm(file, "output_norm.weight".into(), hidden);
    if !tiny.tied {
        random.matrix(file, "output.weight".into(), hidden, vocabulary);
    }
    let pairs = shape.turned / 2;
    let mut factors = |name: &str, of: fn(u64) -> f32| {
        let factors: Vec<f32> = (0..pairs).map(of).collect();
        file.tensor_f32(name, &[pairs], &factors);
    };
    if tiny.rope_factors {
        factors("rope_freqs.weight", |pair| 1.0 + pair as f32);
    }
    if tiny.scaling == Scaling::Long {
        factors("rope_factors_short.weight", |pair| 1.0 + 0.25 * pair as f32);
        factors("rope_factors_long.weight", |pair| 1.0 + 2.0 * pair as f32);
    }
}

/// A layer in the making.
struct Layer<'a> {
    file: &'a mut Writer,
    random: &'a mut Random,
    tiny: &'a TinyModel,
    shape: Shape,
    layer: u32,
}

impl Layer<'_> {
    fn name(&self, part: &str) -> String {
        format!("blk.{}.{part}.weight", self.layer)
    }

    fn matrix(&mut self, part: &str, columns: u64, rows: u64) {
        let name = self.name(part);
        self.random.matrix(self.file, name, columns, rows);
    }

    fn bias(&mut self, part: &str, size: u64) {
        self.random.vector(self.file, format!("blk.{}.{part}.bias", self.layer), size);
    }

    fn stack(&mut self, part: &str, columns: u64, rows: u64) {
        let (name, shape) = (self.name(part), [columns, rows, self.shape.experts]);
        let biased = self.is(&["gpt-oss"]);
        // So large that some gates are beyond their bound.
        let grow = if biased && part != "ffn_down_exps" { 5.0 } else { 1.0 };
        match self.tiny.four_bits {
            true => self.random.stack_of_four_bits(self.file, name, shape, grow),
            false => self.random.stack(self.file, name, shape, grow),
        }
        if biased {
            let name = format!("blk.{}.{part}.bias", self.layer);
            self.random.vectors(self.file, name, [rows, self.shape.experts]);
        }
    }

    fn norm(&mut self, part: &str, size: u64) {
        let name = self.name(part);
        self.random.norm(self.file, name, size);
    }

    fn is(&self, architectures: &[&str]) -> bool {
        architectures.contains(&self.tiny.architecture)
    }

    fn norms(&mut self) {
        let hidden = self.shape.hidden;
        if !self.is(&["olmo2"]) {
            self.norm("attn_norm", hidden);
        }
        if self.is(&["gpt-oss"]) {
            self.norm("post_attention_norm", hidden);
        } else if !self.is(&["olmo2"]) && !is_cohere(self.tiny) {
            self.norm("ffn_norm", hidden);
        }
        if self.is(&["gemma2", "gemma3", "olmo2", "glm4"]) {
            self.norm("post_attention_norm", hidden);
            self.norm("post_ffw_norm", hidden);
        }
    }

    fn attention(&mut self) {
        let Shape { hidden, head, queries, keys, .. } = self.shape;
        if self.is(&["phi3"]) {
            self.matrix("attn_qkv", hidden, queries + 2 * keys);
        } else {
            for (part, rows) in [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)] {
                self.matrix(part, hidden, rows);
                if self.is(&["qwen2", "qwen2moe", "glm4", "gpt-oss"]) {
                    self.bias(part, rows);
                }
            }
        }
        if self.is(&["qwen3", "qwen3moe", "gemma3"]) {
            self.norm("attn_q_norm", head);
            self.norm("attn_k_norm", head);
        }
        if self.is(&["olmo2"]) {
            self.norm("attn_q_norm", queries);
            self.norm("attn_k_norm", keys);
        }
        if self.tiny.query_norms {
            for (part, heads) in [("attn_q_norm", queries / head), ("attn_k_norm", keys / head)] {
                let name = self.name(part);
                self.random.norms(self.file, name, [head, heads]);
            }
        }
        self.matrix("attn_output", queries, hidden);
        if self.is(&["gpt-oss"]) {
            self.bias("attn_output", hidden);
            let name = self.name("attn_sinks");
            self.random.sinks(self.file, name, queries / head);
        }
    }

    fn feed_forward(&mut self) {
        let Shape { hidden, wide, .. } = self.shape;
        if self.is(&["phi3", "glm4"]) {
            self.matrix("ffn_up", hidden, 2 * wide);
        } else {
            self.matrix("ffn_gate", hidden, wide);
            self.matrix("ffn_up", hidden, wide);
        }
        self.matrix("ffn_down", wide, hidden);
    }

    fn experts(&mut self, count: u64) {
        let Shape { hidden, wide, .. } = self.shape;
        self.matrix("ffn_gate_inp", hidden, count);
        if self.is(&["gpt-oss"]) {
            self.bias("ffn_gate_inp", count);
        }
        self.stack("ffn_gate_exps", hidden, wide);
        self.stack("ffn_up_exps", hidden, wide);
        self.stack("ffn_down_exps", wide, hidden);
        if has_shared_expert(self.tiny) {
            self.matrix("ffn_gate_shexp", hidden, 2 * wide);
            self.matrix("ffn_up_shexp", hidden, 2 * wide);
            self.matrix("ffn_down_shexp", 2 * wide, hidden);
        }
        if self.is(&["qwen2moe"]) {
            let name = self.name("ffn_gate_inp_shexp");
            self.random.vector(self.file, name, hidden);
        }
    }
}
