//! How each dialect writes what went wrong.

use utoipa::ToSchema;

/// As OpenAI's API has it.
#[derive(ToSchema)]
pub(super) struct Failure {
    error: FailureDetails,
}

/// What went wrong.
#[derive(ToSchema)]
struct FailureDetails {
    /// For people.
    message: String,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    r#type: String,
    /// The field that is to blame.
    #[schema(required = true)]
    param: Option<String>,
    /// The cause, by name.
    #[schema(required = true)]
    code: Option<String>,
}

/// As Anthropic's API has it.
#[derive(ToSchema)]
pub(super) struct AnthropicFailure {
    #[schema(pattern = "^error$")]
    r#type: String,
    error: AnthropicFailureDetails,
}

/// What went wrong.
#[derive(ToSchema)]
struct AnthropicFailureDetails {
    /// `invalid_request_error`, `authentication_error` and so on.
    r#type: String,
    /// For people.
    message: String,
}

/// As Ollama has it.
#[derive(ToSchema)]
pub(super) struct OllamaFailure {
    /// For people.
    error: String,
}
