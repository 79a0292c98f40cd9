//! `POST /v1/messages` and `POST /v1/messages/count_tokens`.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

use super::{
    describe::{ASKED, Described},
    failures::AnthropicFailure,
    sampling::Sampling,
};

/// A conversation to go on with.
#[derive(ToSchema)]
struct AnthropicRequest {
    #[schema(minimum = 1)]
    max_tokens: u32,
    #[serde(flatten)]
    conversation: AnthropicConversation,
    #[serde(flatten)]
    sampling: Sampling,
    stop_sequences: Option<Vec<String>>,
    #[schema(default = false)]
    stream: Option<bool>,
    metadata: Option<Value>,
}

/// What is counted as well.
#[derive(ToSchema)]
struct AnthropicConversation {
    /// A name of the served model; absent, that model.
    model: Option<String>,
    #[schema(min_items = 1, max_items = 10000)]
    messages: Vec<AnthropicMessage>,
    system: Option<AnthropicContent>,
    #[schema(max_items = 128)]
    tools: Option<Vec<AnthropicTool>>,
    tool_choice: Option<AnthropicToolChoice>,
    thinking: Option<AnthropicThinking>,
}

/// One message.
#[derive(ToSchema)]
struct AnthropicMessage {
    role: AnthropicRole,
    content: AnthropicContent,
}

/// Who says it.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum AnthropicRole {
    User,
    Assistant,
    System,
}

/// A text, or blocks: `text`, `thinking`, `tool_use` and `tool_result`.
#[derive(ToSchema)]
#[serde(untagged)]
enum AnthropicContent {
    Text(String),
    Blocks(Vec<BTreeMap<String, Value>>),
}

/// A function that the model may call.
#[derive(ToSchema)]
struct AnthropicTool {
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    name: String,
    description: Option<String>,
    /// A JSON Schema.
    input_schema: Option<BTreeMap<String, Value>>,
}

/// Whether it must.
#[derive(ToSchema)]
struct AnthropicToolChoice {
    r#type: AnthropicToolChoiceKind,
    /// With `tool`.
    name: Option<String>,
    disable_parallel_tool_use: Option<bool>,
}

/// How much it must.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum AnthropicToolChoiceKind {
    Auto,
    Any,
    Tool,
    None,
}

/// Whether the model is to think.
#[derive(ToSchema)]
struct AnthropicThinking {
    r#type: AnthropicThinkingKind,
    /// It changes nothing.
    budget_tokens: Option<u32>,
}

/// Whether the model is to think.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum AnthropicThinkingKind {
    Enabled,
    Adaptive,
    Disabled,
}

/// The answer.
#[derive(ToSchema)]
struct AnthropicAnswer {
    id: String,
    #[schema(pattern = "^message$")]
    r#type: String,
    #[schema(pattern = "^assistant$")]
    role: String,
    model: String,
    content: Vec<AnthropicBlock>,
    stop_reason: AnthropicStopReason,
    #[schema(required = true)]
    stop_sequence: Option<String>,
    usage: AnthropicUsage,
}

/// A block, with the fields of its type: `thinking`, `text` or `tool_use`.
#[derive(ToSchema)]
struct AnthropicBlock {
    r#type: String,
    #[schema(nullable = false)]
    text: Option<String>,
    #[schema(nullable = false)]
    thinking: Option<String>,
    #[schema(nullable = false)]
    signature: Option<String>,
    #[schema(nullable = false)]
    id: Option<String>,
    #[schema(nullable = false)]
    name: Option<String>,
    #[schema(nullable = false)]
    input: Option<Value>,
}

/// Why it ended.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum AnthropicStopReason {
    EndTurn,
    MaxTokens,
    StopSequence,
    ToolUse,
}

/// Tokens that it took and gave.
#[derive(ToSchema)]
struct AnthropicUsage {
    input_tokens: u64,
    output_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
}

/// Tokens of a prompt.
#[derive(ToSchema)]
struct AnthropicCount {
    input_tokens: u64,
}

pub(super) fn operations() -> Vec<Described> {
    const TAG: &str = "anthropic";
    vec![
        Described::post::<AnthropicRequest>("/v1/messages", TAG, "goes on with a conversation")
            .answers::<AnthropicAnswer>()
            .tells("text/event-stream", "with stream: true: message_start to message_stop, or error")
            .fails::<AnthropicFailure>(&ASKED),
        Described::post::<AnthropicConversation>("/v1/messages/count_tokens", TAG, "how many tokens it has")
            .answers::<AnthropicCount>()
            .fails::<AnthropicFailure>(&ASKED),
    ]
}
