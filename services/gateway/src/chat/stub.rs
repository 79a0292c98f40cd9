//! A chat without tools and thinking: all that the model writes is text.

use futures::{Stream, StreamExt, stream};
use swarm_types::TokenId;

use super::api::{ChatChunk, ChatEvent, ChatEvents, ChatFinish, ChatRequest, ChatStream, Delta, Tool};
use crate::{
    clients::Denied,
    completion::{Completer, CompletionEvent, CompletionRequest, PlacedToken},
    generation::{FinishReason, GenerationError, Operation},
    text::{Chat, ToolCall},
};

/// Choices of one request that are generated at the same time.
const AT_ONCE: usize = 16;

/// Why a chat does not begin.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The key does not allow it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It is refused, or the swarm cannot.
    #[error(transparent)]
    Generation(#[from] GenerationError),
}

/// A message that came to its end.
#[derive(Clone, PartialEq, Debug)]
pub struct ChatMessage {
    /// Text for the user.
    pub content: String,
    /// Thinking.
    pub reasoning: String,
    /// What it calls, in order.
    pub tool_calls: Vec<ToolCall>,
    /// Its tokens.
    pub tokens: Vec<PlacedToken>,
    /// Why it ended.
    pub reason: ChatFinish,
    /// Tokens generated, all of them.
    pub completion_tokens: u32,
    /// Those of thinking among them.
    pub reasoning_tokens: u32,
}

/// Goes on with conversations. Cheap to clone.
#[derive(Clone)]
pub struct Chatter {
    completer: Completer,
}

impl Chatter {
    /// Over a completer.
    #[must_use]
    pub fn new(completer: Completer) -> Self {
        Self { completer }
    }

    /// The tokens of a conversation, up to where the answer begins.
    ///
    /// # Errors
    /// When the template refuses the messages.
    pub async fn prompt(&self, chat: Chat, tools: &[Tool]) -> Result<Vec<TokenId>, ChatError> {
        let _ = tools;
        Ok(self.completer.encode_chat(chat).await?)
    }

    /// Starts a chat. The first choice is started before this returns.
    ///
    /// # Errors
    /// What is refused, by field.
    pub async fn start(&self, request: ChatRequest) -> Result<ChatStream, ChatError> {
        let prompt = self.prompt(request.chat.clone(), &request.tools).await?;
        let prompt_tokens = prompt.len() as u64;
        let one = |index: u32| {
            let mut sampling = request.sampling.clone();
            sampling.seed = sampling.seed.wrapping_add(index.into());
            CompletionRequest {
                principal: request.principal.clone(),
                operation: Operation::Chat,
                prompt: prompt.clone(),
                sampling,
                grammar: request.grammar.clone(),
                max_tokens: request.max_tokens,
                stop: request.stop.clone(),
                stop_tokens: request.stop_tokens.clone(),
                ignore_eos: request.ignore_eos,
                score_prompt: None,
            }
        };
        self.completer.check(&one(0))?;
        let drawn = prompt_tokens * u64::from(request.choices);
        request.principal.draw(drawn)?;
        let first = self.completer.start(one(0)).await;
        let first = first.inspect_err(|_| request.principal.give_back(drawn))?;
        let others: Vec<_> = (1..request.choices).map(|index| (index as usize, one(index))).collect();
        let completer = self.completer.clone();
        let others = others.into_iter().map(move |(index, request)| {
            let completer = completer.clone();
            let started = async move {
                match completer.start(request).await {
                    Ok(events) => events,
                    Err(error) => stream::iter([Err(error)]).boxed(),
                }
            };
            told(index, stream::once(started).flatten().boxed())
        });
        let all = [told(0, first)].into_iter().chain(others);
        Ok(ChatStream { prompt_tokens, events: stream::iter(all).flatten_unordered(AT_ONCE).boxed() })
    }
}

fn told(
    index: usize,
    events: impl Stream<Item = Result<CompletionEvent, GenerationError>> + Send + 'static,
) -> ChatEvents {
    let event = move |event| match event {
        Ok(CompletionEvent::Chunk(chunk)) => {
            let delta = if chunk.text.is_empty() { Delta::Nothing } else { Delta::Content(chunk.text) };
            let chunk = ChatChunk { delta, tokens: chunk.tokens, path: chunk.path };
            Some(Ok((index, ChatEvent::Chunk(chunk))))
        }
        Ok(CompletionEvent::Finished { reason, completion_tokens }) => {
            let reason = match reason {
                FinishReason::End => ChatFinish::Stop,
                FinishReason::Length => ChatFinish::Length,
            };
            Some(Ok((index, ChatEvent::Finished { reason, completion_tokens, reasoning_tokens: 0 })))
        }
        Ok(CompletionEvent::PromptScores(_)) => None,
        Err(error) => Some(Err(error)),
    };
    events.filter_map(move |item| std::future::ready(event(item))).boxed()
}

/// All messages, when the last has come to its end.
///
/// # Errors
/// When one is broken off.
pub async fn collect(mut events: ChatEvents, choices: usize) -> Result<Vec<ChatMessage>, GenerationError> {
    let empty = ChatMessage {
        content: String::new(),
        reasoning: String::new(),
        tool_calls: vec![],
        tokens: vec![],
        reason: ChatFinish::Length,
        completion_tokens: 0,
        reasoning_tokens: 0,
    };
    let mut messages = vec![empty; choices];
    while let Some(event) = events.next().await {
        let (index, event) = event?;
        let message = &mut messages[index];
        match event {
            ChatEvent::Chunk(chunk) => {
                message.tokens.extend(chunk.tokens);
                match chunk.delta {
                    Delta::Nothing => {}
                    Delta::Content(text) => message.content += &text,
                    Delta::Reasoning(text) => message.reasoning += &text,
                    Delta::ToolCall { id, name, .. } => {
                        message.tool_calls.push(ToolCall { id, name, arguments: String::new() });
                    }
                    Delta::Arguments { index, text } => {
                        if let Some(call) = message.tool_calls.get_mut(index as usize) {
                            call.arguments += &text;
                        }
                    }
                }
            }
            ChatEvent::Finished { reason, completion_tokens, reasoning_tokens } => {
                message.reason = reason;
                message.completion_tokens = completion_tokens;
                message.reasoning_tokens = reasoning_tokens;
            }
        }
    }
    Ok(messages)
}
