//! The answer as events. Whatever happens, one of `completed`, `incomplete` and `failed` is the last.

use futures::{Stream, StreamExt};
use serde_json::{Value, json};

use super::answer::{Envelope, Item, State, Usage};
use crate::{
    chat::{ChatEvent, ChatEvents, ChatFinish, Delta},
    http::{
        blocks::{Block, Blocks, Step},
        error::ApiError,
    },
};

/// An event with its name.
type Told = (&'static str, Value);

/// Tells what happens in a chat's only choice.
pub(super) fn events(
    mut events: ChatEvents,
    envelope: Envelope,
    prompt_tokens: u64,
) -> impl Stream<Item = Told> + Send + 'static {
    async_stream::stream! {
        let mut teller = Teller::new(envelope);
        for told in teller.begin() {
            yield told;
        }
        while let Some(event) = events.next().await {
            let (told, ended) = match event {
                Ok((_, ChatEvent::Chunk(chunk))) => (teller.push(chunk.delta), false),
                Ok((_, ChatEvent::Finished { reason, completion_tokens, reasoning_tokens, .. })) => {
                    let usage = Usage::of(prompt_tokens, completion_tokens, reasoning_tokens);
                    (teller.finish(reason, usage), true)
                }
                Err(error) => (vec![teller.fail(&error.into())], true),
            };
            for told in told {
                yield told;
            }
            if ended {
                return;
            }
        }
        yield teller.fail(&ApiError::no_answer());
    }
}

/// The answer so far.
struct Teller {
    envelope: Envelope,
    sequence: u64,
    blocks: Blocks,
    /// Items that are whole.
    done: Vec<Value>,
    open: Option<Item>,
}

impl Teller {
    fn new(envelope: Envelope) -> Self {
        Self { envelope, sequence: 0, blocks: Blocks::default(), done: vec![], open: None }
    }

    fn begin(&mut self) -> Vec<Told> {
        let response = self.envelope.response(State::InProgress, vec![], None);
        ["response.created", "response.in_progress"]
            .map(|name| self.tell(name, json!({"response": response})))
            .into()
    }

    fn push(&mut self, delta: Delta) -> Vec<Told> {
        let steps = self.blocks.push(delta);
        steps.into_iter().flat_map(|step| self.step(step, "completed")).collect()
    }

    fn finish(&mut self, reason: ChatFinish, usage: Usage) -> Vec<Told> {
        let (state, status, name) = match reason {
            ChatFinish::Length => (State::Incomplete, "incomplete", "response.incomplete"),
            ChatFinish::Stop | ChatFinish::ToolCalls => (State::Completed, "completed", "response.completed"),
        };
        let mut steps = self.blocks.finish();
        if steps.is_empty() && self.done.is_empty() {
            // An answer without anything has an empty message.
            steps = vec![Step::Begin(Block::Text), Step::End];
        }
        let mut told: Vec<Told> = steps.into_iter().flat_map(|step| self.step(step, status)).collect();
        let response = self.envelope.response(state, self.done.clone(), Some(usage));
        told.push(self.tell(name, json!({"response": response})));
        told
    }

    /// What is there already stays in the answer.
    fn fail(&mut self, error: &ApiError) -> Told {
        let mut output = self.done.clone();
        output.extend(self.open.take().map(|item| item.json("incomplete")));
        let (status, message) = error.said();
        let code = if status.as_u16() == 429 { "rate_limit_exceeded" } else { "server_error" };
        let response = self.envelope.response(State::Failed { code, message }, output, None);
        self.tell("response.failed", json!({"response": response}))
    }

    /// `status` is that of an item that becomes whole.
    fn step(&mut self, step: Step, status: &str) -> Vec<Told> {
        match step {
            Step::Begin(block) => {
                let item = Item::new(block, String::new());
                let added = json!({"output_index": self.done.len(), "item": item.json("in_progress")});
                let mut told = vec![self.tell("response.output_item.added", added)];
                if let Some(part) = item.part() {
                    let added = self.of_part(&item, &json!({"part": part}));
                    told.push(self.tell("response.content_part.added", added));
                }
                self.open = Some(item);
                told
            }
            Step::More(text) => {
                let Some(mut item) = self.open.take() else { return vec![] };
                item.text += &text;
                let (name, delta) = match item.block {
                    Block::Text => {
                        let delta = self.of_part(&item, &json!({"delta": text, "logprobs": []}));
                        ("response.output_text.delta", delta)
                    }
                    Block::Thinking => {
                        ("response.reasoning_text.delta", self.of_part(&item, &json!({"delta": text})))
                    }
                    Block::Call { .. } => (
                        "response.function_call_arguments.delta",
                        json!({"item_id": item.id, "output_index": self.done.len(), "delta": text}),
                    ),
                };
                self.open = Some(item);
                vec![self.tell(name, delta)]
            }
            Step::End => self.open.take().map(|item| self.end(&item, status)).unwrap_or_default(),
        }
    }

    fn end(&mut self, item: &Item, status: &str) -> Vec<Told> {
        let (name, done) = match &item.block {
            Block::Text => {
                let done = self.of_part(item, &json!({"text": item.text, "logprobs": []}));
                ("response.output_text.done", done)
            }
            Block::Thinking => {
                ("response.reasoning_text.done", self.of_part(item, &json!({"text": item.text})))
            }
            Block::Call { name, .. } => (
                "response.function_call_arguments.done",
                json!({
                    "item_id": item.id, "output_index": self.done.len(),
                    "name": name, "arguments": item.text,
                }),
            ),
        };
        let mut told = vec![self.tell(name, done)];
        if let Some(part) = item.part() {
            let done = self.of_part(item, &json!({"part": part}));
            told.push(self.tell("response.content_part.done", done));
        }
        let whole = item.json(status);
        let done = json!({"output_index": self.done.len(), "item": whole});
        told.push(self.tell("response.output_item.done", done));
        self.done.push(whole);
        told
    }

    /// An object about the only part of the open item.
    fn of_part(&self, item: &Item, more: &Value) -> Value {
        let mut object = json!({"item_id": item.id, "output_index": self.done.len(), "content_index": 0});
        for (name, value) in more.as_object().into_iter().flatten() {
            object[name] = value.clone();
        }
        object
    }

    fn tell(&mut self, name: &'static str, mut object: Value) -> Told {
        object["type"] = name.into();
        object["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        (name, object)
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use serde_json::Map;

    use super::*;
    use crate::{chat::ChatChunk, generation::GenerationError};

    async fn told(script: Vec<Result<ChatEvent, GenerationError>>) -> Vec<Told> {
        let script = script.into_iter().map(|event| event.map(|event| (0, event)));
        events(stream::iter(script).boxed(), Envelope::new("m", Map::new()), 7).collect().await
    }

    fn chunk(delta: Delta) -> Result<ChatEvent, GenerationError> {
        Ok(ChatEvent::Chunk(ChatChunk { delta, ..ChatChunk::default() }))
    }

    fn end(reason: ChatFinish) -> Result<ChatEvent, GenerationError> {
        Ok(ChatEvent::Finished { reason, completion_tokens: 5, reasoning_tokens: 2, stop: None })
    }

    fn names(told: &[Told]) -> Vec<&str> {
        told.iter().map(|(name, _)| name.strip_prefix("response.").expect("of the answer")).collect()
    }

    #[tokio::test]
    async fn thinking_text_and_calls_are_items_in_their_order() {
        let call = Delta::ToolCall { index: 0, id: "call_1".into(), name: "f".into() };
        let told = told(vec![
            chunk(Delta::Reasoning("hm".into())),
            chunk(Delta::Content("a".into())),
            chunk(Delta::Nothing),
            chunk(Delta::Content("b".into())),
            chunk(call),
            chunk(Delta::Arguments { index: 0, text: "{}".into() }),
            end(ChatFinish::ToolCalls),
        ])
        .await;
        let expected = [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ];
        assert_eq!(names(&told), expected);
        for (place, (name, object)) in told.iter().enumerate() {
            assert_eq!(
                (object["sequence_number"].as_u64(), &object["type"]),
                (Some(place as u64), &json!(name))
            );
        }
        let response = &told.last().expect("an end").1["response"];
        assert_eq!(response["output"][1]["content"][0]["text"], "ab");
        assert_eq!(response["output"][2]["arguments"], "{}");
        assert_eq!(response["usage"]["input_tokens"], 7);
        assert_eq!(response["usage"]["output_tokens_details"]["reasoning_tokens"], 2);
        // Deltas name the item that they are of.
        let added = &told[8].1;
        assert_eq!((&told[10].1["item_id"], &told[10].1["output_index"]), (&added["item"]["id"], &json!(1)));
    }

    #[tokio::test]
    async fn there_is_always_one_end() {
        let failed = GenerationError::Internal { message: "x".into() };
        for (script, expected, items) in [
            (vec![end(ChatFinish::Stop)], "response.completed", 1),
            (vec![chunk(Delta::Content("a".into())), end(ChatFinish::Length)], "response.incomplete", 1),
            (vec![chunk(Delta::Content("a".into())), Err(failed.clone())], "response.failed", 1),
            (vec![Err(failed)], "response.failed", 0),
            (vec![], "response.failed", 0),
        ] {
            let told = told(script).await;
            let is_end = |(name, _): &&Told| ["completed", "incomplete", "failed"].contains(&&name[9..]);
            assert_eq!(told.iter().filter(is_end).count(), 1);
            let (name, object) = told.last().expect("an end");
            assert_eq!(*name, expected);
            assert_eq!(object["response"]["output"].as_array().map(Vec::len), Some(items), "{object}");
        }
    }
}
