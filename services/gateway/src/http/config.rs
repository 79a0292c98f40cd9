//! The flags that say how strictly requests are taken, by which names, and how calls of functions are read.

use std::{io, path::PathBuf};

use clap::Args;

use crate::{
    chat::ToolFormat,
    text::{TextOptions, UserSpecialTokens},
};

/// How requests are taken.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "API")]
pub struct ApiConfig {
    /// Names by which clients ask for the model; the first is the one that is shown. Without it: what people call it,
    /// where that is known, and what its file does.
    #[arg(long, env = "LLAMA_SWARM_SERVED_MODEL_NAME", value_name = "NAME", value_delimiter = ',', value_parser = name)]
    pub served_model_name: Vec<String>,

    /// Answer also who asks for another model.
    #[arg(long, env = "LLAMA_SWARM_ALLOW_ANY_MODEL")]
    pub allow_any_model: bool,

    /// Refuse requests with fields that are not known here, with 400, instead of ignoring and naming them.
    #[arg(long, env = "LLAMA_SWARM_STRICT_FIELDS")]
    pub strict_fields: bool,

    /// Refuse who asks for more tokens than the context has room for, with 400, instead of answering with fewer.
    #[arg(long, env = "LLAMA_SWARM_STRICT_CONTEXT")]
    pub strict_context: bool,

    /// The form in which the model writes calls of functions. Without it: the one that its chat template shows.
    #[arg(long, env = "LLAMA_SWARM_TOOL_FORMAT", value_name = "FORMAT")]
    pub tool_format: Option<ToolFormat>,

    /// A file with a chat template (Jinja) that is used instead of the model's own.
    #[arg(long, env = "LLAMA_SWARM_CHAT_TEMPLATE", value_name = "FILE")]
    pub chat_template: Option<PathBuf>,

    /// What names of special tokens, such as `<|im_end|>`, are in the messages of a conversation. `/v1/completions`
    /// reads them as special tokens, whatever is said here.
    #[arg(long, env = "LLAMA_SWARM_USER_SPECIAL_TOKENS", value_enum, default_value_t)]
    pub user_special_tokens: UserSpecialTokens,
}

impl ApiConfig {
    /// What is said of the model's text otherwise than by its file.
    ///
    /// # Errors
    /// When the chat template cannot be read.
    pub(crate) fn text_options(&self) -> io::Result<TextOptions> {
        let read = |path: &PathBuf| {
            let failed = |error| io::Error::other(format!("--chat-template {}: {error}", path.display()));
            std::fs::read_to_string(path).map_err(failed)
        };
        let chat_template = self.chat_template.as_ref().map(read).transpose()?;
        Ok(TextOptions { chat_template, user_special_tokens: self.user_special_tokens })
    }
}

/// Longer names fit no table.
const LONGEST_NAME: usize = 256;

fn name(text: &str) -> Result<String, String> {
    let plain = text.chars().all(|c| !c.is_control() && !c.is_whitespace());
    match !text.is_empty() && text.len() <= LONGEST_NAME && plain {
        true => Ok(text.into()),
        false => Err(format!("must be a name of at most {LONGEST_NAME} bytes without blanks")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_words() {
        assert_eq!(name("gpt-4o-mini"), Ok("gpt-4o-mini".into()));
        assert!(["", "a b", "a\n", &"x".repeat(300)].into_iter().all(|wrong| name(wrong).is_err()));
    }
}
