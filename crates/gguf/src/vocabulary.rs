//! The tokens of a model: the bytes that each adds to a text, and which of them steer.

use std::collections::{BTreeSet, HashMap};

use crate::{GgufError, Header};

/// The key of the tokens' texts.
const TOKENS: &str = "tokenizer.ggml.tokens";
/// `token_type` of a token that steers the model and is never shown.
const CONTROL: i64 = 3;
/// `token_type` of a token that is text, but matched whole.
const USER_DEFINED: i64 = 4;
/// `token_type` of an ordinary token.
const NORMAL: i64 = 1;

/// Names of tokens that end an answer, of the model families that are supported. Files do not always name them in keys
/// of their own.
const END_NAMES: [&str; 12] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end|>",
    "</s>",
    "<end_of_turn>",
    "<eos>",
    "<EOT>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
];

/// What stands for a space in vocabularies of SentencePiece.
pub const SPACE: char = '▁';

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenKind {
    /// Text, joined with others by the tokenizer's rules.
    Normal,
    /// Text, but matched whole.
    UserDefined,
    /// It steers the model and is never shown.
    Control,
    /// A byte, an unknown token, or one that is not used.
    Other,
}

/// The tokens of a model, by id.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// The bytes that each adds to a text; none for tokens that steer.
    pub bytes: Vec<Vec<u8>>,
    /// What each is.
    pub kinds: Vec<TokenKind>,
    /// Those that end an answer, rising.
    pub end: Vec<u32>,
}

impl Header {
    /// How many tokens its vocabulary has, if it has one.
    #[must_use]
    pub fn token_count(&self) -> Option<u64> {
        self.count_of_list(TOKENS)
    }
}

impl Vocabulary {
    /// The vocabulary of a model file. The header must have its arrays.
    ///
    /// # Errors
    /// When the file has none, or one of a kind that is not supported.
    pub fn from_header(header: &Header) -> Result<Self, GgufError> {
        let tokens = header.strings(TOKENS)?;
        if tokens.is_empty() {
            return Err(GgufError::Type { key: TOKENS.into(), expected: "a list of one text or more" });
        }
        let kinds = kinds(header, tokens.len())?;
        let characters = ByteCharacters::new();
        let text: &dyn Fn(&str) -> Vec<u8> = match header.str("tokenizer.ggml.model")? {
            "gpt2" => &|token| characters.bytes(token),
            "llama" => &piece,
            other => {
                return Err(GgufError::Unsupported(format!("tokenizer {other} (supported: gpt2, llama)")));
            }
        };
        let bytes = tokens.iter().zip(&kinds).map(|(token, kind)| match kind {
            TokenKind::Control => vec![],
            TokenKind::UserDefined => token.clone().into_bytes(),
            TokenKind::Normal | TokenKind::Other => text(token),
        });
        Ok(Self { bytes: bytes.collect(), end: end_tokens(header, tokens)?, kinds })
    }
}

fn kinds(header: &Header, count: usize) -> Result<Vec<TokenKind>, GgufError> {
    let types = header.opt_integers("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![NORMAL; count]);
    if types.len() != count {
        return Err(GgufError::Impossible(format!("{count} tokens have {} types", types.len())));
    }
    let kind = |number: i64| match number {
        NORMAL => TokenKind::Normal,
        CONTROL => TokenKind::Control,
        USER_DEFINED => TokenKind::UserDefined,
        _ => TokenKind::Other,
    };
    Ok(types.into_iter().map(kind).collect())
}

fn end_tokens(header: &Header, tokens: &[String]) -> Result<Vec<u32>, GgufError> {
    let named = tokens.iter().zip(0u32..).filter(|(token, _)| END_NAMES.contains(&token.as_str()));
    let mut end: BTreeSet<u32> = named.map(|(_, id)| id).collect();
    for name in ["eos", "eot", "eom"] {
        let id = header.opt_u32(&format!("tokenizer.ggml.{name}_token_id"))?;
        end.extend(id.filter(|id| (*id as usize) < tokens.len()));
    }
    Ok(end.into_iter().collect())
}

/// The bytes that a piece of a SentencePiece vocabulary stands for.
fn piece(piece: &str) -> Vec<u8> {
    let byte = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match byte.filter(|digits| digits.len() == 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        Some(byte) => vec![byte],
        None => piece.replace(SPACE, " ").into_bytes(),
    }
}

/// The characters that stand for bytes in byte-level vocabularies, as GPT-2 maps them: printable Latin-1 stands for
/// itself, the other bytes for the characters from U+0100 on.
struct ByteCharacters(HashMap<char, u8>);

impl ByteCharacters {
    fn new() -> Self {
        let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let mut others = (0x100u32..).filter_map(char::from_u32);
        let mut map = HashMap::new();
        for byte in 0..=255u8 {
            let character = if printable(byte) { Some(char::from(byte)) } else { others.next() };
            map.extend(character.map(|character| (character, byte)));
        }
        Self(map)
    }

    /// The bytes that a token's text stands for. What stands for no byte stands for itself.
    fn bytes(&self, token: &str) -> Vec<u8> {
        let mut bytes = vec![];
        for character in token.chars() {
            match self.0.get(&character) {
                Some(byte) => bytes.push(*byte),
                None => bytes.extend(character.to_string().bytes()),
            }
        }
        bytes
    }
}
