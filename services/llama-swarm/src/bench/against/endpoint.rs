//! A server of OpenAI's API, whoever made it, and what of the API it knows.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::StreamExt;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Coming, message};
use crate::chat::SseParser;

/// A server answers to a connection attempt within this or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What is read of an answer that is not a stream.
const MAX_BODY: usize = 1 << 20;
/// What is told of a refusal that is not OpenAI's.
const MAX_TOLD: usize = 300;

/// Fields that make servers comparable, and the servers that know them; the first set that is not refused is used.
/// `ignore_eos`: an answer is as long as it was asked for. `cache_prompt`: no prompt is taken from a cache.
const EXTRAS: [&[(&str, bool)]; 3] = [
    // llama.cpp.
    &[("ignore_eos", true), ("cache_prompt", false)],
    // Ours, vLLM.
    &[("ignore_eos", true)],
    &[],
];

/// Which of the API answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Api {
    /// `/v1/completions`: the prompt as it is.
    Completions,
    /// `/v1/chat/completions`: the prompt as a user's message.
    Chat,
}

/// A server, by its address.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    http: reqwest::Client,
    url: String,
    /// What helps when it is not there, or asks for a key.
    hints: Hints,
    model: String,
    api: Api,
    extras: &'static [(&'static str, bool)],
}

/// The flags by which the operator names a server and what it asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hints {
    pub address: &'static str,
    pub key: &'static str,
    pub model: &'static str,
}

/// The server's own words about why it does not answer.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    told: String,
}

impl std::error::Error for Refusal {}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it refuses with {}: {}", self.status, self.told)
    }
}

impl Api {
    fn path(self) -> &'static str {
        match self {
            Self::Completions => "/v1/completions",
            Self::Chat => "/v1/chat/completions",
        }
    }
}

impl Endpoint {
    /// The server at `url`, with or without `/v1`. Without `model` it is asked which it has.
    ///
    /// # Errors
    /// When it cannot be reached, refuses, or names no model.
    pub(super) async fn find(
        http: reqwest::ClientBuilder,
        url: &str,
        model: Option<String>,
        hints: Hints,
    ) -> Result<Self> {
        let flag = hints.address;
        ensure!(
            url.starts_with("http://") || url.starts_with("https://"),
            "{url:?} ({flag}) is no address like http://127.0.0.1:8080"
        );
        let url = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let http = http.connect_timeout(CONNECT_TIMEOUT).build()?;
        let (api, extras) = (Api::Completions, EXTRAS[0]);
        let mut endpoint = Self { http, url, hints, model: String::new(), api, extras };
        endpoint.model = match model {
            Some(model) => model,
            None => endpoint.first_model().await.map_err(|error| endpoint.told(error))?,
        };
        Ok(endpoint)
    }

    /// Where it is.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// What it is asked for.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// Finds out with which fields it answers on this API; false when it does not have it.
    ///
    /// # Errors
    /// When it refuses all, or cannot answer.
    pub(super) async fn settle(&mut self, api: Api) -> Result<bool> {
        self.api = api;
        let mut refused = None;
        for extras in EXTRAS {
            self.extras = extras;
            let Err(error) = self.stream("the of and", 2, Instant::now()).await else { return Ok(true) };
            match error.downcast_ref::<Refusal>().map(|refusal| refusal.status) {
                Some(
                    StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED,
                ) if api == Api::Completions => return Ok(false),
                Some(StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY) => refused = Some(error),
                _ => return Err(self.told(error)),
            }
        }
        Err(self.told(refused.unwrap_or_else(|| anyhow!("no set of fields was tried"))))
    }

    /// Streams an answer of so many tokens; times count from `start`.
    ///
    /// # Errors
    /// When the server refuses or breaks off.
    pub(super) async fn ask(&self, prompt: &str, max_tokens: u32, start: Instant) -> Result<Answer> {
        self.stream(prompt, max_tokens, start).await.map_err(|error| self.told(error))
    }

    async fn stream(&self, prompt: &str, max_tokens: u32, start: Instant) -> Result<Answer> {
        let mut coming = Coming::new(start.elapsed());
        let request = self.http.post(format!("{}{}", self.url, self.api.path()));
        let answer = accepted(request.json(&self.body(prompt, max_tokens)).send().await?).await?;
        let (mut bytes, mut parser) = (answer.bytes_stream(), SseParser::default());
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.context("the answer was broken off")?;
            for data in parser.feed(&chunk)? {
                if data == "[DONE]" {
                    return coming.complete();
                }
                coming.on_event(&data, start.elapsed())?;
            }
        }
        bail!("the stream ended before the answer was complete: there was no [DONE]")
    }

    fn body(&self, prompt: &str, max_tokens: u32) -> Value {
        let mut body = json!({
            "model": self.model, "max_tokens": max_tokens, "temperature": 0,
            "stream": true, "stream_options": {"include_usage": true},
        });
        match self.api {
            Api::Completions => body["prompt"] = prompt.into(),
            Api::Chat => body["messages"] = json!([{"role": "user", "content": prompt}]),
        }
        for (field, value) in self.extras {
            body[*field] = (*value).into();
        }
        body
    }

    async fn first_model(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Models {
            data: Vec<Model>,
        }
        #[derive(Deserialize)]
        struct Model {
            id: String,
        }
        let flag = self.hints.model;
        let answer = accepted(self.http.get(format!("{}/v1/models", self.url)).send().await?).await?;
        let list = body(answer).await?;
        let models: Models = serde_json::from_slice(&list)
            .with_context(|| format!("/v1/models is no list of OpenAI's API: name a model by {flag}"))?;
        let first = models.data.into_iter().next();
        Ok(first.with_context(|| format!("it serves no model yet: wait, or name one by {flag}"))?.id)
    }

    /// An error with the server it is of, and what helps.
    fn told(&self, error: anyhow::Error) -> anyhow::Error {
        let (url, Hints { address, key, .. }) = (&self.url, self.hints);
        let unreachable = error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect);
        match error.downcast_ref::<Refusal>().map(|refusal| refusal.status) {
            _ if unreachable => anyhow!("no server answers at {url}: start it or name it by {address}"),
            Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                anyhow!("{url}: {error} (show a key by {key})")
            }
            _ => error.context(url.clone()),
        }
    }
}

/// The answer, if the server does not refuse.
async fn accepted(answer: reqwest::Response) -> Result<reqwest::Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = String::from_utf8_lossy(&body(answer).await.unwrap_or_default()).into_owned();
    let error = serde_json::from_str::<Value>(&text).ok().and_then(|body| body.get("error").map(message));
    Err(Refusal { status, told: error.unwrap_or(text).chars().take(MAX_TOLD).collect() }.into())
}

async fn body(mut answer: reqwest::Response) -> Result<Vec<u8>> {
    let mut read = vec![];
    while let Some(chunk) = answer.chunk().await? {
        ensure!(read.len() + chunk.len() <= MAX_BODY, "it answers with more than {MAX_BODY} bytes");
        read.extend_from_slice(&chunk);
    }
    Ok(read)
}
