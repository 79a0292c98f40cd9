//! Ollama's paths.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

use super::{
    describe::{ASKED, Described, SHOWN},
    failures::OllamaFailure,
    openai_chat::FunctionTool,
};

/// A conversation to go on with; without messages, only the model is to be there.
#[derive(ToSchema)]
struct OllamaChatRequest {
    messages: Option<Vec<OllamaMessage>>,
    tools: Option<Vec<FunctionTool>>,
    #[serde(flatten)]
    common: OllamaCommon,
}

/// A prompt to answer; without one, only the model is to be there.
#[derive(ToSchema)]
struct OllamaGenerateRequest {
    prompt: Option<String>,
    /// What the system says first.
    system: Option<String>,
    /// The prompt goes on as it is, without the template.
    raw: Option<bool>,
    #[serde(flatten)]
    common: OllamaCommon,
}

/// What both have.
#[derive(ToSchema)]
struct OllamaCommon {
    /// A name of the served model, also with `:latest`; absent, that model.
    model: Option<String>,
    #[schema(default = true)]
    stream: Option<bool>,
    /// `"json"`, or a JSON Schema.
    format: Option<Value>,
    options: Option<OllamaOptions>,
    /// Whether the model is to think, or how much.
    think: Option<OllamaThink>,
    /// It changes nothing.
    keep_alive: Option<Value>,
}

/// Whether the model is to think, or how much.
#[derive(ToSchema)]
#[serde(untagged)]
enum OllamaThink {
    Whether(bool),
    HowMuch(String),
}

/// How tokens are picked, and how many.
#[derive(ToSchema)]
struct OllamaOptions {
    #[schema(minimum = 0, maximum = 2, default = 1)]
    temperature: Option<f32>,
    #[schema(minimum = -1)]
    top_k: Option<i64>,
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    #[schema(minimum = 0, maximum = 1)]
    min_p: Option<f32>,
    #[schema(minimum = 0.01, maximum = 100)]
    repeat_penalty: Option<f32>,
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f32>,
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f32>,
    seed: Option<i64>,
    /// At least 1; -1 is no limit.
    #[schema(minimum = -2)]
    num_predict: Option<i64>,
    stop: Option<Vec<String>>,
}

/// One message.
#[derive(ToSchema)]
struct OllamaMessage {
    role: OllamaRole,
    content: Option<String>,
    thinking: Option<String>,
    tool_calls: Option<Vec<OllamaCall>>,
    /// Of a message with a result.
    tool_name: Option<String>,
}

/// Who says it.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum OllamaRole {
    System,
    User,
    Assistant,
    Tool,
}

/// A call of a function.
#[derive(ToSchema)]
struct OllamaCall {
    id: Option<String>,
    function: OllamaFunction,
}

/// The function and what it is given.
#[derive(ToSchema)]
struct OllamaFunction {
    index: Option<u32>,
    name: String,
    arguments: BTreeMap<String, Value>,
}

/// The answer in one object.
#[derive(ToSchema)]
struct OllamaChatAnswer {
    message: OllamaMessage,
    #[serde(flatten)]
    end: OllamaEnd,
}

/// The answer in one object.
#[derive(ToSchema)]
struct OllamaGenerateAnswer {
    response: String,
    #[schema(nullable = false)]
    thinking: Option<String>,
    #[serde(flatten)]
    end: OllamaEnd,
}

/// What is known at the end. Counts and times, in nanoseconds, only when something was generated.
#[derive(ToSchema)]
struct OllamaEnd {
    model: String,
    created_at: String,
    done: bool,
    /// `stop`, `length`, `load` or `unload`.
    done_reason: String,
    #[schema(nullable = false)]
    total_duration: Option<u64>,
    #[schema(nullable = false)]
    load_duration: Option<u64>,
    #[schema(nullable = false)]
    prompt_eval_count: Option<u64>,
    #[schema(nullable = false)]
    prompt_eval_duration: Option<u64>,
    #[schema(nullable = false)]
    eval_count: Option<u64>,
    #[schema(nullable = false)]
    eval_duration: Option<u64>,
}

/// The models there are: one, where the key is for it.
#[derive(ToSchema)]
struct OllamaModels {
    models: Vec<OllamaModel>,
}

/// A model. Those that run have the last three fields as well.
#[derive(ToSchema)]
struct OllamaModel {
    name: String,
    model: String,
    #[schema(nullable = false)]
    modified_at: Option<String>,
    /// Bytes.
    size: u64,
    digest: String,
    details: OllamaDetails,
    #[schema(nullable = false)]
    expires_at: Option<String>,
    #[schema(nullable = false)]
    size_vram: Option<u64>,
    #[schema(nullable = false)]
    context_length: Option<u32>,
}

/// What a model's file is.
#[derive(ToSchema)]
struct OllamaDetails {
    parent_model: String,
    format: String,
    family: String,
    families: Vec<String>,
    parameter_size: String,
    quantization_level: String,
}

/// Which model.
#[derive(ToSchema)]
struct OllamaShowRequest {
    model: Option<String>,
}

/// What a model is.
#[derive(ToSchema)]
struct OllamaShown {
    modelfile: String,
    parameters: String,
    /// Jinja.
    template: String,
    license: String,
    details: OllamaDetails,
    model_info: BTreeMap<String, Value>,
    /// `completion`, `tools` and `thinking`.
    capabilities: Vec<String>,
    modified_at: String,
}

/// Texts whose likeness is to be told.
#[derive(ToSchema)]
struct OllamaEmbedRequest {
    /// A name of the served model, also with `:latest`; absent, that model.
    model: Option<String>,
    /// A text, a list of texts, or tokens; without any, there are no embeddings.
    input: Option<Value>,
    /// Only the model's own.
    dimensions: Option<u32>,
    /// Texts that are longer than the context are cut to it; `false`: they are refused.
    #[schema(default = true)]
    truncate: Option<bool>,
}

/// One embedding for each text.
#[derive(ToSchema)]
struct OllamaEmbedded {
    model: String,
    /// f32 `[hidden]` each, at length 1.
    embeddings: Vec<Vec<f32>>,
    prompt_eval_count: u64,
    /// In nanoseconds.
    total_duration: u64,
    load_duration: u64,
}

/// A text whose likeness is to be told.
#[derive(ToSchema)]
struct OllamaEmbeddingsRequest {
    /// A name of the served model, also with `:latest`; absent, that model.
    model: Option<String>,
    prompt: String,
}

/// Its embedding.
#[derive(ToSchema)]
struct OllamaEmbedding {
    /// f32 `[hidden]`, at length 1.
    embedding: Vec<f32>,
}

/// This gateway's version.
#[derive(ToSchema)]
struct OllamaVersion {
    version: String,
}

pub(super) fn operations() -> Vec<Described> {
    const TAG: &str = "ollama";
    const LINES: &str = "application/x-ndjson";
    let streamed = "unless stream is false: an object a line, the last with done: true, or one with error";
    vec![
        Described::post::<OllamaChatRequest>("/api/chat", TAG, "goes on with a conversation")
            .answers::<OllamaChatAnswer>()
            .tells(LINES, streamed)
            .fails::<OllamaFailure>(&ASKED),
        Described::post::<OllamaGenerateRequest>("/api/generate", TAG, "answers a prompt")
            .answers::<OllamaGenerateAnswer>()
            .tells(LINES, streamed)
            .fails::<OllamaFailure>(&ASKED),
        Described::post::<OllamaEmbedRequest>("/api/embed", TAG, "places texts among each other")
            .answers::<OllamaEmbedded>()
            .fails::<OllamaFailure>(&ASKED),
        Described::post::<OllamaEmbeddingsRequest>("/api/embeddings", TAG, "places a text among others")
            .answers::<OllamaEmbedding>()
            .fails::<OllamaFailure>(&ASKED),
        Described::post::<OllamaShowRequest>("/api/show", TAG, "what a model is")
            .answers::<OllamaShown>()
            .fails::<OllamaFailure>(&ASKED),
        Described::get("/api/tags", TAG, "the models there are")
            .answers::<OllamaModels>()
            .fails::<OllamaFailure>(&SHOWN),
        Described::get("/api/ps", TAG, "those that can answer now")
            .answers::<OllamaModels>()
            .fails::<OllamaFailure>(&SHOWN),
        Described::get("/api/version", TAG, "which version answers")
            .answers::<OllamaVersion>()
            .fails::<OllamaFailure>(&SHOWN),
    ]
}
