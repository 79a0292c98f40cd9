//! A client of the gateway's chat API that streams answers.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_types::visible;

use super::sse::SseParser;
use crate::credentials::{Credentials, KEY_FIX};

/// A gateway on the network answers to a connection attempt within this or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A long prompt on a busy swarm may take minutes to its first token; longer silence is a fault.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(300);

/// Requests for one answer, where the gateway says when to come again.
const TRIES: u32 = 4;
/// Nobody waits longer than this without being asked.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Message {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What was said.
    pub content: String,
}

/// How to answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AnswerOptions {
    /// Absent: as many as the context holds.
    pub max_tokens: Option<u32>,
    /// Absent: the gateway's default.
    pub temperature: Option<f32>,
}

/// How an answer came about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
    /// From the request to the first text; absent when there was none.
    pub first_token: Option<Duration>,
    /// From the first text to the end.
    pub decoding: Duration,
    /// `stop` or `length`.
    pub finish_reason: String,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} prompt tokens, {} generated", self.prompt_tokens, self.completion_tokens)?;
        if let Some(first_token) = self.first_token {
            write!(f, ", first after {:.2} s", first_token.as_secs_f64())?;
        }
        // The first token is not decoded but falls out of the prompt.
        let decoded = self.completion_tokens.saturating_sub(1);
        if decoded > 0 && !self.decoding.is_zero() {
            write!(f, ", then {:.1} tokens/s", f64::from(decoded) / self.decoding.as_secs_f64())?;
        }
        if self.finish_reason == "length" {
            f.write_str(" (cut off at --max-tokens or the end of the context)")?;
        }
        Ok(())
    }
}

/// What one event of the stream says.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct Delta {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
}

#[derive(Deserialize)]
struct ApiError {
    message: String,
}

/// A gateway, by its address.
#[derive(Clone, Debug)]
pub(crate) struct ChatClient {
    http: reqwest::Client,
    url: String,
}

impl ChatClient {
    /// A client of the gateway at `url`, for example `http://127.0.0.1:8080`, that shows `credentials`. Connects on the
    /// first request.
    ///
    /// # Errors
    /// When the credentials are none, or the HTTP client cannot be made.
    pub(crate) fn new(url: &str, credentials: &Credentials) -> Result<Self> {
        let http =
            credentials.http()?.connect_timeout(CONNECT_TIMEOUT).read_timeout(SILENCE_TIMEOUT).build()?;
        let url = url.trim_end_matches('/').trim_end_matches("/v1");
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        Ok(Self { http, url })
    }

    /// Streams the answer to a conversation; `on_text` gets each piece as it arrives. Dropping the future stops the
    /// generation.
    ///
    /// # Errors
    /// When the gateway cannot be reached, refuses, or breaks off: the text so far is then not an answer.
    pub(crate) async fn answer(
        &self,
        messages: &[Message],
        options: AnswerOptions,
        mut on_text: impl FnMut(&str),
    ) -> Result<Summary> {
        let sent = Instant::now();
        let mut bytes = self.request(messages, options).await?.bytes_stream();
        let (mut parser, mut answer) = (SseParser::default(), AnswerSoFar::new(sent));
        while let Some(chunk) = bytes.next().await {
            for data in parser.feed(&chunk.context("the gateway broke off the answer")?)? {
                if data == "[DONE]" {
                    return answer.finish();
                }
                answer.on_event(&data, &mut on_text)?;
            }
        }
        bail!("the gateway ended the stream before the answer was complete")
    }

    async fn request(&self, messages: &[Message], options: AnswerOptions) -> Result<reqwest::Response> {
        let mut body =
            json!({"messages": messages, "stream": true, "stream_options": {"include_usage": true}});
        if let Some(max_tokens) = options.max_tokens {
            body["max_tokens"] = max_tokens.into();
        }
        if let Some(temperature) = options.temperature {
            body["temperature"] = f64::from(temperature).into();
        }
        let mut tried = 0;
        loop {
            let answer = self.send(&body).await?;
            if answer.status().is_success() {
                return Ok(answer);
            }
            tried += 1;
            let pause = pause_of(&answer).filter(|_| tried < TRIES);
            let refusal = refusal(answer).await;
            let Some(pause) = pause else { return Err(refusal) };
            let refusal = refusal.to_string();
            eprintln!("{}; asking again in {} s", visible::one_line(&refusal), pause.as_secs());
            tokio::time::sleep(pause).await;
        }
    }

    async fn send(&self, body: &serde_json::Value) -> Result<reqwest::Response> {
        let request = self.http.post(format!("{}/v1/chat/completions", self.url)).json(body);
        request.send().await.map_err(|error| match error.is_connect() {
            true => anyhow!(
                "no gateway answers at {}: start one (`llama-swarm up`) or name it with --url",
                self.url
            ),
            false => anyhow!(error).context("the gateway did not answer"),
        })
    }
}

/// How long to wait before asking again, if the gateway says so and it is not too long.
fn pause_of(answer: &reqwest::Response) -> Option<Duration> {
    let seconds = answer.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds)).filter(|pause| *pause <= LONGEST_PAUSE)
}

/// The gateway's own words about why it refuses.
async fn refusal(answer: reqwest::Response) -> anyhow::Error {
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    let message = match serde_json::from_str::<Event>(&body) {
        Ok(Event { error: Some(error), .. }) => error.message,
        _ => body.chars().take(500).collect(),
    };
    let fix =
        if status == reqwest::StatusCode::UNAUTHORIZED { format!(" ({KEY_FIX})") } else { String::new() };
    anyhow!("the gateway refuses with {status}: {message}{fix}")
}

/// What has arrived of an answer.
struct AnswerSoFar {
    sent: Instant,
    first_text: Option<Instant>,
    finish_reason: Option<String>,
    usage: Option<Usage>,
}

impl AnswerSoFar {
    fn new(sent: Instant) -> Self {
        Self { sent, first_text: None, finish_reason: None, usage: None }
    }

    fn on_event(&mut self, data: &str, on_text: &mut impl FnMut(&str)) -> Result<()> {
        let event: Event =
            serde_json::from_str(data).context("the gateway sent an event that is not its API")?;
        if let Some(error) = event.error {
            bail!("the gateway broke off the answer: {}", error.message);
        }
        for choice in event.choices {
            if let Some(text) = choice.delta.content.filter(|text| !text.is_empty()) {
                self.first_text.get_or_insert_with(Instant::now);
                on_text(&text);
            }
            self.finish_reason = choice.finish_reason.or(self.finish_reason.take());
        }
        self.usage = event.usage.or(self.usage.take());
        Ok(())
    }

    fn finish(self) -> Result<Summary> {
        let usage = self.usage.context("the gateway did not say how many tokens it used")?;
        Ok(Summary {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            first_token: self.first_text.map(|first| first - self.sent),
            decoding: self.first_text.map(|first| first.elapsed()).unwrap_or_default(),
            finish_reason: self.finish_reason.context("the gateway did not say why the answer ended")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(events: &[&str]) -> Result<(String, Summary)> {
        let (mut text, mut answer) = (String::new(), AnswerSoFar::new(Instant::now()));
        for event in events {
            answer.on_event(event, &mut |piece| text.push_str(piece))?;
        }
        Ok((text, answer.finish()?))
    }

    const ROLE: &str =
        r#"{"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": null}]}"#;
    const TEXT: &str = r#"{"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}]}"#;
    const END: &str = r#"{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}"#;
    const USAGE: &str = r#"{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}"#;

    #[test]
    fn an_answer_is_its_texts_and_its_usage() {
        let (text, summary) = answer(&[ROLE, TEXT, TEXT, END, USAGE]).expect("complete");
        assert_eq!((text.as_str(), summary.completion_tokens), ("HiHi", 2));
        assert_eq!(summary.finish_reason, "stop");
    }

    #[test]
    fn an_error_in_the_middle_or_a_missing_end_is_not_an_answer() {
        let error = answer(&[TEXT, r#"{"error": {"message": "worker lost", "code": null}}"#]);
        assert!(error.expect_err("broken").to_string().contains("worker lost"));
        assert!(answer(&[TEXT, USAGE]).is_err());
    }
}
