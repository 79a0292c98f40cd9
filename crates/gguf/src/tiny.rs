//! Tiny random models for tests: real files of the llama family, a few hundred kilobytes, with a working tokenizer.
//!
//! Behind the feature `test-support`; kept here because engine, gateway and scenarios all need the same files.

use std::{io, path::Path};

use crate::{Array, Value, write::Writer};

/// What kind of model.
#[derive(Clone, Debug)]
pub struct TinyModel {
    /// `llama`, `qwen2` or `qwen3`.
    pub architecture: &'static str,
    /// Transformer layers.
    pub layers: u32,
    /// Width of an activation.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Width of the feed-forward part.
    pub feed_forward: u32,
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

impl Default for TinyModel {
    fn default() -> Self {
        Self {
            architecture: "llama",
            layers: 8,
            hidden: 64,
            heads: 4,
            kv_heads: 2,
            feed_forward: 96,
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
const TOKEN_NORMAL: i64 = 1;
const TOKEN_UNKNOWN: i64 = 2;
const TOKEN_CONTROL: i64 = 3;
const TOKEN_BYTE: i64 = 6;

struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<i64>,
    scores: Vec<f64>,
    merges: Vec<String>,
}

impl TinyModel {
    /// Writes the model's file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let vocabulary = if self.sentence_piece { sentence_piece() } else { byte_level() };
        let mut file = Writer::default();
        self.hyper_parameters(&mut file, vocabulary.tokens.len());
        self.tokenizer(&mut file, &vocabulary);
        self.weights(&mut file, vocabulary.tokens.len() as u64);
        file.write(path)
    }

    fn hyper_parameters(&self, file: &mut Writer, vocabulary: usize) {
        let arch = self.architecture;
        file.metadata("general.architecture", Value::String(arch.into()));
        file.metadata("general.name", Value::String(format!("tiny-{arch}")));
        file.metadata("general.description", Value::String(format!("random weights of seed {}", self.seed)));
        let numbers = [
            ("block_count", self.layers),
            ("context_length", self.context),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.hidden / self.heads),
            ("attention.value_length", self.hidden / self.heads),
            ("rope.dimension_count", self.hidden / self.heads),
            ("vocab_size", vocabulary as u32),
        ];
        for (key, number) in numbers {
            file.metadata(format!("{arch}.{key}"), Value::U32(number));
        }
        file.metadata(format!("{arch}.attention.layer_norm_rms_epsilon"), Value::F32(1e-5));
        file.metadata(format!("{arch}.rope.freq_base"), Value::F32(10_000.0));
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

    fn weights(&self, file: &mut Writer, vocabulary: u64) {
        let mut random = Random(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let hidden = u64::from(self.hidden);
        let head = hidden / u64::from(self.heads);
        let kv = head * u64::from(self.kv_heads);
        let wide = u64::from(self.feed_forward);
        random.matrix(file, "token_embd.weight".into(), hidden, vocabulary);
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}");
            random.norm(file, name("attn_norm.weight"), hidden);
            random.norm(file, name("ffn_norm.weight"), hidden);
            for (part, rows) in [("attn_q", hidden), ("attn_k", kv), ("attn_v", kv)] {
                random.matrix(file, name(&format!("{part}.weight")), hidden, rows);
                if self.architecture == "qwen2" {
                    random.vector(file, name(&format!("{part}.bias")), rows);
                }
            }
            if self.architecture == "qwen3" {
                random.norm(file, name("attn_q_norm.weight"), head);
                random.norm(file, name("attn_k_norm.weight"), head);
            }
            random.matrix(file, name("attn_output.weight"), hidden, hidden);
            random.matrix(file, name("ffn_gate.weight"), hidden, wide);
            random.matrix(file, name("ffn_up.weight"), hidden, wide);
            random.matrix(file, name("ffn_down.weight"), wide, hidden);
        }
        random.norm(file, "output_norm.weight".into(), hidden);
        if !self.tied {
            random.matrix(file, "output.weight".into(), hidden, vocabulary);
        }
        if self.rope_factors {
            let factors: Vec<f32> = (0..head / 2).map(|i| 1.0 + i as f32).collect();
            file.tensor_f32("rope_freqs.weight", &[head / 2], &factors);
        }
    }
}

/// Xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016).
struct Random(u64);

impl Random {
    /// Uniform in [-1, 1).
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
        bits as f32 / (1u32 << 23) as f32 - 1.0
    }

    fn list(&mut self, count: u64, scale: f32, offset: f32) -> Vec<f32> {
        (0..count).map(|_| offset + scale * self.next()).collect()
    }

    /// A matrix that keeps the size of what it multiplies.
    fn matrix(&mut self, file: &mut Writer, name: String, columns: u64, rows: u64) {
        let scale = (3.0 / columns as f32).sqrt();
        let values = self.list(columns * rows, scale, 0.0);
        file.tensor_f32(name, &[columns, rows], &values);
    }

    fn vector(&mut self, file: &mut Writer, name: String, size: u64) {
        let values = self.list(size, 0.1, 0.0);
        file.tensor_f32(name, &[size], &values);
    }

    fn norm(&mut self, file: &mut Writer, name: String, size: u64) {
        let values = self.list(size, 0.1, 1.0);
        file.tensor_f32(name, &[size], &values);
    }
}

/// The printable character that stands for a byte in byte-level BPE, as GPT-2 maps them: printable Latin-1 stands for
/// itself, the others follow from U+0100 on.
fn byte_characters() -> Vec<char> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut others = (0x100u32..).map_while(char::from_u32);
    let mut character = |byte: u8| if printable(byte) { Some(char::from(byte)) } else { others.next() };
    (0..=255u8).filter_map(&mut character).collect()
}

fn byte_level() -> Vocabulary {
    let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from);
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "Ġ t", "Ġt he"].map(String::from);
    let mut tokens: Vec<String> = specials.into();
    let mut types = vec![TOKEN_CONTROL; tokens.len()];
    tokens.extend(byte_characters().into_iter().map(String::from));
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    types.resize(tokens.len(), TOKEN_NORMAL);
    Vocabulary { tokens, types, scores: vec![], merges: merges.into() }
}

fn sentence_piece() -> Vocabulary {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    let mut types = vec![TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_CONTROL];
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    types.resize(tokens.len(), TOKEN_BYTE);
    let pieces = ["he", "ll", "hell", "hello", "▁hello", "▁w", "or", "▁wor", "▁the"];
    let characters = ('a'..='z').chain(['▁', '.', ',', '?', '!']).map(String::from);
    let mut scores = vec![0.0; tokens.len()];
    for piece in pieces.into_iter().map(String::from).chain(characters) {
        if !tokens.contains(&piece) {
            scores.push(-(scores.len() as f64));
            tokens.push(piece);
        }
    }
    types.resize(tokens.len(), TOKEN_NORMAL);
    Vocabulary { tokens, types, scores, merges: vec![] }
}
