//! The HTTP API in the dialects that clients speak, the live page, the swarm's status, health and metrics.
//!
//! What of OpenAI's API is served and what is refused is written in `docs/openai-api.md`, of the others' in
//! `docs/dialects.md`.

mod api;
mod blocks;
mod busy;
mod chat;
mod completions;
mod config;
mod conversation;
mod cors;
mod dialect;
mod embeddings;
mod error;
mod fields;
mod front;
mod functions;
mod grammar;
mod ignored;
mod kept;
mod logprobs;
mod members;
mod messages;
mod metrics;
mod models;
mod ollama;
mod openapi;
mod page;
mod params;
mod path_times;
mod paths;
mod requests;
mod responses;
mod routes;
mod short;
mod sse;
mod status;
mod texts;
mod tokens;
mod usage;
mod waiting;

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::{HeaderMap, header},
    middleware,
    response::Response,
};

pub use api::Api;
pub use config::ApiConfig;
pub(crate) use error::ApiError;
pub(crate) use front::Front;

use fields::Fields;
use kept::Kept;
use routes::Routes;

use crate::clients::Principal;

/// Holds the longest prompt that any context takes, as JSON.
const MAX_BODY_BYTES: usize = 4 << 20;

impl Api {
    /// All paths, with nothing in front of them.
    fn routes(&self) -> Router {
        let asked = asked().map(|routes| {
            let routes = routes.layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
            let routes = routes.layer(middleware::from_fn(waiting::tell));
            routes.layer(middleware::from_fn_with_state(self.clone(), limit))
        });
        asked
            .merge(shown())
            .router()
            .fallback(error::unknown_path)
            .method_not_allowed_fallback(error::wrong_method)
            .with_state(self.clone())
    }
}

/// What takes a body.
fn asked() -> Routes {
    Routes::default()
        .post("/v1/chat/completions", chat::complete)
        .post("/v1/completions", completions::complete)
        .post("/v1/embeddings", embeddings::embed)
        .post("/v1/responses", responses::create)
        .post("/v1/messages", messages::create)
        .post("/v1/messages/count_tokens", messages::count)
        .post("/tokenize", tokens::tokenize)
        .post("/detokenize", tokens::detokenize)
        .post("/api/chat", ollama::chat)
        .post("/api/generate", ollama::generate)
        .post("/api/embed", ollama::embed)
        .post("/api/embeddings", ollama::embed_one)
        .post("/api/show", ollama::show)
}

/// What only tells.
fn shown() -> Routes {
    Routes::default()
        .get("/", page::show)
        .get("/openapi.json", openapi::show)
        .get("/v1/models", models::list)
        .get("/v1/models/{*id}", models::one)
        .get("/v1/swarm", status::swarm)
        .get("/tokenizer_info", tokens::info)
        .get("/api/tags", ollama::list)
        .get("/api/ps", ollama::running)
        .get("/api/version", ollama::version)
        .get("/version", status::version)
        .get("/healthz", status::healthy)
        .get("/readyz", status::ready)
        // As other servers have it, and those who measure them expect it.
        .get("/health", status::ready)
}

/// Takes the body in, and refuses at once what would be too much to do, and what is more than the client may ask.
async fn limit(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    request: Request,
    next: middleware::Next,
) -> Result<Response, ApiError> {
    // Another body is not read at all.
    if let Some(encoding) = encoding(request.headers()) {
        return Err(ApiError::content_encoding(&encoding));
    }
    if !is_json(request.headers()) {
        return Ok(next.run(request).await);
    }
    let (head, body) = request.into_parts();
    let body = api.bodies.take_in(&head.extensions, body, MAX_BODY_BYTES).await;
    let request = Request::from_parts(head, Body::from(body.map_err(|error| ApiError::body(&error))?));
    let _place = api.requests.take(&principal).ok_or_else(ApiError::too_many_requests)?;
    let in_hand = principal.begin()?;
    // A streamed answer is made while it is read.
    Ok(next.run(request).await.map(|body| Body::new(Kept::new(body, in_hand))))
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = content_type.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

/// How the body is compressed, if it is.
fn encoding(headers: &HeaderMap) -> Option<String> {
    let encoding = headers.get(header::CONTENT_ENCODING)?;
    let encoding = String::from_utf8_lossy(encoding.as_bytes()).trim().to_ascii_lowercase();
    (!encoding.is_empty() && encoding != "identity").then_some(encoding)
}

/// The fields of a JSON body.
impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        // Web pages of others can send anything but this to a gateway in the user's own network.
        if !is_json(request.headers()) {
            return Err(ApiError::content_type());
        }
        // All of it is there.
        let body = Bytes::from_request(request, state).await;
        Self::parse(&body.map_err(|rejection| ApiError::unread(rejection.body_text()))?)
    }
}
