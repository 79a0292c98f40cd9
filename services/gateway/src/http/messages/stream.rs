//! The message as events.

use futures::{Stream, StreamExt};
use serde_json::{Value, json};

use super::answer::{self, Envelope};
use crate::{
    chat::{ChatEvent, ChatEvents},
    http::{
        blocks::{Block, Blocks, Step},
        dialect::Dialect,
        error::ApiError,
    },
};

/// An event with its name.
type Told = (&'static str, Value);

/// Tells what happens in a chat's only choice. A message that is broken off ends with `error`, and without
/// `message_stop`.
pub(super) fn events(
    mut events: ChatEvents,
    envelope: Envelope,
) -> impl Stream<Item = Told> + Send + 'static {
    async_stream::stream! {
        yield tell("message_start", json!({"message": envelope.message(vec![], 0)}));
        yield tell("ping", json!({}));
        let (mut blocks, mut teller) = (Blocks::default(), Teller::default());
        while let Some(event) = events.next().await {
            match event {
                Ok((_, ChatEvent::Chunk(chunk))) => {
                    for step in blocks.push(chunk.delta) {
                        yield teller.step(step);
                    }
                }
                Ok((_, ChatEvent::Finished { reason, completion_tokens, stop, .. })) => {
                    for step in blocks.finish() {
                        yield teller.step(step);
                    }
                    let (reason, sequence) = answer::stop(reason, stop.as_deref());
                    let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
                    let usage = envelope.usage(completion_tokens);
                    yield tell("message_delta", json!({"delta": delta, "usage": usage}));
                    yield tell("message_stop", json!({}));
                    return;
                }
                Err(error) => {
                    yield ("error", ApiError::from(error).body_in(Dialect::Anthropic));
                    return;
                }
            }
        }
        yield ("error", ApiError::no_answer().body_in(Dialect::Anthropic));
    }
}

/// Which block is open.
#[derive(Default)]
struct Teller {
    index: u32,
    open: Option<Block>,
}

impl Teller {
    fn step(&mut self, step: Step) -> Told {
        let index = self.index;
        match step {
            Step::Begin(block) => {
                let begun = match &block {
                    Block::Text => json!({"type": "text", "text": ""}),
                    Block::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
                    Block::Call { id, name } => {
                        json!({"type": "tool_use", "id": id, "name": name, "input": {}})
                    }
                };
                self.open = Some(block);
                tell("content_block_start", json!({"index": index, "content_block": begun}))
            }
            Step::More(text) => {
                let delta = match &self.open {
                    Some(Block::Thinking) => json!({"type": "thinking_delta", "thinking": text}),
                    Some(Block::Call { .. }) => json!({"type": "input_json_delta", "partial_json": text}),
                    Some(Block::Text) | None => json!({"type": "text_delta", "text": text}),
                };
                tell("content_block_delta", json!({"index": index, "delta": delta}))
            }
            Step::End => {
                self.open = None;
                self.index += 1;
                tell("content_block_stop", json!({"index": index}))
            }
        }
    }
}

fn tell(name: &'static str, mut object: Value) -> Told {
    object["type"] = name.into();
    (name, object)
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::{
        chat::{ChatChunk, ChatFinish, Delta},
        generation::GenerationError,
    };

    async fn told(script: Vec<Result<ChatEvent, GenerationError>>) -> Vec<Told> {
        let script = script.into_iter().map(|event| event.map(|event| (0, event)));
        events(stream::iter(script).boxed(), Envelope::new("m", 7)).collect().await
    }

    fn chunk(delta: Delta) -> Result<ChatEvent, GenerationError> {
        Ok(ChatEvent::Chunk(ChatChunk { delta, ..ChatChunk::default() }))
    }

    #[tokio::test]
    async fn blocks_are_told_one_after_the_other() {
        let call = Delta::ToolCall { index: 0, id: "toolu_1".into(), name: "f".into() };
        let told = told(vec![
            chunk(Delta::Reasoning("hm".into())),
            chunk(Delta::Content("a".into())),
            chunk(call),
            chunk(Delta::Arguments { index: 0, text: "{}".into() }),
            Ok(ChatEvent::Finished {
                reason: ChatFinish::ToolCalls,
                completion_tokens: 5,
                reasoning_tokens: 1,
                stop: None,
            }),
        ])
        .await;
        let names: Vec<&str> = told.iter().map(|(name, _)| *name).collect();
        let block = ["content_block_start", "content_block_delta", "content_block_stop"];
        let expected =
            [&["message_start", "ping"][..], &block, &block, &block, &["message_delta", "message_stop"]];
        assert_eq!(names, expected.concat());
        let object = |place: usize| &told[place].1;
        assert_eq!(object(0)["message"]["usage"]["input_tokens"], 7);
        assert_eq!(object(3)["delta"], json!({"type": "thinking_delta", "thinking": "hm"}));
        assert_eq!(object(6)["delta"], json!({"type": "text_delta", "text": "a"}));
        assert_eq!(object(8)["content_block"]["id"], "toolu_1");
        assert_eq!(object(9)["delta"], json!({"type": "input_json_delta", "partial_json": "{}"}));
        assert_eq!(object(9)["index"], 2);
        assert_eq!(object(11)["delta"]["stop_reason"], "tool_use");
        assert_eq!(object(11)["usage"]["output_tokens"], 5);
        assert!(told.iter().all(|(name, object)| object["type"] == **name));
    }

    #[tokio::test]
    async fn the_stop_string_that_ended_it_is_named() {
        let (reason, stop) = (ChatFinish::Stop, Some("END".into()));
        let end = ChatEvent::Finished { reason, completion_tokens: 5, reasoning_tokens: 0, stop };
        let told = told(vec![chunk(Delta::Content("a".into())), Ok(end)]).await;
        let delta = &told[told.len() - 2].1["delta"];
        assert_eq!(*delta, json!({"stop_reason": "stop_sequence", "stop_sequence": "END"}));
    }

    #[tokio::test]
    async fn what_is_broken_off_ends_with_its_error() {
        let failed = GenerationError::Internal { message: "x".into() };
        for script in [vec![Err(failed)], vec![]] {
            let told = told(script).await;
            let (name, object) = told.last().expect("an end");
            assert_eq!((*name, &object["error"]["type"]), ("error", &json!("api_error")));
        }
    }
}
