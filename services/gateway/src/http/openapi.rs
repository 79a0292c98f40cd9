//! `GET /openapi.json`: what the API takes and answers, for machines.
//!
//! The handlers take fields one by one, so the types here are only for the document. Tests hold it against the routes
//! and against what is really answered.

// They are never made, only described.
#[allow(dead_code)]
mod anthropic;
mod describe;
#[allow(dead_code)]
mod failures;
#[allow(dead_code)]
mod ollama;
#[allow(dead_code)]
mod openai;
#[allow(dead_code)]
mod openai_chat;
#[allow(dead_code)]
mod own;
#[allow(dead_code)]
mod responses;
#[allow(dead_code)]
mod sampling;
#[allow(dead_code)]
mod tokens;

use std::sync::LazyLock;

use axum::{
    http::{HeaderName, header},
    response::IntoResponse,
};
use utoipa::openapi::OpenApi;

/// It does not change while the process lives.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| serde_json::to_string(&document()).unwrap_or_default());

/// The document.
pub(super) async fn show() -> impl IntoResponse {
    let kind: (HeaderName, &str) = (header::CONTENT_TYPE, "application/json");
    ([kind], DOCUMENT.as_str())
}

fn document() -> OpenApi {
    let all = [
        openai_chat::operations(),
        openai::operations(),
        responses::operations(),
        anthropic::operations(),
        tokens::operations(),
        ollama::operations(),
        own::operations(),
    ];
    describe::document(all.into_iter().flatten())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use tests::misfits;
