//! `POST /v1/responses`.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

use super::{
    describe::{ASKED, Described},
    failures::Failure,
    sampling::Sampling,
};

/// All of a conversation: nothing is kept between requests.
#[derive(ToSchema)]
struct ResponsesRequest {
    /// A name of the served model; absent, that model.
    model: Option<String>,
    input: ResponsesInput,
    /// What the system says first.
    instructions: Option<String>,
    #[serde(flatten)]
    sampling: Sampling,
    #[schema(minimum = 1)]
    max_output_tokens: Option<u32>,
    #[schema(max_items = 128)]
    tools: Option<Vec<ResponsesTool>>,
    /// `none`, `auto`, `required`, or `{"type": "function", "name": …}`.
    tool_choice: Option<Value>,
    #[schema(default = true)]
    parallel_tool_calls: Option<bool>,
    text: Option<ResponsesText>,
    reasoning: Option<ResponsesReasoning>,
    #[schema(default = false)]
    stream: Option<bool>,
    /// Nothing is stored, whatever is said.
    store: Option<bool>,
    /// Told again in the answer.
    metadata: Option<BTreeMap<String, Value>>,
    user: Option<String>,
    #[schema(pattern = "^disabled$")]
    truncation: Option<String>,
}

/// A text of the user, or items.
#[derive(ToSchema)]
#[serde(untagged)]
enum ResponsesInput {
    Text(String),
    /// Messages, `function_call`, `function_call_output`; `reasoning` is read over.
    Items(Vec<BTreeMap<String, Value>>),
}

/// A function that the model may call.
#[derive(ToSchema)]
struct ResponsesTool {
    #[schema(pattern = "^function$")]
    r#type: String,
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    name: String,
    description: Option<String>,
    /// A JSON Schema.
    parameters: Option<BTreeMap<String, Value>>,
    strict: Option<bool>,
}

/// What the text must be like.
#[derive(ToSchema)]
struct ResponsesText {
    /// `{"type": "text"}`, `json_object`, or `json_schema` with its `schema`.
    format: Option<BTreeMap<String, Value>>,
}

/// How much the model is to think.
#[derive(ToSchema)]
struct ResponsesReasoning {
    effort: Option<String>,
    summary: Option<String>,
}

/// The answer.
#[derive(ToSchema)]
struct ResponsesAnswer {
    id: String,
    #[schema(pattern = "^response$")]
    object: String,
    /// Seconds since the Unix epoch.
    created_at: u64,
    model: String,
    status: ResponsesStatus,
    #[schema(required = true)]
    incomplete_details: Option<IncompleteDetails>,
    #[schema(required = true)]
    error: Option<ResponsesFailure>,
    /// Items `reasoning`, `message` and `function_call`.
    output: Vec<ResponsesItem>,
    #[schema(required = true)]
    usage: Option<ResponsesUsage>,
    #[schema(required = true)]
    instructions: Option<String>,
    #[schema(required = true)]
    max_output_tokens: Option<u32>,
    metadata: BTreeMap<String, Value>,
    parallel_tool_calls: bool,
    temperature: f64,
    top_p: f64,
    tool_choice: Value,
    tools: Vec<Value>,
    text: Value,
    reasoning: Value,
    store: bool,
    background: bool,
    #[schema(required = true)]
    previous_response_id: Option<String>,
    truncation: String,
}

/// How far it is.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum ResponsesStatus {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

/// Why it is not complete.
#[derive(ToSchema)]
struct IncompleteDetails {
    #[schema(pattern = "^max_output_tokens$")]
    reason: String,
}

/// What went wrong after it began.
#[derive(ToSchema)]
struct ResponsesFailure {
    code: String,
    message: String,
}

/// One item, with the fields of its type.
#[derive(ToSchema)]
struct ResponsesItem {
    id: String,
    r#type: String,
    status: ResponsesStatus,
    /// Of messages and thinking.
    #[schema(nullable = false)]
    content: Option<Vec<Value>>,
    /// Of thinking.
    #[schema(nullable = false)]
    summary: Option<Vec<Value>>,
    /// Of messages.
    #[schema(nullable = false)]
    role: Option<String>,
    /// Of calls.
    #[schema(nullable = false)]
    call_id: Option<String>,
    /// Of calls.
    #[schema(nullable = false)]
    name: Option<String>,
    /// Of calls: JSON.
    #[schema(nullable = false)]
    arguments: Option<String>,
}

/// Tokens that it took and gave.
#[derive(ToSchema)]
struct ResponsesUsage {
    input_tokens: u64,
    input_tokens_details: BTreeMap<String, u64>,
    output_tokens: u64,
    output_tokens_details: BTreeMap<String, u64>,
    total_tokens: u64,
}

pub(super) fn operations() -> Vec<Described> {
    let create = Described::post::<ResponsesRequest>("/v1/responses", "openai", "answers a conversation");
    let streamed =
        "with stream: true: response.created to response.completed, response.incomplete or response.failed";
    vec![create.answers::<ResponsesAnswer>().tells("text/event-stream", streamed).fails::<Failure>(&ASKED)]
}
