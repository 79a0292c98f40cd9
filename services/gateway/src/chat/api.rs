//! What the dialects of HTTP ask of a chat and get from it. None of them knows another.

use std::pin::Pin;

use futures::Stream;
use serde_json::Value;
use swarm_types::{Grammar, SamplingParams, TokenId};

use crate::{
    clients::Principal,
    completion::{PlacedToken, TokenPath},
    generation::GenerationError,
    text::Chat,
};

/// A conversation to go on with.
#[derive(Clone, PartialEq, Debug)]
pub struct ChatRequest {
    /// On whose account it runs.
    pub principal: Principal,
    /// The messages, what the template is given besides, and how it goes on.
    pub chat: Chat,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// Whether it must.
    pub tool_choice: ToolChoice,
    /// Whether one message may have several calls. If not, the first ends it.
    pub parallel_tool_calls: bool,
    /// What the text must be like. Not together with calls that must be.
    pub grammar: Option<Grammar>,
    /// How each token is picked. The seed is the first choice's; each has randomness of its own.
    pub sampling: SamplingParams,
    /// Absent: as many as the context holds.
    pub max_tokens: Option<u32>,
    /// The text ends before the one of these that is complete first.
    pub stop: Vec<String>,
    /// Tokens that end it besides the model's end tokens.
    pub stop_tokens: Vec<TokenId>,
    /// Do not end at the model's end tokens.
    pub ignore_eos: bool,
    /// The names of tokens that steer are text as well.
    pub shows_control: bool,
    /// Answers to the same conversation, at least one.
    pub choices: u32,
}

impl ChatRequest {
    /// One answer as the model gives it.
    #[must_use]
    pub fn new(principal: Principal, chat: Chat) -> Self {
        Self {
            principal,
            chat,
            tools: vec![],
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            grammar: None,
            sampling: SamplingParams::default(),
            max_tokens: None,
            stop: vec![],
            stop_tokens: vec![],
            ignore_eos: false,
            shows_control: false,
            choices: 1,
        }
    }
}

/// A function that the model may call.
#[derive(Clone, PartialEq, Debug)]
pub struct Tool {
    /// Letters, digits, `_` and `-`, at most 64.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// The JSON Schema of its arguments: an object.
    pub parameters: Value,
    /// The client wants arguments by the schema also where no call must be. They are held to it where one must be.
    pub strict: bool,
}

/// Whether the model calls functions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ToolChoice {
    /// It does not know of any.
    None,
    /// As it likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// This one.
    Function(String),
}

/// What happens in one choice, in order.
#[derive(Clone, PartialEq, Debug)]
pub enum ChatEvent {
    /// More of the message.
    Chunk(ChatChunk),
    /// Nothing comes after it.
    Finished {
        /// Why.
        reason: ChatFinish,
        /// Tokens generated, all of them.
        completion_tokens: u32,
        /// Those of thinking among them.
        reasoning_tokens: u32,
        /// The stop string that it ended at.
        stop: Option<String>,
    },
}

/// More of a message, and the tokens that are out with it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ChatChunk {
    /// What is more.
    pub delta: Delta,
    /// In order.
    pub tokens: Vec<PlacedToken>,
    /// Of the token just generated, also while its text is held back.
    pub path: Option<TokenPath>,
}

/// A piece of a message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Delta {
    /// Nothing can be told yet.
    #[default]
    Nothing,
    /// Text for the user.
    Content(String),
    /// Thinking.
    Reasoning(String),
    /// A call begins.
    ToolCall {
        /// Its place among the message's calls.
        index: u32,
        /// By which its result is told.
        id: String,
        /// The function.
        name: String,
    },
    /// More of a call's arguments: JSON, piece by piece.
    Arguments {
        /// The call's place.
        index: u32,
        /// What is more.
        text: String,
    },
}

/// Why a message came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChatFinish {
    /// By itself, or at a stop string.
    Stop,
    /// No more tokens.
    Length,
    /// It calls functions, and all calls are complete: the arguments of each are a JSON object.
    ToolCalls,
}

impl ChatFinish {
    /// As OpenAI's API names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
        }
    }
}

/// The events of all choices, each with the choice it is of; of each choice in order. Nothing comes after the first
/// error. Dropping it cancels all.
pub type ChatEvents = Pin<Box<dyn Stream<Item = Result<(usize, ChatEvent), GenerationError>> + Send>>;

/// A chat that has begun.
pub struct ChatStream {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// What happens.
    pub events: ChatEvents,
}
