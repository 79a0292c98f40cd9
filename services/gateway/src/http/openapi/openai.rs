//! `POST /v1/completions`, `POST /v1/embeddings` and the models.

use serde_json::Value;
use utoipa::ToSchema;

use super::{
    describe::{ASKED, Described, SHOWN},
    failures::Failure,
    openai_chat::{CommonFields, CompletionUsage},
    sampling::Sampling,
};

/// A text to go on with.
#[derive(ToSchema)]
struct CompletionRequest {
    /// A name of the served model; absent, that model.
    model: Option<String>,
    prompt: Prompt,
    #[serde(flatten)]
    sampling: Sampling,
    #[serde(flatten)]
    common: CommonFields,
    #[schema(minimum = 0, maximum = 20)]
    logprobs: Option<u32>,
    #[schema(default = false)]
    echo: Option<bool>,
}

/// A text, token ids, or several of either.
#[derive(ToSchema)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// The answer.
#[derive(ToSchema)]
struct Completion {
    id: String,
    #[schema(pattern = "^text_completion$")]
    object: String,
    created: u64,
    model: String,
    system_fingerprint: String,
    choices: Vec<CompletionChoice>,
    usage: CompletionUsage,
}

/// One of its choices.
#[derive(ToSchema)]
struct CompletionChoice {
    index: u32,
    text: String,
    logprobs: Value,
    /// `stop` or `length`.
    finish_reason: String,
}

/// Texts to place among each other.
#[derive(ToSchema)]
struct EmbeddingsRequest {
    /// A name of the served model; absent, that model.
    model: Option<String>,
    input: Prompt,
    encoding_format: Option<EmbeddingEncoding>,
    /// Only as many as the model has.
    #[schema(minimum = 0)]
    dimensions: Option<u32>,
    user: Option<String>,
}

/// How numbers are told.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum EmbeddingEncoding {
    Float,
    /// Of `f32`, little endian.
    Base64,
}

/// A vector for each text, in order.
#[derive(ToSchema)]
struct Embeddings {
    #[schema(pattern = "^list$")]
    object: String,
    data: Vec<Embedding>,
    model: String,
    usage: EmbeddingsUsage,
}

/// The vector of one text.
#[derive(ToSchema)]
struct Embedding {
    #[schema(pattern = "^embedding$")]
    object: String,
    index: u32,
    embedding: EmbeddingVector,
}

/// Of length 1.
#[derive(ToSchema)]
#[serde(untagged)]
enum EmbeddingVector {
    Numbers(Vec<f32>),
    Base64(String),
}

/// Tokens of all texts.
#[derive(ToSchema)]
struct EmbeddingsUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// The models there are: one, where the key is for it.
#[derive(ToSchema)]
struct ModelList {
    #[schema(pattern = "^list$")]
    object: String,
    data: Vec<Model>,
}

/// A model.
#[derive(ToSchema)]
struct Model {
    id: String,
    #[schema(pattern = "^model$")]
    object: String,
    created: u64,
    owned_by: String,
    /// Tokens that prompt and answer may have together.
    context_length: u32,
    /// Which file.
    digest: String,
}

pub(super) fn operations() -> Vec<Described> {
    const TAG: &str = "openai";
    let streamed = "with stream: true: chunks as data, and [DONE] at the end";
    vec![
        Described::post::<CompletionRequest>("/v1/completions", TAG, "goes on with a text")
            .answers::<Completion>()
            .tells("text/event-stream", streamed)
            .fails::<Failure>(&ASKED),
        Described::post::<EmbeddingsRequest>("/v1/embeddings", TAG, "places texts among each other")
            .answers::<Embeddings>()
            .fails::<Failure>(&ASKED),
        Described::get("/v1/models", TAG, "the models there are")
            .answers::<ModelList>()
            .fails::<Failure>(&SHOWN),
        Described::get("/v1/models/{id}", TAG, "one of them")
            .in_path("id", "one of its names")
            .answers::<Model>()
            .fails::<Failure>(&[SHOWN[0], SHOWN[1], ASKED[3]]),
    ]
}
