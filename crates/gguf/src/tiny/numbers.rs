//! What the header of a tiny model says of its sizes.

use super::model::{Scaling, TinyModel};
use crate::{Value, write::Writer};

/// Positions that a model with scaled angles was first trained for.
const ORIGINAL: u32 = 32;

/// Sizes that follow from what was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub vocabulary: u64,
    pub hidden: u64,
    pub head: u64,
    /// Width of all queries of a row, and of all keys.
    pub queries: u64,
    pub keys: u64,
    pub wide: u64,
    pub experts: u64,
    /// Of each head, how many numbers are turned.
    pub turned: u64,
}

impl Shape {
    pub(super) fn of(tiny: &TinyModel, vocabulary: usize) -> Self {
        let head = u64::from(if tiny.head == 0 { tiny.hidden / tiny.heads } else { tiny.head });
        let partly = matches!(tiny.architecture, "glm4") || tiny.scaling == Scaling::Long;
        Self {
            vocabulary: vocabulary as u64,
            hidden: u64::from(tiny.hidden),
            head,
            queries: head * u64::from(tiny.heads),
            keys: head * u64::from(tiny.kv_heads),
            wide: u64::from(tiny.feed_forward),
            experts: u64::from(tiny.experts),
            turned: if partly { head / 2 } else { head },
        }
    }
}

/// Writes all that is said of sizes.
pub(super) fn write(file: &mut Writer, tiny: &TinyModel, shape: Shape) {
    let arch = tiny.architecture;
    file.metadata("general.architecture", Value::String(arch.into()));
    file.metadata("general.name", Value::String(format!("tiny-{arch}")));
    file.metadata("general.description", Value::String(format!("random weights of seed {}", tiny.seed)));
    let numbers = [
        ("block_count", tiny.layers),
        ("context_length", tiny.context),
        ("embedding_length", tiny.hidden),
        ("feed_forward_length", tiny.feed_forward),
        ("attention.head_count", tiny.heads),
        ("attention.head_count_kv", tiny.kv_heads),
        ("attention.key_length", shape.head as u32),
        ("attention.value_length", shape.head as u32),
        ("rope.dimension_count", shape.turned as u32),
        ("vocab_size", shape.vocabulary as u32),
    ];
    for (key, number) in numbers {
        file.metadata(format!("{arch}.{key}"), Value::U32(number));
    }
    let norm = if is_cohere(tiny) { "layer_norm_epsilon" } else { "layer_norm_rms_epsilon" };
    file.metadata(format!("{arch}.attention.{norm}"), Value::F32(1e-5));
    file.metadata(format!("{arch}.rope.freq_base"), Value::F32(10_000.0));
    for (key, value) in [of_parts(tiny), of_scaling(tiny)].concat() {
        file.metadata(format!("{arch}.{key}"), value);
    }
}

/// What only some models have.
fn of_parts(tiny: &TinyModel) -> Vec<(&'static str, Value)> {
    let mut more = vec![];
    let number = Value::F32;
    if tiny.experts > 0 {
        more.push(("expert_count", Value::U32(tiny.experts)));
        more.push(("expert_used_count", Value::U32(2)));
    }
    if (tiny.architecture.starts_with("qwen") || tiny.architecture == "gpt-oss") && tiny.experts > 0 {
        more.push(("expert_feed_forward_length", Value::U32(tiny.feed_forward)));
    }
    if has_shared_expert(tiny) {
        more.push(("expert_shared_feed_forward_length", Value::U32(2 * tiny.feed_forward)));
    }
    if tiny.window > 0 {
        more.push(("attention.sliding_window", Value::U32(tiny.window)));
    }
    match tiny.architecture {
        // So small that they show.
        "gemma2" => {
            more.extend([("attn_logit_softcapping", number(1.5)), ("final_logit_softcapping", number(3.0))])
        }
        "gemma3" => more.push(("rope.freq_base_swa", number(1_000.0))),
        "granite" | "granitemoe" => more.extend([
            ("attention.scale", number(0.125)),
            ("embedding_scale", number(3.0)),
            ("residual_scale", number(0.5)),
            ("logit_scale", number(2.0)),
        ]),
        "command-r" | "cohere2" => more.push(("logit_scale", number(0.25))),
        _ => {}
    }
    more
}

fn of_scaling(tiny: &TinyModel) -> Vec<(&'static str, Value)> {
    let factor = ("rope.scaling.factor", Value::F32(4.0));
    let kind = |name: &str| ("rope.scaling.type", Value::String(name.into()));
    let original = ("rope.scaling.original_context_length", Value::U32(ORIGINAL));
    match tiny.scaling {
        Scaling::None => vec![],
        Scaling::Linear => vec![kind("linear"), factor],
        Scaling::Yarn => vec![kind("yarn"), factor, original],
        Scaling::Long if tiny.context > 128 => {
            // As those who convert models write it: by how many times the context has grown.
            let grown = f64::from(tiny.context) / f64::from(ORIGINAL);
            let factor = (1.0 + grown.ln() / f64::from(ORIGINAL).ln()).sqrt();
            vec![original, ("rope.scaling.attn_factor", Value::F32(factor as f32))]
        }
        Scaling::Long => vec![("rope.scaling.original_context_length", Value::U32(tiny.context))],
    }
}

/// Command R and those after it.
pub(super) fn is_cohere(tiny: &TinyModel) -> bool {
    matches!(tiny.architecture, "command-r" | "cohere2")
}

/// All rows have one expert more.
pub(super) fn has_shared_expert(tiny: &TinyModel) -> bool {
    tiny.experts > 0 && matches!(tiny.architecture, "qwen2moe" | "granitemoe")
}
