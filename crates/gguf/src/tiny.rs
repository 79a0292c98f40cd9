//! Tiny random models for tests: real files of every architecture, up to some megabytes, with a working tokenizer.
//!
//! Behind the feature `test-support`; kept here because engine, gateway and scenarios all need the same files.

mod cases;
mod model;
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

pub use self::{
    cases::cases,
    model::{Scaling, TinyModel},
};

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
