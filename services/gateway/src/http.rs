//! OpenAI's HTTP API, the live page, the swarm's status, health and metrics.
//!
//! What of OpenAI's API is served and what is refused is written in `docs/openai-api.md`.

mod api;
mod busy;
mod chat;
mod choices;
mod completions;
mod error;
mod fields;
mod logprobs;
mod metrics;
mod models;
mod page;
mod params;
mod path_times;
mod requests;
mod sse;
mod status;

use std::time::Duration;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::header,
    middleware,
    response::Response,
    routing::{get, post},
};
use tokio::time::timeout;

pub use api::Api;

use error::ApiError;
use fields::Fields;

/// Holds the longest prompt that any context takes, as JSON.
const MAX_BODY_BYTES: usize = 4 << 20;
/// A body that takes longer does not come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
impl Api {
    /// All paths.
    pub fn routes(&self) -> Router {
        let completions = Router::new()
            .route("/v1/chat/completions", post(chat::complete))
            .route("/v1/completions", post(completions::complete))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(middleware::from_fn_with_state(self.clone(), limit));
        Router::new()
            .merge(completions)
            .route("/", get(page::show))
            .route("/v1/models", get(models::list))
            .route("/v1/models/{*id}", get(models::one))
            .route("/v1/swarm", get(status::swarm))
            .route("/healthz", get(status::healthy))
            .route("/readyz", get(status::ready))
            .fallback(error::unknown_path)
            .method_not_allowed_fallback(error::wrong_method)
            .with_state(self.clone())
            .merge(self.registry.routes())
            .layer(middleware::from_fn_with_state(self.clone(), requests::identify))
    }
}

/// Refuses at once what would make too many bodies in memory.
async fn limit(
    State(api): State<Api>,
    request: Request,
    next: middleware::Next,
) -> Result<Response, ApiError> {
    let _place = api.requests.try_acquire().map_err(|_| ApiError::too_many_requests())?;
    Ok(next.run(request).await)
}

/// The fields of a JSON body.
impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = content_type.and_then(|kind| kind.split(';').next()).unwrap_or_default();
        // Web pages of others can send anything but this to a gateway in the user's own network.
        if !kind.trim().eq_ignore_ascii_case("application/json") {
            return Err(ApiError::content_type());
        }
        let body = timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await;
        let body = body.map_err(|_| ApiError::slow_body())?;
        Self::parse(&body.map_err(|rejection| ApiError::body(&rejection, MAX_BODY_BYTES))?)
    }
}
