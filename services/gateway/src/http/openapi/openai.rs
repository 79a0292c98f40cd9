//! `POST /v1/completions` and the models.

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
        Described::get("/v1/models", TAG, "the models there are")
            .answers::<ModelList>()
            .fails::<Failure>(&SHOWN),
        Described::get("/v1/models/{id}", TAG, "one of them")
            .in_path("id", "one of its names")
            .answers::<Model>()
            .fails::<Failure>(&[SHOWN[0], SHOWN[1], ASKED[3]]),
    ]
}
