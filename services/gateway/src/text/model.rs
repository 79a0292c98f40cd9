//! The model that a gateway serves, as far as text goes.

use std::{path::Path, time::SystemTime};

use gguf::{Header, Value};
use swarm_types::{ModelDigest, TokenId, visible};

use super::{ChatTemplate, Message, TemplateError, TextError, Tokenizer};

/// Name, tokenizer and template of a model file.
pub struct ServedModel {
    id: String,
    digest: ModelDigest,
    context_length: u32,
    created: u64,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
}

impl ServedModel {
    /// Reads the header of a model file.
    ///
    /// # Errors
    /// When it has no tokenizer, or one of a kind that is not supported.
    pub fn load(path: &Path) -> Result<Self, TextError> {
        let header = Header::read(path)?;
        let tokenizer = Tokenizer::from_header(&header)?;
        let template = match header.metadata.get("tokenizer.chat_template") {
            Some(Value::String(source)) => {
                Some(ChatTemplate::new(source, tokenizer.begin_text(), tokenizer.end_text())?)
            }
            _ => None,
        };
        let file = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let created = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let context = header.u32(&format!("{}.context_length", header.architecture()?))?;
        Ok(Self {
            id: visible::cleaned(&header.name(&file).replace(char::is_whitespace, "-")).into_owned(),
            digest: ModelDigest(header.digest),
            context_length: context,
            created: created.map_or(0, |age| age.as_secs()),
            tokenizer,
            template,
        })
    }

    /// Its name in the API.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Which file.
    #[must_use]
    pub fn digest(&self) -> ModelDigest {
        self.digest
    }

    /// Tokens that prompt and answer may have together.
    #[must_use]
    pub fn context_length(&self) -> u32 {
        self.context_length
    }

    /// When the file was made, in seconds since the Unix epoch.
    #[must_use]
    pub fn created(&self) -> u64 {
        self.created
    }

    /// Text to tokens and back.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The conversation as text.
    ///
    /// # Errors
    /// When the model has no template, or it refuses the messages.
    pub fn render(&self, messages: &[Message]) -> Result<String, TemplateError> {
        self.template.as_ref().ok_or(TemplateError::Missing)?.render(messages)
    }

    /// The tokens of a conversation.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<TokenId>, TextError> {
        self.tokenizer.encode(&self.render(messages)?)
    }
}
