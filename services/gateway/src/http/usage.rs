//! How many tokens a request took and gave.

use serde_json::{Value, json};

use super::error::ApiError;

/// Tokens that a request took and gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Usage {
    /// Of each prompt once, however many choices it has.
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    /// Those of thinking among them.
    pub(super) reasoning_tokens: u64,
}

impl Usage {
    /// Nothing was generated yet.
    pub(super) fn of_prompts(prompt_tokens: u64) -> Self {
        Self { prompt_tokens, ..Self::default() }
    }

    /// The error that ends a stream, with what was used until then.
    pub(super) fn at_the_break(self, error: &ApiError) -> Value {
        let mut told = error.body_json();
        told["usage"] = self.json();
        told
    }

    pub(super) fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            // Every prompt is computed.
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        })
    }
}
