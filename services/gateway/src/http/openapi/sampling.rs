//! How tokens are picked, as all dialects but Ollama's take it.

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// How tokens are picked.
#[derive(ToSchema)]
pub(super) struct Sampling {
    /// 0 is always the likeliest token.
    #[schema(minimum = 0, maximum = 2, default = 1)]
    temperature: Option<f32>,
    /// Only the likeliest that have this share together; 0 is the likeliest alone.
    #[schema(minimum = 0, maximum = 1, default = 1)]
    top_p: Option<f32>,
    /// Only so many of the likeliest; 0 and -1 are off.
    #[schema(minimum = -1, maximum = 4294967295_i64)]
    top_k: Option<i64>,
    /// Only what has this share of the likeliest's probability.
    #[schema(minimum = 0, maximum = 1)]
    min_p: Option<f32>,
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f32>,
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f32>,
    #[schema(minimum = 0.01, maximum = 100)]
    repetition_penalty: Option<f32>,
    /// The same seed gives the same text.
    seed: Option<i64>,
    /// By token id, -100 to 100.
    logit_bias: Option<BTreeMap<String, f32>>,
}
