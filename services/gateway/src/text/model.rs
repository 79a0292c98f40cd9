//! The model that a gateway serves, as far as text goes.

use std::{collections::BTreeMap, path::Path, time::SystemTime};

use gguf::Header;
use grammar::Grammars;
use swarm_types::{ModelDigest, TokenId, visible};

use super::{
    TextError,
    template::{Chat, ChatTemplate, TOOLS, TemplateError},
    tokenizer::Tokenizer,
};

/// What people call models whose files call themselves otherwise, by digest.
const KNOWN: [(&str, &str); 1] =
    [("0d7280a74fd0838b2142d6861e407319946f843e13dc755a74a720efdbbf32a9", "SmolLM2-135M-Instruct")];

/// What a model file is, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelFacts {
    /// As the file names it: `llama`.
    pub architecture: String,
    /// Of the whole file.
    pub bytes: u64,
    /// Weights.
    pub parameters: u64,
    /// Numbers of a hidden state.
    pub hidden: u32,
    /// How most of its bytes are stored: `Q4_K`.
    pub stored_as: String,
    /// The chat template's source.
    pub template: Option<String>,
}

/// Names, tokenizer and template of a model file.
pub struct ServedModel {
    /// At least one; the first is shown.
    names: Vec<String>,
    digest: ModelDigest,
    context_length: u32,
    created: u64,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    facts: ModelFacts,
    grammars: Grammars,
    /// For conversations with tools, where that is another.
    tool_template: Option<ChatTemplate>,
}

impl ServedModel {
    /// Reads the header of a model file.
    ///
    /// # Errors
    /// When it has no tokenizer, or one of a kind that is not supported.
    pub fn load(path: &Path, digest: ModelDigest) -> Result<Self, TextError> {
        let header = Header::read(path)?;
        let tokenizer = Tokenizer::from_header(&header)?;
        let template = template(&header, &tokenizer, "tokenizer.chat_template")?;
        // Who does not ask for tools is served without.
        let tool_template = self::template(&header, &tokenizer, "tokenizer.chat_template.tool_use");
        let tool_template = tool_template.unwrap_or_else(|error| {
            tracing::warn!(%error, "the model's chat template for tools is not used");
            None
        });
        let file = gguf::name_of_file(path);
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let created = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let context = header.u32(&format!("{}.context_length", header.architecture()?))?;
        let own = visible::cleaned(&header.name(&file).replace(char::is_whitespace, "-")).into_owned();
        let known = KNOWN.iter().find(|(known, _)| *known == digest.to_string());
        let names = known.map(|(_, name)| (*name).to_owned()).into_iter().chain([own]).collect();
        Ok(Self {
            names,
            digest,
            context_length: context,
            created: created.map_or(0, |age| age.as_secs()),
            tokenizer,
            template,
            facts: facts(&header)?,
            grammars: Grammars::new(path.to_owned()),
            tool_template,
        })
    }

    /// Of whatever digest.
    #[cfg(test)]
    pub(crate) fn for_tests(path: &Path) -> Self {
        Self::load(path, ModelDigest([7; 32])).expect("a model")
    }

    /// The same under these names, if there are some, instead of what people and its file call it.
    #[must_use]
    pub fn named(self, names: Vec<String>) -> Self {
        if names.is_empty() { self } else { Self { names, ..self } }
    }

    /// Its name in the API.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.names[0]
    }

    /// All names by which it may be asked for, the shown one first.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether this is one of its names.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
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

    /// What the file is, for people.
    #[must_use]
    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// Text to tokens and back.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Grammars over its tokens.
    #[must_use]
    pub fn grammars(&self) -> &Grammars {
        &self.grammars
    }

    /// The conversation as text.
    ///
    /// # Errors
    /// When the model has no template, or it refuses the messages.
    pub fn render(&self, chat: &Chat) -> Result<String, TemplateError> {
        let has_tools = chat.variables.get(TOOLS).is_some_and(|tools| !tools.is_null());
        self.template(has_tools).ok_or(TemplateError::Missing)?.render(chat)
    }

    /// The template of conversations with or without tools.
    #[must_use]
    pub fn template(&self, has_tools: bool) -> Option<&ChatTemplate> {
        self.tool_template.as_ref().filter(|_| has_tools).or(self.template.as_ref())
    }

    /// The tokens of a conversation.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn encode_chat(&self, chat: &Chat) -> Result<Vec<TokenId>, TextError> {
        self.tokenizer.encode(&self.render(chat)?)
    }
}

fn template(header: &Header, tokenizer: &Tokenizer, key: &str) -> Result<Option<ChatTemplate>, TextError> {
    let source = header.opt_str(key)?;
    let template =
        source.map(|source| ChatTemplate::new(source, tokenizer.begin_text(), tokenizer.end_text()));
    Ok(template.transpose()?)
}

fn facts(header: &Header) -> Result<ModelFacts, TextError> {
    let mut stored: BTreeMap<String, u64> = BTreeMap::new();
    for tensor in header.tensors.values() {
        *stored.entry(format!("{:?}", tensor.dtype)).or_default() += tensor.bytes;
    }
    let most = stored.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(dtype, _)| dtype);
    let template = header.metadata.get("tokenizer.chat_template");
    let weights = |shape: &[u64]| shape.iter().fold(1u64, |weights, side| weights.saturating_mul(*side));
    let shapes = header.tensors.values().map(|tensor| weights(&tensor.shape));
    let parameters = shapes.fold(0u64, u64::saturating_add);
    Ok(ModelFacts {
        architecture: header.architecture()?.into(),
        hidden: header.u32(&format!("{}.embedding_length", header.architecture()?))?,
        bytes: header.bytes(),
        parameters,
        stored_as: most.unwrap_or_default().to_uppercase(),
        template: template.and_then(|value| match value {
            gguf::Value::String(source) => Some(source.clone()),
            _ => None,
        }),
    })
}
