//! Which tensors a model has, by its architecture: one that lacks a part, or has one that would change results without
//! being used, is refused before anything is loaded.

use gguf::{GgufError, Header};
use swarm_types::LayerRange;

use crate::{
    arch::{Experts, FeedForward, Norms, Projections, Shared},
    hyper::{FACTORS, HyperParameters},
};

/// What all layers may have beside what their architecture names.
const OPTIONAL: [&str; 7] = [
    "attn_q.bias",
    "attn_k.bias",
    "attn_v.bias",
    "attn_q_norm.weight",
    "attn_k_norm.weight",
    "attn_output.bias",
    "ffn_down.bias",
];

/// What a model has outside of its layers; the first is in all.
const ENDS: [&str; 4] = ["token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight"];

/// Refuses a model with tensors outside of layers that nothing here uses, or with one of these layers that lacks a
/// part, or has one that is not its architecture's.
///
/// # Errors
/// Names the tensor.
pub(crate) fn check(header: &Header, layers: LayerRange, hyper: &HyperParameters) -> Result<(), GgufError> {
    let needed = needed(hyper);
    layers.iter().try_for_each(|layer| check_layer(header, layer, &needed))?;
    let known = |name: &str| ENDS.contains(&name) || FACTORS.contains(&name) || name.starts_with("blk.");
    match header.tensors.keys().find(|name| !known(name)) {
        Some(name) => Err(GgufError::Unsupported(format!("tensor {name}"))),
        None => Ok(()),
    }
}

fn check_layer(header: &Header, layer: u32, needed: &[&str]) -> Result<(), GgufError> {
    let prefix = format!("blk.{layer}.");
    let missing = |part: &&&str| !header.tensors.contains_key(&format!("{prefix}{part}"));
    if let Some(part) = needed.iter().find(missing) {
        return Err(GgufError::NoTensor(format!("{prefix}{part}")));
    }
    let known = |part: &&str| needed.contains(part) || OPTIONAL.contains(part);
    let mut from = header.tensors.range(prefix.clone()..).map_while(|(name, _)| name.strip_prefix(&prefix));
    match from.find(|part| !known(part)) {
        Some(part) => Err(GgufError::Unsupported(format!("tensor {prefix}{part}"))),
        None => Ok(()),
    }
}

/// What each layer must have.
fn needed(hyper: &HyperParameters) -> Vec<&'static str> {
    let arch = hyper.arch;
    let mut parts = arch.required.to_vec();
    parts.push("attn_output.weight");
    if arch.sinks {
        parts.push("attn_sinks.weight");
    }
    match arch.projections {
        Projections::Separate => parts.extend(["attn_q.weight", "attn_k.weight", "attn_v.weight"]),
        Projections::Fused => parts.push("attn_qkv.weight"),
    }
    if arch.norms != Norms::Behind {
        parts.extend(["attn_norm.weight", arch.second_norm]);
    }
    if arch.norms != Norms::Before {
        parts.extend(["post_attention_norm.weight", "post_ffw_norm.weight"]);
    }
    let Some(experts) = hyper.experts else {
        parts.extend(["ffn_up.weight", "ffn_down.weight"]);
        if arch.feed_forward == FeedForward::Dense {
            parts.push("ffn_gate.weight");
        }
        return parts;
    };
    let stacks = ["ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"];
    parts.push("ffn_gate_inp.weight");
    parts.extend(stacks);
    if experts.shared > 0 {
        parts.extend(["ffn_gate_shexp.weight", "ffn_up_shexp.weight", "ffn_down_shexp.weight"]);
    }
    if matches!(arch.experts, Experts::Softmax { shared: Shared::Gated, .. }) {
        parts.push("ffn_gate_inp_shexp.weight");
    }
    parts
}
