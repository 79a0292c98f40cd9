//! `POST /v1/chat/completions`.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

use super::{
    describe::{ASKED, Described},
    failures::Failure,
    sampling::Sampling,
};

/// A conversation to go on with.
#[derive(ToSchema)]
struct ChatCompletionRequest {
    /// A name of the served model; absent, that model.
    model: Option<String>,
    #[schema(min_items = 1, max_items = 10000)]
    messages: Vec<ChatCompletionMessage>,
    #[serde(flatten)]
    sampling: Sampling,
    #[serde(flatten)]
    common: CommonFields,
    /// The functions that the model may call.
    tools: Option<Vec<FunctionTool>>,
    /// `none`, `auto`, `required`, or a function.
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    /// `{"type": "text"}`, `json_object` or `json_schema`.
    response_format: Option<Value>,
    #[schema(default = false)]
    logprobs: Option<bool>,
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<u32>,
    /// More variables for the template.
    chat_template_kwargs: Option<BTreeMap<String, Value>>,
    reasoning_effort: Option<String>,
    enable_thinking: Option<bool>,
    continue_final_message: Option<bool>,
    add_generation_prompt: Option<bool>,
    /// Where each token's time went; only with `stream`.
    path_times: Option<bool>,
}

/// What chat and plain completions have in common.
#[derive(ToSchema)]
pub(super) struct CommonFields {
    #[schema(minimum = 1, maximum = 128, default = 1)]
    n: Option<u32>,
    /// The text ends before the first of them.
    stop: Option<Stop>,
    #[schema(max_items = 1024)]
    stop_token_ids: Option<Vec<u32>>,
    ignore_eos: Option<bool>,
    /// -1 is no limit.
    #[schema(minimum = -1)]
    max_tokens: Option<i64>,
    /// The same.
    #[schema(minimum = -1)]
    max_completion_tokens: Option<i64>,
    #[schema(default = false)]
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    user: Option<String>,
}

/// One text or several.
#[derive(ToSchema)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

/// What a stream says of usage.
#[derive(ToSchema)]
struct StreamOptions {
    include_usage: Option<bool>,
    continuous_usage_stats: Option<bool>,
}

/// One message.
#[derive(ToSchema)]
struct ChatCompletionMessage {
    role: ChatRole,
    content: Option<MessageContent>,
    name: Option<String>,
    /// What the model called.
    tool_calls: Option<Vec<Value>>,
    /// Of a message with a result.
    tool_call_id: Option<String>,
}

/// Who says it.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum ChatRole {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

/// A text, or parts that are texts.
#[derive(ToSchema)]
#[serde(untagged)]
enum MessageContent {
    Text(String),
    Parts(Vec<TextPart>),
}

/// A part that is text.
#[derive(ToSchema)]
struct TextPart {
    #[schema(pattern = "^text$")]
    r#type: String,
    text: String,
}

/// A function that the model may call.
#[derive(ToSchema)]
pub(super) struct FunctionTool {
    #[schema(pattern = "^function$")]
    r#type: String,
    function: FunctionDescription,
}

/// What it takes.
#[derive(ToSchema)]
struct FunctionDescription {
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    name: String,
    description: Option<String>,
    /// A JSON Schema.
    parameters: Option<BTreeMap<String, Value>>,
    strict: Option<bool>,
}

/// The answer.
#[derive(ToSchema)]
struct ChatCompletion {
    id: String,
    #[schema(pattern = "^chat.completion$")]
    object: String,
    created: u64,
    model: String,
    system_fingerprint: String,
    choices: Vec<ChatCompletionChoice>,
    usage: CompletionUsage,
}

/// One of its choices.
#[derive(ToSchema)]
struct ChatCompletionChoice {
    index: u32,
    message: ChatCompletionAnswer,
    logprobs: Value,
    /// `stop`, `length` or `tool_calls`.
    finish_reason: String,
}

/// What the model says.
#[derive(ToSchema)]
struct ChatCompletionAnswer {
    #[schema(pattern = "^assistant$")]
    role: String,
    #[schema(required = true)]
    content: Option<String>,
    reasoning_content: Option<String>,
    tool_calls: Option<Vec<Value>>,
}

/// Tokens that a request took and gave.
#[derive(ToSchema)]
pub(super) struct CompletionUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

pub(super) fn operations() -> Vec<Described> {
    let chat = Described::post::<ChatCompletionRequest>(
        "/v1/chat/completions",
        "openai",
        "goes on with a conversation",
    );
    let streamed = "with stream: true: chunks as data, and [DONE] at the end";
    vec![chat.answers::<ChatCompletion>().tells("text/event-stream", streamed).fails::<Failure>(&ASKED)]
}
