//! The tokenizer that a GGUF file describes.

mod pieces;
mod shares;
#[cfg(test)]
mod tests;
mod whole;
mod words;

use ahash::AHashMap;
use gguf::{GgufError, Header, TokenKind, Vocabulary};
use swarm_types::TokenId;
use tokenizers::{Model, models::bpe::BPE};

use self::{
    pieces::Pieces,
    shares::Shares,
    whole::{Part, WholeTokens},
    words::{Way, Words},
};
use super::TextError;

/// Text to tokens and back.
pub struct Tokenizer {
    model: BPE,
    cutting: Cutting,
    whole: WholeTokens,
    shares: Shares,
    /// For each token the bytes it adds to a text; none for tokens that steer.
    bytes: Vec<Vec<u8>>,
    longest: usize,
    /// Blanks behind tokens that are found whole vanish.
    takes_blanks: bool,
    begin: Option<TokenId>,
    end: Vec<TokenId>,
    begin_text: String,
    end_text: String,
    padding_text: String,
    doubt: Option<String>,
}

/// How text is cut before merging.
enum Cutting {
    Words(Box<Words>),
    Pieces(Pieces),
}

/// How a text is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// The token that begins a sequence is put before it, if the model wants that and it is not there.
    pub begins: bool,
    /// No more tokens than this are made.
    pub most: Option<usize>,
    /// A character that stands in the text only so that no token that steers is found there. It is no part of it.
    pub mark: Option<char>,
}

/// What merges text, and what was noticed on the way.
struct Merging {
    model: BPE,
    cutting: Cutting,
    begins: bool,
    doubt: Option<String>,
}

impl Tokenizer {
    /// The tokenizer of a model file. The header must have its arrays.
    ///
    /// # Errors
    /// When the file has none, or one of a kind that is not supported.
    pub fn from_header(header: &Header) -> Result<Self, TextError> {
        let tokens = header.strings("tokenizer.ggml.tokens")?;
        let vocabulary = Vocabulary::from_header(header)?;
        let Merging { model, cutting, begins, doubt } = match header.str("tokenizer.ggml.model")? {
            "llama" => pieces(header, tokens, &vocabulary.kinds)?,
            _ => byte_level(header, tokens)?,
        };
        let begins = header.opt_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(begins);
        let id = |key: &str| -> Result<Option<TokenId>, GgufError> {
            let id = header.opt_u32(&format!("tokenizer.ggml.{key}_token_id"))?;
            Ok(id.filter(|id| (*id as usize) < tokens.len()).map(TokenId))
        };
        let begin = id("bos")?;
        let text =
            |id: Option<TokenId>| id.and_then(|id| tokens.get(id.0 as usize)).cloned().unwrap_or_default();
        let takes_blanks = takes_blanks(header)?;
        let spelled = tokens.iter().zip(&vocabulary.bytes).zip(&vocabulary.kinds);
        let spelled = spelled.map(|((token, bytes), kind)| match bytes.as_slice() {
            [] => (token.as_bytes(), *kind),
            bytes => (bytes, *kind),
        });
        let composes = matches!(&cutting, Cutting::Words(words) if words.composes());
        Ok(Self {
            whole: WholeTokens::new(tokens, &vocabulary.kinds, takes_blanks)?,
            shares: Shares::new(spelled, composes),
            model,
            cutting,
            takes_blanks,
            longest: tokens.iter().map(String::len).max().unwrap_or(1).max(1),
            begin: begin.filter(|_| begins),
            end: vocabulary.end.into_iter().map(TokenId).collect(),
            begin_text: text(begin),
            end_text: text(id("eos")?),
            padding_text: text(id("padding")?),
            bytes: vocabulary.bytes,
            doubt,
        })
    }

    /// What the file leaves open, so that tokens may be others than the model was trained with.
    #[must_use]
    pub fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
    }

    /// How many tokens there are.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.bytes.len()
    }

    /// Tokens that end an answer.
    #[must_use]
    pub fn end_tokens(&self) -> &[TokenId] {
        &self.end
    }

    /// The text of the token that begins a sequence, for chat templates.
    #[must_use]
    pub fn begin_text(&self) -> &str {
        &self.begin_text
    }

    /// The text of the token that ends a sequence, for chat templates.
    #[must_use]
    pub fn end_text(&self) -> &str {
        &self.end_text
    }

    /// The text of the token that fills up what is too short, empty when there is none.
    #[must_use]
    pub fn padding_text(&self) -> &str {
        &self.padding_text
    }

    /// The tokens of a text. Control tokens in it are taken as such, and the token that begins a sequence is put
    /// before it if the model wants that and it is not there.
    ///
    /// # Errors
    /// When the library cannot, which no text is known to cause.
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>, TextError> {
        self.read(text, Reading { begins: true, ..Reading::default() })
    }

    /// The same without a token that begins a sequence.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_as_it_is(&self, text: &str) -> Result<Vec<TokenId>, TextError> {
        self.read(text, Reading::default())
    }

    /// The tokens of a text that is read so.
    ///
    /// # Errors
    /// As [`Self::encode`]; and when there are more tokens than there may be, as soon as that is clear.
    pub fn read(&self, text: &str, how: Reading) -> Result<Vec<TokenId>, TextError> {
        let mut tokens = vec![];
        for part in self.whole.parts(text) {
            match part {
                Part::Whole(token) => tokens.push(token),
                Part::Text(text) => match how.mark {
                    Some(mark) if text.contains(mark) => {
                        self.merge(&text.replace(mark, ""), how, &mut tokens)?
                    }
                    _ => self.merge(text, how, &mut tokens)?,
                },
            }
            check_count(&tokens, how)?;
        }
        let begin = self.begin.filter(|begin| how.begins && tokens.first() != Some(begin));
        if let Some(begin) = begin {
            tokens.insert(0, begin);
        }
        check_count(&tokens, how)?;
        Ok(tokens)
    }

    fn merge(&self, text: &str, how: Reading, tokens: &mut Vec<TokenId>) -> Result<(), TextError> {
        let word = |word: &str| {
            let merged = self.model.tokenize(word).map_err(damaged)?;
            tokens.extend(merged.iter().map(|token| TokenId(token.id)));
            check_count(tokens, how)
        };
        match &self.cutting {
            Cutting::Words(words) => words.each(text, word),
            Cutting::Pieces(pieces) => pieces.each(text, word),
        }
    }

    /// How many tokens a text has at least, told without making them.
    #[must_use]
    pub fn least_tokens(&self, text: &str) -> usize {
        self.shares.least(text, self.takes_blanks)
    }

    /// The places in a text where a mark keeps it from having a token that steers. See [`Reading::mark`].
    #[must_use]
    pub fn breaks(&self, text: &str) -> Vec<usize> {
        self.whole.breaks(text)
    }

    /// The bytes by which a token is written in a text, also of one that steers. None when there is no such token.
    #[must_use]
    pub fn spelling(&self, token: TokenId) -> Option<Vec<u8>> {
        let bytes = self.bytes.get(token.0 as usize)?;
        Some(if bytes.is_empty() { self.name(token).into_bytes() } else { bytes.clone() })
    }

    /// Bytes of the longest token: a longer text cannot have fewer tokens than its length divided by this.
    #[must_use]
    pub fn longest_token(&self) -> usize {
        self.longest
    }

    /// A token for people: its text, or its name in the vocabulary when it steers.
    #[must_use]
    pub fn name(&self, token: TokenId) -> String {
        match self.bytes(token) {
            [] => self.model.id_to_token(token.0).unwrap_or_default(),
            bytes => String::from_utf8_lossy(bytes).into_owned(),
        }
    }

    /// All tokens that steer.
    #[must_use]
    pub fn controls(&self) -> Vec<TokenId> {
        let all = self.bytes.iter().zip(0u32..).filter(|(bytes, _)| bytes.is_empty());
        all.map(|(_, id)| TokenId(id)).collect()
    }

    /// The token that steers and has this name.
    #[must_use]
    pub fn control(&self, name: &str) -> Option<TokenId> {
        let id = self.model.token_to_id(name).map(TokenId)?;
        self.bytes(id).is_empty().then_some(id)
    }

    /// The bytes a token adds to a text; none for tokens that steer, and for those that do not exist.
    #[must_use]
    pub fn bytes(&self, token: TokenId) -> &[u8] {
        self.bytes.get(token.0 as usize).map_or(&[], Vec::as_slice)
    }
}

fn check_count(tokens: &[TokenId], how: Reading) -> Result<(), TextError> {
    match how.most {
        Some(most) if tokens.len() > most => Err(TextError::TooLong { least: tokens.len() }),
        _ => Ok(()),
    }
}

/// The tokenizer of Phi 3 and 3.5 takes the blanks behind each of its whole tokens for a part of it.
fn takes_blanks(header: &Header) -> Result<bool, GgufError> {
    Ok(header.architecture()? == "phi3" && header.str("tokenizer.ggml.model")? == "llama")
}

fn vocabulary(tokens: &[String]) -> AHashMap<String, u32> {
    tokens.iter().zip(0u32..).map(|(token, id)| (token.clone(), id)).collect()
}

fn damaged(error: impl ToString) -> TextError {
    TextError::Damaged(error.to_string())
}

fn byte_level(header: &Header, tokens: &[String]) -> Result<Merging, TextError> {
    let name = header.opt_str("tokenizer.ggml.pre")?;
    let way = Way::named(name)?;
    let known = vocabulary(tokens);
    let written = header.strings("tokenizer.ggml.merges")?;
    let merges: Vec<(String, String)> = written.iter().filter_map(|merge| usable(merge, &known)).collect();
    let unused = written.len() - merges.len();
    if unused > 0 {
        tracing::warn!(
            unused,
            "merges of the model's tokenizer are not used: they are not of tokens that it has"
        );
    }
    let model = BPE::builder().vocab_and_merges(known, merges).ignore_merges(way.words_are_tokens);
    let doubt = name.is_none_or(|name| name == "default").then(|| {
        let what = if name.is_none() { "does not say" } else { "says `default` for" };
        format!(
            "the model's file {what} how its tokenizer cuts text (tokenizer.ggml.pre): answers may be worse than \
             the model's; take a newer file of it"
        )
    });
    Ok(Merging {
        model: model.build().map_err(damaged)?,
        cutting: Cutting::Words(Box::new(Words::new(way))),
        begins: way.begins,
        doubt,
    })
}

/// The two tokens of a merge. One that is not of tokens, or makes none, could never be used.
fn usable(merge: &str, known: &AHashMap<String, u32>) -> Option<(String, String)> {
    // A token may begin with a blank.
    let after_first = merge.chars().next()?.len_utf8();
    let middle = after_first + merge[after_first..].find(' ')?;
    let (left, right) = (&merge[..middle], &merge[middle + 1..]);
    let all = [left, right, &format!("{left}{right}")].iter().all(|token| known.contains_key(*token));
    all.then(|| (left.to_owned(), right.to_owned()))
}

fn pieces(header: &Header, tokens: &[String], kinds: &[TokenKind]) -> Result<Merging, TextError> {
    let scores = header.opt_floats("tokenizer.ggml.scores")?;
    let scores = scores.filter(|scores| scores.len() == tokens.len());
    let scores = scores.ok_or_else(|| damaged("every token needs a score"))?;
    let scored = tokens.iter().zip(scores).zip(kinds).filter(|(_, kind)| **kind == TokenKind::Normal);
    let scored: Vec<(&str, f64)> = scored.map(|((token, score), _)| (token.as_str(), *score)).collect();
    let unknown = header.opt_u32("tokenizer.ggml.unknown_token_id")?.unwrap_or(0) as usize;
    let unknown = tokens.get(unknown).cloned().ok_or_else(|| damaged("the unknown token is not there"))?;
    let known = vocabulary(tokens);
    let all_bytes = (0..=255u8).all(|byte| known.contains_key(&format!("<0x{byte:02X}>")));
    let prefix = header.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let model = BPE::builder()
        .vocab_and_merges(known, pieces::merges(&scored))
        .unk_token(unknown)
        .fuse_unk(true)
        .byte_fallback(true)
        .build()
        .map_err(damaged)?;
    let cutting = Cutting::Pieces(Pieces::new(&scored, prefix, !all_bytes));
    Ok(Merging { model, cutting, begins: true, doubt: None })
}
