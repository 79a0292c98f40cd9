//! Tiny random models for tests: real files of the llama family, a few hundred kilobytes, with a working tokenizer.
//!
//! Behind the feature `test-support`; kept here because engine, gateway and scenarios all need the same files.

mod cases;
mod numbers;
mod random;
mod vocabulary;
mod weights;

use std::{io, path::Path};

use self::{
    numbers::Shape,
    vocabulary::{Vocabulary, byte_level, sentence_piece},
};
use crate::{Array, Value, write::Writer};

pub use self::cases::cases;

/// What kind of model.
#[derive(Clone, Debug)]
pub struct TinyModel {
    /// As the engine names them: `llama`, `gemma3`, `qwen3moe` and so on.
    pub architecture: &'static str,
    /// Transformer layers.
    pub layers: u32,
    /// Width of an activation.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Width of a head; 0 for its share of an activation.
    pub head: u32,
    /// Width of the feed-forward part, or of each expert.
    pub feed_forward: u32,
    /// Experts of a layer, of which each row chooses two; 0 for none.
    pub experts: u32,
    /// Positions that rows of layers with a window look at; 0 for none.
    pub window: u32,
    /// How positions beyond the first 32 are turned.
    pub scaling: Scaling,
    /// Longest session in tokens.
    pub context: u32,
    /// The head is the embedding.
    pub tied: bool,
    /// Llama 3's per-frequency rope factors are there.
    pub rope_factors: bool,
    /// SentencePiece instead of byte-level BPE.
    pub sentence_piece: bool,
    /// Different seeds, different weights, and a description that says so.
    pub seed: u64,
}

/// What is done to the angles of positions that were not trained first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scaling {
    /// Nothing.
    None,
    /// Divided by 4.
    Linear,
    /// Divided by 4 where they are slow.
    Yarn,
    /// Divided by factors by frequency, for long sessions and for others.
    Long,
}

impl Default for TinyModel {
    fn default() -> Self {
        Self {
            architecture: "llama",
            layers: 8,
            hidden: 64,
            heads: 4,
            kv_heads: 2,
            head: 0,
            feed_forward: 96,
            experts: 0,
            window: 0,
            scaling: Scaling::None,
            context: 512,
            tied: true,
            rope_factors: false,
            sentence_piece: false,
            seed: 1,
        }
    }
}

/// ChatML, as small models use it.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
impl TinyModel {
    /// Writes the model's file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let vocabulary = if self.sentence_piece { sentence_piece() } else { byte_level() };
        let mut file = Writer::default();
        let shape = Shape::of(self, vocabulary.tokens.len());
        numbers::write(&mut file, self, shape);
        self.tokenizer(&mut file, &vocabulary);
        weights::write(&mut file, self, shape);
        file.write(path)
    }

    fn tokenizer(&self, file: &mut Writer, vocabulary: &Vocabulary) {
        let strings = |list: &[String]| Value::Array(Array::Strings(list.to_vec()));
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let (model, end) = if self.sentence_piece { ("llama", 2) } else { ("gpt2", 2) };
        file.metadata(key("model"), Value::String(model.into()));
        file.metadata(key("tokens"), strings(&vocabulary.tokens));
        file.metadata(key("token_type"), Value::Array(Array::Signed(vocabulary.types.clone())));
        if self.sentence_piece {
            file.metadata(key("scores"), Value::Array(Array::Floats(vocabulary.scores.clone())));
            file.metadata(key("unknown_token_id"), Value::U32(0));
        } else {
            file.metadata(key("pre"), Value::String("smollm".into()));
            file.metadata(key("merges"), strings(&vocabulary.merges));
        }
        file.metadata(key("bos_token_id"), Value::U32(1));
        file.metadata(key("eos_token_id"), Value::U32(end));
        file.metadata(key("add_bos_token"), Value::Bool(self.sentence_piece));
        file.metadata("tokenizer.chat_template", Value::String(CHAT_TEMPLATE.into()));
    }
}
