//! The one mapping of what fails to HTTP, and how each dialect writes it.

use axum::{
    Json,
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use swarm_process::bodies::BodyError;

use super::{dialect::Dialect, short::short};
use crate::{
    clients::{Denied, whole_seconds},
    completion::StartError,
    generation::GenerationError,
    record,
};

/// A worker that failed is replaced within seconds.
const RETRY_AFTER_FAILURE: u64 = 1;

/// An answer that is not the one that was asked for.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    /// OpenAI's name of the kind of error.
    kind: &'static str,
    code: Option<&'static str>,
    /// The field of the request that is to blame.
    param: Option<String>,
    message: String,
    /// Seconds.
    retry_after: Option<u64>,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code: None, param: None, message: message.into(), retry_after: None }
    }

    fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// A field that is wrong.
    pub(super) fn invalid(param: &str, message: impl std::fmt::Display) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, INVALID, format!("{param}: {message}"));
        Self { param: Some(param.into()), ..error }.with_code("invalid_value")
    }

    /// The same for a message that names the field by itself.
    pub(super) fn invalid_as_said(param: &str, message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), ..Self::invalid(param, "") }
    }

    /// A field that is not served and would change the result.
    pub(super) fn unsupported(param: &str, message: impl std::fmt::Display) -> Self {
        Self::invalid(param, message).with_code("unsupported_parameter")
    }

    /// A field that nobody knows.
    pub(super) fn unknown(param: &str) -> Self {
        Self::invalid(&short(param), "unknown field: check its spelling, or leave it out")
            .with_code("unknown_parameter")
    }

    /// A body that is not JSON, or not an object.
    pub(super) fn not_json(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, format!("the body must be a JSON object: {message}"))
            .with_code("invalid_json")
    }

    pub(super) fn model_not_found(asked: &str, served: &str) -> Self {
        let message = format!("model: {:?} is not served here, {served:?} is", short(asked));
        let error = Self::new(StatusCode::NOT_FOUND, INVALID, message);
        Self { param: Some("model".into()), ..error }.with_code("model_not_found")
    }

    /// A body that is compressed.
    pub(super) fn content_encoding(encoding: &str) -> Self {
        let encoding: String = encoding.chars().take(32).collect();
        let message = format!("content-encoding {encoding:?} is not understood: send the body as it is");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, message).with_code("unsupported_encoding")
    }

    pub(super) fn content_type() -> Self {
        let message = "the body must be JSON: send the header content-type: application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, message).with_code("unsupported_media_type")
    }

    /// A body that did not come whole.
    pub(super) fn body(error: &BodyError) -> Self {
        let refused = |status| Self::new(status, INVALID, error.to_string());
        match error {
            BodyError::TooLarge { limit } => {
                let message = format!("the body is larger than {} MiB: no prompt that fits is", limit >> 20);
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, message).with_code("body_too_large")
            }
            BodyError::TooSlow => refused(StatusCode::REQUEST_TIMEOUT).with_code("body_too_slow"),
            BodyError::Crowded(_) => Self::too_many_requests(),
            BodyError::Packed(_) | BodyError::Broken(_) => refused(StatusCode::BAD_REQUEST),
        }
    }

    /// A generation that ended without saying so.
    pub(super) fn no_answer() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, "the generation ended before its end")
            .with_code("internal_error")
    }

    pub(super) fn unread(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, message)
    }

    pub(super) fn too_many_requests() -> Self {
        let message = "too many requests at once, try again later";
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { retry_after: Some(RETRY_AFTER_FAILURE), ..error }.with_code("rate_limit_exceeded")
    }

    /// The same, where the request has another name for the field.
    pub(super) fn about(self, field: &str, named: &str) -> Self {
        if self.param.as_deref() != Some(field) {
            return self;
        }
        // Most messages begin with it.
        let message = match self.message.strip_prefix(field) {
            Some(rest) if rest.starts_with([':', ' ']) => format!("{named}{rest}"),
            // That of a prompt which is too long speaks of it twice.
            _ => self.message.replace(&format!("the {field}"), &format!("the {named}")),
        };
        Self { param: Some(named.into()), message, ..self }
    }

    /// The same, where the field stands inside of another.
    pub(super) fn within(self, outer: &str) -> Self {
        match self.param.clone() {
            Some(field) => self.about(&field, &format!("{outer}.{field}")),
            None => self,
        }
    }

    /// OpenAI's form: `{"error": {…}}`.
    pub(super) fn body_json(&self) -> Value {
        self.body_in(Dialect::OpenAi)
    }

    /// As the clients of this dialect read it. Only OpenAI's has members for code and field; in the others the message
    /// names the field.
    pub(super) fn body_in(&self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::OpenAi => json!({"error": {
                "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
            }}),
            Dialect::Anthropic => json!({"type": "error", "error": {
                "type": self.anthropic_kind(), "message": self.message,
            }}),
            Dialect::Ollama => json!({"error": self.message}),
        }
    }

    /// <https://docs.claude.com/en/api/errors>; the names of those that it does not have are of the same class.
    fn anthropic_kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            504 => "timeout_error",
            500.. => "api_error",
            _ => INVALID,
        }
    }

    /// The status and what is wrong in a few words, where a stream that has begun tells of it.
    pub(super) fn said(&self) -> (StatusCode, &str) {
        (self.status, &self.message)
    }
}

impl From<GenerationError> for ApiError {
    fn from(error: GenerationError) -> Self {
        let message = error.to_string();
        let server = |status| Self::new(status, SERVER, message.clone());
        match error {
            GenerationError::Invalid { field, .. } => {
                let error = Self::new(StatusCode::BAD_REQUEST, INVALID, message);
                Self { param: Some(field), ..error }.with_code("invalid_value")
            }
            GenerationError::ContextLength { field, .. } => {
                let error = Self::new(StatusCode::BAD_REQUEST, INVALID, message);
                Self { param: Some(field.into()), ..error }.with_code("context_length_exceeded")
            }
            GenerationError::Full { retry_after } => {
                let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
                Self { retry_after: Some(whole_seconds(retry_after)), ..error }
                    .with_code("rate_limit_exceeded")
            }
            GenerationError::NotReady { retry_after, .. } => {
                let error = server(StatusCode::SERVICE_UNAVAILABLE).with_code("swarm_not_ready");
                Self { retry_after: Some(whole_seconds(retry_after)), ..error }
            }
            GenerationError::HopFailed { .. } => {
                let error = server(StatusCode::SERVICE_UNAVAILABLE).with_code("hop_failed");
                Self { retry_after: Some(RETRY_AFTER_FAILURE), ..error }
            }
            GenerationError::Timeout { .. } => server(StatusCode::GATEWAY_TIMEOUT).with_code("timeout"),
            GenerationError::Internal { .. } => {
                server(StatusCode::INTERNAL_SERVER_ERROR).with_code("internal_error")
            }
        }
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let message = denied.to_string();
        match denied {
            Denied::NoKey | Denied::UnknownKey => {
                Self::new(StatusCode::UNAUTHORIZED, INVALID, message).with_code("invalid_api_key")
            }
            Denied::Model { .. } => {
                let error = Self::new(StatusCode::FORBIDDEN, INVALID, message);
                Self { param: Some("model".into()), ..error }.with_code("model_not_allowed")
            }
            Denied::Host { .. } => {
                Self::new(StatusCode::FORBIDDEN, INVALID, message).with_code("host_not_allowed")
            }
            Denied::TooMany { retry_after, .. } => {
                let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
                Self { retry_after: Some(whole_seconds(retry_after)), ..error }
                    .with_code("rate_limit_exceeded")
            }
        }
    }
}

impl From<StartError> for ApiError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Denied(denied) => denied.into(),
            StartError::Generation(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body_json())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // For `in_dialect`.
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes errors as the clients of the path read them, wherever they come from.
pub(super) async fn in_dialect(request: Request, next: Next) -> Response {
    let dialect = Dialect::of(request.uri().path());
    let mut response = next.run(request).await;
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    record::refused(error.code.unwrap_or(error.kind));
    if dialect == Dialect::OpenAi {
        return response;
    }
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.map(|_| Body::from(error.body_in(dialect).to_string()))
}

/// Whatever is asked before the model's header is here.
pub(super) async fn no_model() -> ApiError {
    GenerationError::no_model().into()
}

pub(super) async fn unknown_path(uri: Uri) -> ApiError {
    let message = format!("there is no {}: GET /openapi.json tells what there is", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, INVALID, message).with_code("unknown_url")
}

/// Who only asks which methods there are is told; the router adds them as `Allow`.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let message = format!("{} does not take {method}", uri.path());
    let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, message);
    error.with_code("method_not_allowed").into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clients::Limit;

    #[test]
    fn each_failure_has_its_status_and_says_when_to_try_again() {
        let answer = |error: GenerationError| {
            let response = ApiError::from(error).into_response();
            let retry =
                response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
            (response.status().as_u16(), retry)
        };
        let (message, worker) = (String::from("m"), "12D3KooWa".parse().unwrap());
        let full = GenerationError::Full { retry_after: Duration::from_millis(10) };
        assert_eq!(answer(full), (429, Some("1".into())));
        let retry_after = Duration::from_millis(2100);
        let not_ready = GenerationError::NotReady { reason: "r".into(), retry_after };
        assert_eq!(answer(not_ready), (503, Some("3".into())));
        assert_eq!(
            answer(GenerationError::HopFailed { worker, message: message.clone() }),
            (503, Some("1".into()))
        );
        let late = GenerationError::Timeout { waited: Duration::from_secs(1), message: message.clone() };
        assert_eq!(answer(late), (504, None));
        assert_eq!(answer(GenerationError::Internal { message }), (500, None));
    }

    #[test]
    fn whoever_is_denied_is_told_why_and_when_to_come_again() {
        let answer = |denied: Denied| {
            let error = ApiError::from(denied);
            (error.status.as_u16(), error.code.unwrap_or_default(), error.retry_after)
        };
        let (client, model) = (String::from("alice"), String::from("m"));
        assert_eq!(answer(Denied::NoKey), (401, "invalid_api_key", None));
        assert_eq!(answer(Denied::UnknownKey), (401, "invalid_api_key", None));
        assert_eq!(answer(Denied::Model { client: client.clone(), model }), (403, "model_not_allowed", None));
        assert_eq!(answer(Denied::Host { host: "h".into() }), (403, "host_not_allowed", None));
        let (limit, retry_after) = (Limit::Tokens, Duration::from_millis(2100));
        let late = Denied::TooMany { client, limit, retry_after };
        assert_eq!(answer(late), (429, "rate_limit_exceeded", Some(3)));
    }

    #[test]
    fn a_wrong_field_is_named_as_openai_names_it() {
        let invalid = GenerationError::invalid("temperature", "too hot");
        let body = ApiError::from(invalid).body_json();
        assert_eq!(body["error"]["param"], "temperature");
        assert_eq!(body["error"]["type"], INVALID);
        assert_eq!(body["error"]["message"], "temperature: too hot");
    }
}
