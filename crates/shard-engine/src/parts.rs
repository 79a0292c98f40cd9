//! Which tensors a model has, by its architecture, and of which shapes: one that lacks a part, or has one that would
//! change results without being used, is refused before anything is loaded.

use gguf::{GgufError, Header};
use swarm_types::LayerRange;

use crate::{
    arch::{Experts, FeedForward, Norms, Projections, Shared},
    hyper::{ExpertSizes, FACTORS, HyperParameters},
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
/// part, or has one that is not its architecture's or has not its shape.
///
/// # Errors
/// Names the tensor.
pub(crate) fn check(header: &Header, layers: LayerRange, hyper: &HyperParameters) -> Result<(), GgufError> {
    check_vocabulary(header, hyper)?;
    let needed = needed(hyper);
    layers.iter().try_for_each(|layer| check_layer(header, layer, &needed, hyper))?;
    let known = |name: &str| ENDS.contains(&name) || FACTORS.contains(&name) || is_of_a_layer(name, hyper);
    if let Some(name) = header.tensors.keys().find(|name| !known(name)) {
        return Err(GgufError::Unsupported(format!("tensor {name}")));
    }
    for name in [ENDS[0], ENDS[1]] {
        if !header.tensors.contains_key(name) {
            return Err(GgufError::NoTensor(name.into()));
        }
    }
    let (matrix, pairs) = ([hyper.hidden, hyper.vocabulary], [hyper.rope_dimensions / 2]);
    let shapes = [&matrix[..], &[hyper.hidden], &matrix, &pairs];
    let factors = FACTORS.into_iter().map(|name| (name, &pairs[..]));
    ENDS.into_iter().zip(shapes).chain(factors).try_for_each(|(name, shape)| check_shape(header, name, shape))
}

/// Refuses a model that has tokens without a row in the embedding. Files have more rows where these are filled up.
fn check_vocabulary(header: &Header, hyper: &HyperParameters) -> Result<(), GgufError> {
    let (rows, name) = (hyper.vocabulary, ENDS[0]);
    match header.token_count().filter(|tokens| *tokens > rows as u64) {
        Some(tokens) => {
            Err(GgufError::Impossible(format!("tensor {name} has {rows} rows for {tokens} tokens")))
        }
        None => Ok(()),
    }
}

/// Whether a tensor is of a layer that the model has.
fn is_of_a_layer(name: &str, hyper: &HyperParameters) -> bool {
    let number = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
    number.is_some_and(|layer: u32| layer < hyper.layers)
}

/// Refuses a tensor of another shape, innermost dimension first. One that is not there has none.
fn check_shape(header: &Header, name: &str, shape: &[usize]) -> Result<(), GgufError> {
    let Some(tensor) = header.tensors.get(name) else { return Ok(()) };
    match tensor.has_shape(shape) {
        true => Ok(()),
        false => {
            let what = format!("tensor {name} of shape {:?}, where {shape:?} is expected,", tensor.shape);
            Err(GgufError::Unsupported(what))
        }
    }
}

fn check_layer(
    header: &Header,
    layer: u32,
    needed: &[&str],
    hyper: &HyperParameters,
) -> Result<(), GgufError> {
    let prefix = format!("blk.{layer}.");
    let missing = |part: &&&str| !header.tensors.contains_key(&format!("{prefix}{part}"));
    if let Some(part) = needed.iter().find(missing) {
        return Err(GgufError::NoTensor(format!("{prefix}{part}")));
    }
    let known = |part: &&str| needed.contains(part) || OPTIONAL.contains(part);
    let mut from = header.tensors.range(prefix.clone()..).map_while(|(name, _)| name.strip_prefix(&prefix));
    if let Some(part) = from.find(|part| !known(part)) {
        return Err(GgufError::Unsupported(format!("tensor {prefix}{part}")));
    }
    let parts = needed.iter().chain(&OPTIONAL);
    parts.copied().try_for_each(|part| check_shape(header, &format!("{prefix}{part}"), &shape(part, hyper)))
}

/// The shape of a part of a layer, innermost dimension first.
fn shape(part: &str, hyper: &HyperParameters) -> Vec<usize> {
    let &HyperParameters { hidden, heads, head, feed_forward: wide, .. } = hyper;
    let (queries, keys) = (heads * head, hyper.kv_width());
    let into_wide = if hyper.arch.feed_forward == FeedForward::Fused { 2 * wide } else { wide };
    let none = ExpertSizes { count: 0, used: 0, wide: 0, shared: 0, to_one: false, gated: false };
    let experts = hyper.experts.unwrap_or(none);
    match part {
        "attn_q.weight" => vec![hidden, queries],
        "attn_k.weight" | "attn_v.weight" => vec![hidden, keys],
        "attn_qkv.weight" => vec![hidden, queries + 2 * keys],
        "attn_output.weight" => vec![queries, hidden],
        "attn_q.bias" => vec![queries],
        "attn_k.bias" | "attn_v.bias" => vec![keys],
        "attn_q_norm.weight" => hyper.query_norms()[0].clone(),
        "attn_k_norm.weight" => hyper.query_norms()[1].clone(),
        "attn_sinks.weight" => vec![heads],
        "ffn_gate.weight" => vec![hidden, wide],
        "ffn_up.weight" => vec![hidden, into_wide],
        "ffn_down.weight" => vec![wide, hidden],
        "ffn_gate_inp.weight" => vec![hidden, experts.count],
        "ffn_gate_exps.weight" | "ffn_up_exps.weight" => vec![hidden, experts.wide, experts.count],
        "ffn_down_exps.weight" => vec![experts.wide, hidden, experts.count],
        "ffn_gate_inp.bias" => vec![experts.count],
        "ffn_gate_exps.bias" | "ffn_up_exps.bias" => vec![experts.wide, experts.count],
        "ffn_down_exps.bias" => vec![hidden, experts.count],
        "ffn_gate_shexp.weight" | "ffn_up_shexp.weight" => vec![hidden, experts.shared],
        "ffn_down_shexp.weight" => vec![experts.shared, hidden],
        // Norms, biases of what is added to activations, and the gate of the expert that all rows have.
        _ => vec![hidden],
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
