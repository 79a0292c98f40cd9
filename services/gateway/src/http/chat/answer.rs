//! What is told of a chat in OpenAI's form, as a whole or piece by piece.

use futures::{Stream, StreamExt};
use serde_json::{Value, json};

use crate::{
    chat::{ChatChunk, ChatEvent, ChatEvents, ChatMessage, Delta},
    completion::{Completer, PlacedToken},
    http::{error::ApiError, logprobs, params::StreamUsage, path_times, sse::Envelope, usage::Usage},
    text::ToolCall,
};

/// How the choices are told.
pub(super) struct Answer {
    pub(super) completer: Completer,
    pub(super) logprobs: Option<u32>,
    pub(super) path_times: bool,
}

impl Answer {
    pub(super) fn whole(&self, choices: Vec<ChatMessage>, envelope: &Envelope, mut usage: Usage) -> Value {
        let mut told = vec![];
        for (index, choice) in choices.into_iter().enumerate() {
            usage.completion_tokens += u64::from(choice.completion_tokens);
            usage.reasoning_tokens += u64::from(choice.reasoning_tokens);
            told.push(json!({
                "index": index,
                "logprobs": self.scores(&choice.tokens),
                "finish_reason": choice.reason.as_str(),
                "message": message(choice),
            }));
        }
        let mut answer = envelope.with_choices(told);
        answer["usage"] = usage.json();
        answer
    }

    pub(super) fn stream(
        self,
        mut events: ChatEvents,
        count: usize,
        envelope: Envelope,
        mut usage: Usage,
        told: StreamUsage,
    ) -> impl Stream<Item = Value> + Send {
        async_stream::stream! {
            let chunk = |index: usize, delta: Value, logprobs: Value, reason: Option<&str>, so_far: Usage| {
                let choice = json!({
                    "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason,
                });
                envelope.chunk(vec![choice], told, so_far)
            };
            for index in 0..count {
                let begins = json!({"role": "assistant", "content": ""});
                yield chunk(index, begins, Value::Null, None, usage);
            }
            while let Some(event) = events.next().await {
                match event {
                    Ok((index, ChatEvent::Chunk(ChatChunk { delta, tokens, path }))) => {
                        usage.completion_tokens += u64::from(path.is_some());
                        let scores = self.scores(&tokens);
                        let has_scores = self.logprobs.is_some() && !tokens.is_empty();
                        let path = path.filter(|_| self.path_times);
                        if has_scores || path.is_some() || delta != Delta::Nothing {
                            let mut chunk = chunk(index, piece(delta), scores, None, usage);
                            if let Some(path) = path {
                                chunk["path_times"] = path_times::json(&[path]);
                            }
                            yield chunk;
                        }
                    }
                    Ok((index, ChatEvent::Finished { reason, reasoning_tokens, .. })) => {
                        usage.reasoning_tokens += u64::from(reasoning_tokens);
                        yield chunk(index, json!({}), Value::Null, Some(reason.as_str()), usage);
                    }
                    Err(error) => {
                        yield usage.at_the_break(&ApiError::from(error));
                        return;
                    }
                }
            }
            if told != StreamUsage::Nothing {
                yield envelope.last(usage);
            }
        }
    }

    fn scores(&self, tokens: &[PlacedToken]) -> Value {
        let tokenizer = self.completer.model().tokenizer();
        self.logprobs.map_or(Value::Null, |top| logprobs::chat(tokens, top as usize, tokenizer))
    }
}

fn message(choice: ChatMessage) -> Value {
    let no_text = choice.content.is_empty() && !choice.tool_calls.is_empty();
    let content = if no_text { Value::Null } else { choice.content.into() };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !choice.reasoning.is_empty() {
        message["reasoning_content"] = choice.reasoning.into();
    }
    if !choice.tool_calls.is_empty() {
        message["tool_calls"] = choice.tool_calls.into_iter().map(call).collect();
    }
    message
}

fn call(ToolCall { id, name, arguments }: ToolCall) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

fn piece(delta: Delta) -> Value {
    match delta {
        Delta::Nothing => json!({"content": ""}),
        Delta::Content(text) => json!({"content": text}),
        Delta::Reasoning(text) => json!({"reasoning_content": text}),
        Delta::ToolCall { index, id, name } => {
            let mut call = call(ToolCall { id, name, arguments: String::new() });
            call["index"] = index.into();
            json!({"tool_calls": [call]})
        }
        Delta::Arguments { index, text } => {
            json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ChatFinish;

    #[test]
    fn a_message_of_calls_alone_has_no_text() {
        let call = ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into() };
        let mut choice = ChatMessage {
            content: String::new(),
            reasoning: "hm".into(),
            tool_calls: vec![call],
            call_places: vec![],
            tokens: vec![],
            reason: ChatFinish::ToolCalls,
            stop: None,
            completion_tokens: 1,
            reasoning_tokens: 0,
        };
        let expected = json!({
            "role": "assistant", "content": null, "refusal": null, "reasoning_content": "hm",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        });
        assert_eq!(message(choice.clone()), expected);
        (choice.reasoning, choice.tool_calls) = (String::new(), vec![]);
        assert_eq!(message(choice), json!({"role": "assistant", "content": "", "refusal": null}));
    }

    #[test]
    fn calls_come_piece_by_piece_as_clients_put_them_together() {
        let begins = piece(Delta::ToolCall { index: 1, id: "c".into(), name: "f".into() });
        let function = json!({"name": "f", "arguments": ""});
        let expected =
            json!({"tool_calls": [{"index": 1, "id": "c", "type": "function", "function": function}]});
        assert_eq!(begins, expected);
        let more = piece(Delta::Arguments { index: 1, text: "{}".into() });
        assert_eq!(more, json!({"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}));
    }
}
