//! Whose API a path is of.

/// Whose API a path is of: errors are written as its clients read them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// OpenAI's, and all that is this gateway's own.
    OpenAi,
    Anthropic,
    Ollama,
}

impl Dialect {
    /// By the path, as it is meant.
    pub(super) fn of(path: &str) -> Self {
        let under =
            |top: &str| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if under("/v1/messages") {
            Self::Anthropic
        } else if under("/api") {
            Self::Ollama
        } else {
            Self::OpenAi
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_of_who_made_them() {
        for (path, expected) in [
            ("/v1/messages", Dialect::Anthropic),
            ("/v1/messages/count_tokens", Dialect::Anthropic),
            ("/v1/messagesx", Dialect::OpenAi),
            ("/api/chat", Dialect::Ollama),
            ("/apix", Dialect::OpenAi),
            ("/v1/responses", Dialect::OpenAi),
            ("/", Dialect::OpenAi),
        ] {
            assert_eq!(Dialect::of(path), expected, "{path}");
        }
    }
}
