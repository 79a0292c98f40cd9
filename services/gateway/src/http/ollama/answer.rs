//! The answer: lines of JSON, or all of it in one object.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    chat::{self, ChatEvent, ChatEvents, ChatFinish, ChatMessage, ChatStream, MessagePart, ToolCall},
    http::{
        blocks::{Block, Blocks, Step},
        dialect::Dialect,
        error::ApiError,
    },
};

/// Where the text stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// In `message`.
    Chat,
    /// In `response`.
    Generate,
}

/// How an answer is told.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    form: Form,
    /// As it was asked for.
    model: String,
    begun: Instant,
}

/// Pieces of the answer.
#[derive(Clone, Default, Debug)]
struct Piece {
    content: String,
    thinking: String,
    /// Each with its arguments, which are an object here.
    calls: Vec<(ToolCall, Map<String, Value>)>,
}

impl Piece {
    /// A call that is no JSON is told as the text that it is.
    fn add(&mut self, call: ToolCall) {
        match chat::arguments_of(&call) {
            Ok(arguments) => self.calls.push((call, arguments)),
            Err(text) => self.content += &text,
        }
    }

    fn whole(message: ChatMessage) -> Self {
        let mut piece = Self::default();
        for part in message.parts() {
            match part {
                MessagePart::Text(text) => piece.content += &text,
                MessagePart::Call(call) => piece.add(call),
            }
        }
        Self { thinking: message.reasoning, ..piece }
    }
}

/// What is known at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct End {
    reason: ChatFinish,
    prompt_tokens: u64,
    tokens: u32,
    /// When the first token was there.
    first: Option<Instant>,
}

impl Answer {
    /// An answer that begins now.
    pub(super) fn new(form: Form, model: String) -> Self {
        Self { form, model, begun: Instant::now() }
    }

    /// To who only wants the model to be there, which it is, or not to be there, which is not his to say.
    pub(super) fn loaded(&self, unload: bool) -> Value {
        let mut line = self.line(Piece::default(), true);
        line["done_reason"] = if unload { "unload" } else { "load" }.into();
        line
    }

    /// As it comes. What is broken off ends with a line with the error.
    pub(super) fn stream(self, started: ChatStream) -> impl Stream<Item = Value> + Send + 'static {
        let ChatStream { prompt_tokens, events } = started;
        let (mut events, first) = timed(events);
        async_stream::stream! {
            let (mut blocks, mut calls) = (Blocks::default(), Calls::default());
            while let Some(event) = events.next().await {
                match event {
                    Ok((_, ChatEvent::Chunk(chunk))) => {
                        for piece in blocks.push(chunk.delta).into_iter().filter_map(|step| calls.step(step)) {
                            yield self.line(piece, false);
                        }
                    }
                    Ok((_, ChatEvent::Finished { reason, completion_tokens: tokens, .. })) => {
                        for piece in blocks.finish().into_iter().filter_map(|step| calls.step(step)) {
                            yield self.line(piece, false);
                        }
                        let end = End { reason, prompt_tokens, tokens, first: first.get().copied() };
                        yield self.last(Piece::default(), end);
                        return;
                    }
                    Err(error) => {
                        yield ApiError::from(error).body_in(Dialect::Ollama);
                        return;
                    }
                }
            }
            yield ApiError::no_answer().body_in(Dialect::Ollama);
        }
    }

    /// All of it.
    pub(super) async fn whole(&self, started: ChatStream) -> Result<Value, ApiError> {
        let (events, first) = timed(started.events);
        let message = chat::collect(events, 1).await?.pop().ok_or_else(ApiError::no_answer)?;
        let end = End {
            reason: message.reason,
            prompt_tokens: started.prompt_tokens,
            tokens: message.completion_tokens,
            first: first.get().copied(),
        };
        Ok(self.last(Piece::whole(message), end))
    }

    fn line(&self, piece: Piece, done: bool) -> Value {
        let mut line = json!({
            "model": self.model, "created_at": Timestamp::now().to_string(), "done": done,
        });
        let (thinking, calls) = (piece.thinking, piece.calls);
        let mut beside = Map::new();
        if !thinking.is_empty() {
            beside.insert("thinking".into(), thinking.into());
        }
        if !calls.is_empty() {
            beside.insert("tool_calls".into(), calls.into_iter().enumerate().map(call).collect());
        }
        match self.form {
            Form::Chat => {
                beside.insert("role".into(), "assistant".into());
                beside.insert("content".into(), piece.content.into());
                line["message"] = beside.into();
            }
            Form::Generate => {
                line["response"] = piece.content.into();
                line.as_object_mut().into_iter().for_each(|line| line.extend(beside.clone()));
            }
        }
        line
    }

    fn last(&self, piece: Piece, end: End) -> Value {
        let now = Instant::now();
        let first = end.first.unwrap_or(now);
        let mut line = self.line(piece, true);
        line["done_reason"] = if end.reason == ChatFinish::Length { "length" } else { "stop" }.into();
        line["total_duration"] = nanos(now - self.begun);
        line["load_duration"] = 0.into();
        line["prompt_eval_count"] = end.prompt_tokens.into();
        line["prompt_eval_duration"] = nanos(first.saturating_duration_since(self.begun));
        line["eval_count"] = end.tokens.into();
        line["eval_duration"] = nanos(now - first);
        line
    }
}

fn call((index, (call, arguments)): (usize, (ToolCall, Map<String, Value>))) -> Value {
    json!({"id": call.id, "function": {"index": index, "name": call.name, "arguments": arguments}})
}

pub(super) fn nanos(time: Duration) -> Value {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).into()
}

/// The same events, and when the first of them came.
fn timed(events: ChatEvents) -> (ChatEvents, Arc<OnceLock<Instant>>) {
    let first = Arc::new(OnceLock::new());
    let seen = first.clone();
    let events = events.inspect(move |_| {
        seen.get_or_init(Instant::now);
    });
    (events.boxed(), first)
}

/// Calls are told when they are whole.
#[derive(Default)]
struct Calls {
    open: Option<Block>,
    arguments: String,
}

impl Calls {
    fn step(&mut self, step: Step) -> Option<Piece> {
        match step {
            Step::Begin(block) => {
                self.open = Some(block);
                self.arguments.clear();
                None
            }
            Step::More(text) => match &self.open {
                Some(Block::Call { .. }) => {
                    self.arguments += &text;
                    None
                }
                Some(Block::Thinking) => Some(Piece { thinking: text, ..Piece::default() }),
                Some(Block::Text) | None => Some(Piece { content: text, ..Piece::default() }),
            },
            Step::End => match self.open.take() {
                Some(Block::Call { id, name }) => {
                    let call = ToolCall { id, name, arguments: std::mem::take(&mut self.arguments) };
                    let mut piece = Piece::default();
                    piece.add(call);
                    Some(piece)
                }
                _ => None,
            },
        }
    }
}

/// One object a line.
pub(super) fn respond(lines: impl Stream<Item = Value> + Send + 'static) -> Response {
    let lines = lines.map(|line| Ok::<_, Infallible>(format!("{line}\n")));
    // Proxies must hand on every line at once.
    let headers = [(header::CONTENT_TYPE.as_str(), "application/x-ndjson"), ("x-accel-buffering", "no")];
    (headers, Body::from_stream(lines)).into_response()
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::{
        chat::{ChatChunk, Delta},
        generation::GenerationError,
        http::openapi::misfits,
    };

    fn started(script: Vec<Result<ChatEvent, GenerationError>>) -> ChatStream {
        let script = script.into_iter().map(|event| event.map(|event| (0, event)));
        ChatStream { prompt_tokens: 7, events: stream::iter(script).boxed() }
    }

    fn chunk(delta: Delta) -> Result<ChatEvent, GenerationError> {
        Ok(ChatEvent::Chunk(ChatChunk { delta, ..ChatChunk::default() }))
    }

    fn script() -> Vec<Result<ChatEvent, GenerationError>> {
        vec![
            chunk(Delta::Reasoning("hm".into())),
            chunk(Delta::Content("a".into())),
            chunk(Delta::ToolCall { index: 0, id: "call_1".into(), name: "f".into() }),
            chunk(Delta::Arguments { index: 0, text: r#"{"x""#.into() }),
            chunk(Delta::Arguments { index: 0, text: ":1}".into() }),
            Ok(ChatEvent::Finished {
                reason: ChatFinish::ToolCalls,
                completion_tokens: 5,
                reasoning_tokens: 1,
                stop: None,
            }),
        ]
    }

    #[tokio::test]
    async fn lines_tell_of_text_as_it_comes_and_of_calls_when_they_are_whole() {
        let answer = Answer::new(Form::Chat, "m".into());
        let lines: Vec<Value> = answer.stream(started(script())).collect().await;
        let message = |place: usize| lines[place]["message"].clone();
        let call = json!([{"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}}]);
        assert_eq!(message(0), json!({"role": "assistant", "content": "", "thinking": "hm"}));
        assert_eq!(message(1), json!({"role": "assistant", "content": "a"}));
        assert_eq!(message(2), json!({"role": "assistant", "content": "", "tool_calls": call}));
        let last = &lines[3];
        assert_eq!((lines.len(), &last["done"], &last["done_reason"]), (4, &json!(true), &json!("stop")));
        assert_eq!((&last["prompt_eval_count"], &last["eval_count"]), (&json!(7), &json!(5)));
        assert!(last["total_duration"].is_u64() && last["eval_duration"].is_u64());
    }

    #[tokio::test]
    async fn a_whole_answer_says_the_same_in_one_object() {
        let answer = Answer::new(Form::Generate, "m".into());
        let whole = answer.whole(started(script())).await.expect("an answer");
        assert_eq!((&whole["response"], &whole["thinking"]), (&json!("a"), &json!("hm")));
        assert_eq!((&whole["done"], &whole["eval_count"]), (&json!(true), &json!(5)));
        assert!(misfits("/api/generate", Some("200"), &whole).is_empty(), "{whole}");
        let loaded = answer.loaded(false);
        assert_eq!(loaded["done_reason"], "load");
        assert!(misfits("/api/generate", Some("200"), &loaded).is_empty(), "{loaded}");
        let whole = Answer::new(Form::Chat, "m".into()).whole(started(script())).await.expect("an answer");
        assert!(misfits("/api/chat", Some("200"), &whole).is_empty(), "{whole}");
    }

    #[tokio::test]
    async fn a_call_that_is_no_json_is_text_in_both_forms() {
        let script = || {
            let mut script = script();
            script[4] = chunk(Delta::Arguments { index: 0, text: ": x}".into() });
            script
        };
        let text = r#"{"name": "f", "arguments": {"x": x}"#;
        let lines: Vec<Value> = Answer::new(Form::Chat, "m".into()).stream(started(script())).collect().await;
        assert_eq!(lines[2]["message"], json!({"role": "assistant", "content": text}));
        let whole = Answer::new(Form::Chat, "m".into()).whole(started(script())).await.expect("an answer");
        assert_eq!(whole["message"]["content"], format!("a{text}"));
        assert_eq!(whole["message"]["tool_calls"], Value::Null);
    }

    #[tokio::test]
    async fn what_is_broken_off_ends_with_its_error() {
        let failed = GenerationError::Internal { message: "x".into() };
        for script in [vec![chunk(Delta::Content("a".into())), Err(failed)], vec![]] {
            let answer = Answer::new(Form::Generate, "m".into());
            let lines: Vec<Value> = answer.stream(started(script)).collect().await;
            assert!(lines.last().is_some_and(|last| last["error"].is_string()), "{lines:?}");
        }
    }
}
