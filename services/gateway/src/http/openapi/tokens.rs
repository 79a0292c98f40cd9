//! Text and tokens, as vLLM has them.

use serde_json::Value;
use utoipa::ToSchema;

use super::{
    describe::{ASKED, Described, SHOWN},
    failures::Failure,
};

/// A text or a conversation: one of `prompt` and `messages`.
#[derive(ToSchema)]
struct TokenizeRequest {
    model: Option<String>,
    /// At most 1 MiB.
    prompt: Option<String>,
    /// As of a chat completion.
    messages: Option<Vec<Value>>,
    /// As of a chat completion.
    tools: Option<Vec<Value>>,
    /// The token that begins a sequence as well, if the model wants that; of a prompt only.
    #[schema(default = true)]
    add_special_tokens: Option<bool>,
    #[schema(default = false)]
    return_token_strs: Option<bool>,
    add_generation_prompt: Option<bool>,
    continue_final_message: Option<bool>,
    /// More variables for the template.
    chat_template_kwargs: Option<Value>,
}

/// Its tokens.
#[derive(ToSchema)]
struct Tokenized {
    count: u64,
    /// Tokens that prompt and answer may have together.
    max_model_len: u32,
    tokens: Vec<u32>,
    /// Their names, where they were asked for.
    #[schema(required = true)]
    token_strs: Option<Vec<String>>,
}

/// Tokens.
#[derive(ToSchema)]
struct DetokenizeRequest {
    model: Option<String>,
    tokens: Vec<u32>,
}

/// Their text, with the names of those that steer.
#[derive(ToSchema)]
struct Detokenized {
    prompt: String,
}

/// What a client needs to make prompts by itself.
#[derive(ToSchema)]
struct TokenizerInfo {
    #[schema(required = true)]
    bos_token: Option<String>,
    #[schema(required = true)]
    eos_token: Option<String>,
    #[schema(required = true)]
    pad_token: Option<String>,
    /// Jinja.
    #[schema(required = true)]
    chat_template: Option<String>,
    model_max_length: u32,
    vocab_size: u64,
}

pub(super) fn operations() -> Vec<Described> {
    const TAG: &str = "tokens";
    vec![
        Described::post::<TokenizeRequest>("/tokenize", TAG, "the tokens of a text or a conversation")
            .answers::<Tokenized>()
            .fails::<Failure>(&ASKED),
        Described::post::<DetokenizeRequest>("/detokenize", TAG, "the text of tokens")
            .answers::<Detokenized>()
            .fails::<Failure>(&ASKED),
        Described::get("/tokenizer_info", TAG, "what a client needs to make prompts by itself")
            .answers::<TokenizerInfo>()
            .fails::<Failure>(&SHOWN),
    ]
}
