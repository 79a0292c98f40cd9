//! Tiny models of every kind that the engine runs.

use super::model::{Scaling, TinyModel};

/// By the name of a family, or of what is special about one: small models that have all that is special.
#[must_use]
pub fn cases() -> Vec<(&'static str, TinyModel)> {
    let of = |architecture, seed| TinyModel { architecture, seed, layers: 3, ..TinyModel::default() };
    let experts = TinyModel { experts: 6, feed_forward: 48, tied: false, ..TinyModel::default() };
    let mixture = |architecture, seed| TinyModel { architecture, seed, layers: 3, ..experts.clone() };
    let gpt_oss = |seed, layers| TinyModel {
        layers,
        head: 32,
        feed_forward: 64,
        window: 24,
        scaling: Scaling::Yarn,
        ..mixture("gpt-oss", seed)
    };
    vec![
        ("llama", TinyModel { tied: false, ..of("llama", 11) }),
        ("llama3", TinyModel { rope_factors: true, ..of("llama", 12) }),
        ("nemo", TinyModel { head: 32, tied: false, ..of("llama", 13) }),
        ("linear", TinyModel { scaling: Scaling::Linear, ..of("llama", 14) }),
        ("mixtral", mixture("llama", 15)),
        ("qwen2", of("qwen2", 16)),
        ("yarn", TinyModel { scaling: Scaling::Yarn, ..of("qwen2", 17) }),
        ("qwen2moe", mixture("qwen2moe", 18)),
        ("qwen3", TinyModel { head: 32, tied: false, ..of("qwen3", 19) }),
        ("qwen3moe", TinyModel { head: 32, ..mixture("qwen3moe", 20) }),
        ("gemma", TinyModel { head: 32, kv_heads: 1, tied: false, ..of("gemma", 21) }),
        ("gemma2", TinyModel { head: 32, window: 24, tied: false, ..of("gemma2", 42) }),
        (
            "gemma3",
            TinyModel {
                layers: 7,
                head: 32,
                window: 24,
                scaling: Scaling::Linear,
                tied: false,
                ..of("gemma3", 23)
            },
        ),
        ("phi3", TinyModel { tied: false, window: 70, ..of("phi3", 24) }),
        ("phi3-short", TinyModel { scaling: Scaling::Long, context: 128, tied: false, ..of("phi3", 25) }),
        ("phi3-long", TinyModel { scaling: Scaling::Long, ..of("phi3", 26) }),
        ("smollm3", TinyModel { layers: 5, ..of("smollm3", 27) }),
        ("olmo2", TinyModel { tied: false, ..of("olmo2", 28) }),
        ("granite", TinyModel { tied: false, ..of("granite", 29) }),
        ("granitemoe", mixture("granitemoe", 30)),
        ("glm4", TinyModel { tied: false, ..of("glm4", 31) }),
        ("gpt-oss", gpt_oss(32, 3)),
        ("gpt-oss-mxfp4", TinyModel { four_bits: true, ..gpt_oss(33, 2) }),
        ("command-r", of("command-r", 34)),
        ("command-r-plus", TinyModel { query_norms: true, ..of("command-r", 35) }),
        ("cohere2", TinyModel { layers: 5, window: 24, ..of("cohere2", 41) }),
    ]
}
