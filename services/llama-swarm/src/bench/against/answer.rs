//! One streamed answer of a server of OpenAI's API: when its text came, and how many tokens it says it was.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// How one request was answered. Times count from the start of the measurement's step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    /// Request sent.
    pub sent: Duration,
    /// Each piece of text came. A piece is a token as a rule, but not always: half of a character waits for the rest.
    pub pieces: Vec<Duration>,
    /// The last event came.
    pub ended: Duration,
    /// Tokens of the prompt, by the server's own count.
    pub prompt_tokens: u32,
    /// Tokens of the prompt that it did not have to compute again, if it says so.
    pub cached_tokens: u32,
    /// Tokens of the answer.
    pub completion_tokens: u32,
}

/// An answer while it comes.
#[derive(Debug)]
pub(super) struct Coming {
    answer: Answer,
    usage: Option<Usage>,
}

/// What one event of the stream says.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    /// Of a completion.
    text: Option<String>,
    /// Of a chat.
    delta: Option<Delta>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    /// What some servers send of a model that thinks aloud: tokens like others.
    reasoning_content: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    prompt_tokens_details: Option<Details>,
}

#[derive(Clone, Debug, Deserialize)]
struct Details {
    cached_tokens: Option<u32>,
}

impl Coming {
    /// Nothing has come yet.
    pub(super) fn new(sent: Duration) -> Self {
        Self { answer: Answer { sent, ..Answer::default() }, usage: None }
    }

    /// An event's data came.
    ///
    /// # Errors
    /// When it tells of an error, or is not OpenAI's API.
    pub(super) fn on_event(&mut self, data: &str, at: Duration) -> Result<()> {
        let event: Event =
            serde_json::from_str(data).context("an event of the stream is not OpenAI's API")?;
        if let Some(error) = event.error {
            bail!("the answer was broken off: {}", message(&error));
        }
        if event.choices.iter().any(Choice::has_text) {
            self.answer.pieces.push(at);
        }
        self.usage = event.usage.or(self.usage.take());
        self.answer.ended = at;
        Ok(())
    }

    /// The stream has come to its end.
    ///
    /// # Errors
    /// When it did not tell how many tokens it was.
    pub(super) fn complete(self) -> Result<Answer> {
        let usage = self.usage.context(
            "the stream did not end with usage, so its tokens are not known: the server must know \
             stream_options.include_usage",
        )?;
        let cached = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
        Ok(Answer {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: cached.unwrap_or(0),
            ..self.answer
        })
    }
}

impl Choice {
    fn has_text(&self) -> bool {
        let delta = self.delta.as_ref().map(|delta| [&delta.content, &delta.reasoning_content]);
        let mut texts = delta.into_iter().flatten().chain([&self.text]).flatten();
        texts.any(|text| !text.is_empty())
    }
}

impl Answer {
    /// When its first token came; without any text, when it ended.
    pub(super) fn first_token(&self) -> Duration {
        self.pieces.first().copied().unwrap_or(self.ended)
    }
}

/// What an `error` says: servers write it as an object with a message, or as a text.
pub(super) fn message(error: &Value) -> String {
    match error.get("message").unwrap_or(error) {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(events: &[&str]) -> Result<Answer> {
        let mut coming = Coming::new(Duration::from_millis(1));
        for (number, data) in events.iter().enumerate() {
            coming.on_event(data, Duration::from_millis(10 * (number as u64 + 1)))?;
        }
        coming.complete()
    }

    const ROLE: &str = r#"{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}"#;
    const CHAT: &str = r#"{"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}]}"#;
    const TEXT: &str = r#"{"choices": [{"index": 0, "text": "Hi", "logprobs": null}], "usage": null}"#;
    const END: &str = r#"{"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}"#;
    const USAGE: &str = r#"{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 4}}}"#;

    #[test]
    fn chats_and_completions_are_read_alike() {
        let millis = |times: &[u64]| times.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        let completion = read(&[TEXT, TEXT, END, USAGE]).expect("complete");
        assert_eq!((completion.pieces, completion.ended), (millis(&[10, 20]), Duration::from_millis(40)));
        let chat = read(&[ROLE, CHAT, CHAT, USAGE]).expect("complete");
        assert_eq!(chat.first_token(), Duration::from_millis(20));
        assert_eq!((chat.prompt_tokens, chat.completion_tokens, chat.cached_tokens), (7, 3, 4));
        assert_eq!(read(&[END, USAGE]).expect("complete").first_token(), Duration::from_millis(20));
    }

    #[test]
    fn what_is_no_answer_says_why() {
        let told = |events: &[&str]| read(events).expect_err("no answer").to_string();
        assert!(told(&[TEXT, r#"{"error": {"message": "worker lost"}}"#]).contains("worker lost"));
        assert!(told(&[TEXT, r#"{"error": "out of memory"}"#]).contains("out of memory"));
        assert!(told(&[TEXT, END]).contains("stream_options.include_usage"));
        assert!(told(&["[1, 2]"]).contains("not OpenAI's API"));
    }
}
