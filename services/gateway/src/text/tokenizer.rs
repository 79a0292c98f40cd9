//! The tokenizer that a GGUF file describes.

use std::collections::BTreeSet;

use ahash::AHashMap;
use gguf::{GgufError, Header, SPACE, TokenKind, Vocabulary};
use swarm_types::TokenId;
use tokenizers::{
    AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer as Library,
    models::bpe::BPE,
    normalizers::{NFC, Prepend, Replace, Sequence as Normalizers},
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence as PreTokenizers,
        split::{Split, SplitPattern},
    },
};

use super::{TextError, sentence_piece};

/// How Llama 3 and Qwen 2 cut text before merging; `{}` is how many digits may stand together.
const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Text to tokens and back.
pub struct Tokenizer {
    library: Library,
    /// For each token the bytes it adds to a text; none for tokens that steer.
    bytes: Vec<Vec<u8>>,
    longest: usize,
    begin: Option<TokenId>,
    end: Vec<TokenId>,
    begin_text: String,
    end_text: String,
    padding_text: String,
}

impl Tokenizer {
    /// The tokenizer of a model file. The header must have its arrays.
    ///
    /// # Errors
    /// When the file has none, or one of a kind that is not supported.
    pub fn from_header(header: &Header) -> Result<Self, TextError> {
        let tokens = header.strings("tokenizer.ggml.tokens")?;
        let kind = header.str("tokenizer.ggml.model")?;
        if !matches!(kind, "gpt2" | "llama") {
            return Err(TextError::Unsupported(format!("tokenizer {kind} (supported: gpt2, llama)")));
        }
        let vocabulary = Vocabulary::from_header(header)?;
        let mut library = match kind {
            "gpt2" => byte_level(header, tokens)?,
            _ => pieces(header, tokens, &vocabulary.kinds)?,
        };
        add_whole_tokens(&mut library, tokens, &vocabulary.kinds)?;
        let id = |key: &str| -> Result<Option<TokenId>, GgufError> {
            let id = header.opt_u32(&format!("tokenizer.ggml.{key}_token_id"))?;
            Ok(id.filter(|id| (*id as usize) < tokens.len()).map(TokenId))
        };
        let begin = id("bos")?;
        let text =
            |id: Option<TokenId>| id.and_then(|id| tokens.get(id.0 as usize)).cloned().unwrap_or_default();
        Ok(Self {
            library,
            longest: tokens.iter().map(String::len).max().unwrap_or(1).max(1),
            bytes: vocabulary.bytes,
            begin: begin.filter(|_| adds_begin(header).unwrap_or(false)),
            end: vocabulary.end.into_iter().map(TokenId).collect(),
            begin_text: text(begin),
            end_text: text(id("eos")?),
            padding_text: text(id("padding")?),
        })
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
        let ids = self.encode_as_it_is(text)?;
        let begin = self.begin.filter(|begin| ids.first() != Some(begin));
        Ok(begin.into_iter().chain(ids).collect())
    }

    /// The same without a token that begins a sequence.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_as_it_is(&self, text: &str) -> Result<Vec<TokenId>, TextError> {
        let encoding = self.library.encode_fast(text, false);
        let encoding = encoding.map_err(|error| TextError::Damaged(error.to_string()))?;
        Ok(encoding.get_ids().iter().map(|id| TokenId(*id)).collect())
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
            [] => self.library.id_to_token(token.0).unwrap_or_default(),
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
        let id = self.library.token_to_id(name).map(TokenId)?;
        self.bytes(id).is_empty().then_some(id)
    }

    /// The bytes a token adds to a text; none for tokens that steer, and for those that do not exist.
    #[must_use]
    pub fn bytes(&self, token: TokenId) -> &[u8] {
        self.bytes.get(token.0 as usize).map_or(&[], Vec::as_slice)
    }
}

/// SentencePiece models begin every sequence with a token of its own, unless the file says otherwise.
fn adds_begin(header: &Header) -> Result<bool, GgufError> {
    let given = header.opt_bool("tokenizer.ggml.add_bos_token")?;
    Ok(given.unwrap_or(header.str("tokenizer.ggml.model")? == "llama"))
}

fn vocabulary(tokens: &[String]) -> AHashMap<String, u32> {
    tokens.iter().zip(0u32..).map(|(token, id)| (token.clone(), id)).collect()
}

fn damaged(error: impl ToString) -> TextError {
    TextError::Damaged(error.to_string())
}

fn byte_level(header: &Header, tokens: &[String]) -> Result<Library, TextError> {
    let known: BTreeSet<&str> = tokens.iter().map(String::as_str).collect();
    let mut merges = vec![];
    for merge in header.strings("tokenizer.ggml.merges")? {
        let pair =
            merge.split_once(' ').filter(|(left, right)| known.contains(left) && known.contains(right));
        let (left, right) = pair.ok_or_else(|| damaged(format!("merge {merge:?} is not of two tokens")))?;
        if !known.contains(format!("{left}{right}").as_str()) {
            return Err(damaged(format!("merge {merge:?} does not make a token")));
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    let kind = header.opt_str("tokenizer.ggml.pre")?.unwrap_or("default");
    let model = BPE::builder()
        .vocab_and_merges(vocabulary(tokens), merges)
        .ignore_merges(kind == "llama-bpe")
        .build()
        .map_err(damaged)?;
    let mut library = Library::new(model);
    library.with_pre_tokenizer(Some(pre_tokenizer(kind)?));
    if kind == "qwen2" {
        library.with_normalizer(Some(NFC)).map_err(damaged)?;
    }
    Ok(library)
}

/// How text is cut before merging, by the name that llama.cpp gives the way.
fn pre_tokenizer(kind: &str) -> Result<PreTokenizerWrapper, TextError> {
    let words = |digits: &str| -> Result<PreTokenizerWrapper, TextError> {
        let pattern = SplitPattern::Regex(LLAMA3_WORDS.replace("{DIGITS}", digits));
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(damaged)?;
        let bytes = ByteLevel::new(false, true, false);
        Ok(PreTokenizers::new(vec![split.into(), bytes.into()]).into())
    };
    let bytes = ByteLevel::new(false, true, true);
    match kind {
        "default" | "gpt-2" => Ok(bytes.into()),
        "smollm" => Ok(PreTokenizers::new(vec![Digits::new(true).into(), bytes.into()]).into()),
        "llama-bpe" => words("{1,3}"),
        "qwen2" => words(""),
        other => {
            let supported = "default, gpt-2, smollm, llama-bpe, qwen2";
            Err(TextError::Unsupported(format!("pre-tokenizer {other} (supported: {supported})")))
        }
    }
}

fn pieces(header: &Header, tokens: &[String], kinds: &[TokenKind]) -> Result<Library, TextError> {
    let scores = header.opt_floats("tokenizer.ggml.scores")?;
    let scores = scores.filter(|scores| scores.len() == tokens.len());
    let scores = scores.ok_or_else(|| damaged("every token needs a score"))?;
    let scored = tokens.iter().zip(scores).zip(kinds).filter(|(_, kind)| **kind == TokenKind::Normal);
    let scored: Vec<(&str, f64)> = scored.map(|((token, score), _)| (token.as_str(), *score)).collect();
    let unknown = header.opt_u32("tokenizer.ggml.unknown_token_id")?.unwrap_or(0) as usize;
    let unknown = tokens.get(unknown).cloned().ok_or_else(|| damaged("the unknown token is not there"))?;
    let model = BPE::builder()
        .vocab_and_merges(vocabulary(tokens), sentence_piece::merges(&scored))
        .unk_token(unknown)
        .fuse_unk(true)
        .byte_fallback(true)
        .build()
        .map_err(damaged)?;
    let space = SPACE.to_string();
    let mut normalizers: Vec<NormalizerWrapper> = vec![];
    if header.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true) {
        normalizers.push(Prepend::new(space.clone()).into());
    }
    normalizers.push(Replace::new(" ", space).map_err(damaged)?.into());
    let mut library = Library::new(model);
    library.with_normalizer(Some(Normalizers::new(normalizers))).map_err(damaged)?;
    Ok(library)
}

/// Control and user-defined tokens are found in a text before anything else.
fn add_whole_tokens(library: &mut Library, tokens: &[String], kinds: &[TokenKind]) -> Result<(), TextError> {
    let of = |kind: TokenKind| {
        tokens.iter().zip(kinds).filter(move |(_, k)| **k == kind).map(|(token, _)| token.clone())
    };
    let special =
        of(TokenKind::Control).filter(|token| !token.is_empty()).map(|token| AddedToken::from(token, true));
    library.add_special_tokens(special).map_err(damaged)?;
    let whole = of(TokenKind::UserDefined).filter(|token| !token.is_empty());
    library
        .add_tokens(whole.map(|token| AddedToken::from(token, false).normalized(false)))
        .map_err(damaged)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use gguf::tiny::TinyModel;
    use proptest::prelude::*;

    use super::*;

    fn tokenizer(sentence_piece: bool) -> Tokenizer {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("tiny.gguf");
        TinyModel { layers: 1, sentence_piece, ..TinyModel::default() }.write(&path).expect("written");
        Tokenizer::from_header(&Header::read(&path).expect("valid")).expect("a tokenizer")
    }

    fn text_of(tokenizer: &Tokenizer, tokens: &[TokenId]) -> String {
        let bytes = tokens.iter().flat_map(|token| tokenizer.bytes(*token)).copied().collect();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn merges_make_long_tokens_and_control_tokens_stand_alone() {
        let tokenizer = tokenizer(false);
        let tokens = tokenizer.encode("<|im_start|>hello world").expect("encoded");
        assert_eq!(tokens[0], TokenId(1));
        assert_eq!(text_of(&tokenizer, &tokens[1..2]), "hello");
        assert_eq!(text_of(&tokenizer, &tokens), "hello world", "control tokens are not shown");
        assert_eq!(tokenizer.end_tokens(), [TokenId(0), TokenId(2)]);
        assert_eq!(tokenizer.control("<|im_start|>"), Some(TokenId(1)));
        assert_eq!((tokenizer.control("hello"), tokenizer.control("<tool_call>")), (None, None));
    }

    #[test]
    fn tokens_that_steer_are_spelled_by_name() {
        let tokenizer = tokenizer(false);
        let text = "<|im_start|>hello";
        let tokens = tokenizer.encode_as_it_is(text).expect("encoded");
        let spelled: Option<Vec<Vec<u8>>> = tokens.iter().map(|token| tokenizer.spelling(*token)).collect();
        assert_eq!(spelled.expect("tokens").concat(), text.as_bytes());
        assert_eq!(tokenizer.spelling(TokenId(u32::MAX)), None);
    }

    #[test]
    fn pieces_fall_back_to_bytes() {
        let tokenizer = tokenizer(true);
        let tokens = tokenizer.encode("hello wor€").expect("encoded");
        assert_eq!(tokens[0], TokenId(1), "the sequence begins with its token");
        assert_eq!(text_of(&tokenizer, &tokens), " hello wor€");
        assert_eq!(tokens.len(), 1 + 2 + 3, "one piece, one piece, three bytes: {tokens:?}");
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in "\\PC{0,40}|[ \\n\\ta-z0-9<|>_]{0,40}") {
            let tokenizer = tokenizer(false);
            let tokens = tokenizer.encode(&text).expect("encoded");
            let shown = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
                .iter()
                .fold(text, |text, token| text.replace(token, ""));
            prop_assert_eq!(text_of(&tokenizer, &tokens), shown);
        }
    }
}
