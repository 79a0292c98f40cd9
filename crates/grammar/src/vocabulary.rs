//! A model's tokens, arranged for grammars, and grammars made ready for them.

use std::{fmt, path::Path, sync::Arc, thread};

use gguf::{Header, TokenKind};
use llguidance::{
    Matcher as Library, ParserFactory,
    api::{GrammarWithLexer, ParserLimits, TopLevelGrammar},
    earley::SlicedBiasComputer,
    toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie},
};
use swarm_types::Grammar;

use crate::{checks, error::GrammarError, matcher::Matcher};

/// The library's parsers call themselves for what is nested. Only what is used of it takes memory.
const STACK: usize = 64 << 20;

/// The tokens of one model. Cheap to clone.
#[derive(Clone)]
pub struct Vocabulary(Arc<ParserFactory>);

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vocabulary").field(&self.0.tok_env().tok_trie().vocab_size()).finish()
    }
}

impl Vocabulary {
    /// The tokens of a model file. Takes some 100 ms.
    ///
    /// # Errors
    /// When it has none, or none that ends a text.
    pub fn read(model: &Path) -> Result<Self, GrammarError> {
        let header = Header::read(model).map_err(|error| GrammarError::Internal(error.to_string()))?;
        Self::from_header(&header)
    }

    /// The same by a header that has its arrays.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_header(header: &Header) -> Result<Self, GrammarError> {
        let wrong = |error: gguf::GgufError| GrammarError::Vocabulary(error.to_string());
        let tokens = gguf::Vocabulary::from_header(header).map_err(wrong)?;
        let names = header.strings("tokenizer.ggml.tokens").map_err(wrong)?;
        let Some(end) = tokens.end.first().copied() else {
            return Err(GrammarError::Vocabulary("none of them ends a text".into()));
        };
        let words: Vec<Vec<u8>> =
            tokens.bytes.into_iter().zip(names).zip(&tokens.kinds).map(marked).collect();
        let count = u32::try_from(words.len()).unwrap_or(u32::MAX);
        let trie = TokTrie::from(&TokRxInfo::new(count, end), &words).with_eos_tokens(&tokens.end);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::general_slices();
        let factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|error| GrammarError::Vocabulary(error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Self(Arc::new(factory)))
    }

    /// Makes a grammar ready: checks it and builds what all its matchers share. Takes milliseconds, a large one more.
    ///
    /// # Errors
    /// When it is not valid, or too much.
    pub fn ready(&self, grammar: &Grammar) -> Result<Ready, GrammarError> {
        let source = source(grammar)?;
        let factory = self.0.clone();
        let work = move || {
            let mut library = Library::new(factory.create_parser(source));
            // Errors show themselves, and what the first mask needs is shared.
            library.compute_mask_or_eos().map(|_| library)
        };
        let thread = thread::Builder::new().name("grammar".into()).stack_size(STACK);
        let running = thread.spawn(work).map_err(|error| GrammarError::Internal(error.to_string()))?;
        let built = running.join().map_err(|_| GrammarError::Invalid("the library has failed".into()))?;
        let library = built.map_err(|error| GrammarError::Invalid(shortened(&error.to_string())))?;
        Ok(Ready { grammar: grammar.clone(), library: Arc::new(library) })
    }
}

/// How much a grammar may take. The library's fuel is spent at some 50,000 a millisecond while a grammar is read, and
/// at 14,000 a millisecond at a token.
fn limits() -> ParserLimits {
    ParserLimits {
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        // 1 to 2 KiB each, of every session.
        max_lexer_states: 16_384,
        max_grammar_size: 100_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// Tokens that steer are named behind a byte that no text has.
fn marked(((bytes, name), kind): ((Vec<u8>, &String), &TokenKind)) -> Vec<u8> {
    match kind {
        TokenKind::Control => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
        TokenKind::Normal | TokenKind::UserDefined | TokenKind::Other => bytes,
    }
}

fn source(grammar: &Grammar) -> Result<TopLevelGrammar, GrammarError> {
    let long = |error: swarm_types::GrammarTooLong| GrammarError::Invalid(error.to_string());
    let grammar = grammar.clone().validated().map_err(long)?;
    Ok(match &grammar {
        Grammar::JsonSchema(text) => TopLevelGrammar::from_json_schema(checks::schema(text)?),
        Grammar::Regex(text) => {
            checks::depth(text)?;
            TopLevelGrammar::from_regex(text)
        }
        Grammar::Lark(text) => {
            checks::depth(text)?;
            TopLevelGrammar::from_grammar(GrammarWithLexer::from_lark(text.to_string()))
        }
    })
}

/// The library's reasons may contain the whole grammar, and some are names for those who know it.
fn shortened(reason: &str) -> String {
    const MOST: usize = 500;
    let reason = reason.trim_end_matches("<non-verbose/>").trim();
    if reason.starts_with("NoExtension") {
        return "no text fits it".into();
    }
    match reason.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

/// A grammar that is ready for a vocabulary. Cheap to clone; equal when the grammars are.
#[derive(Clone)]
pub struct Ready {
    grammar: Grammar,
    library: Arc<Library>,
}

impl Ready {
    /// Which.
    #[must_use]
    pub fn grammar(&self) -> &Grammar {
        &self.grammar
    }

    /// A matcher that has taken no token.
    #[must_use]
    pub fn matcher(&self) -> Matcher {
        Matcher::new(self.library.deep_clone())
    }
}

impl PartialEq for Ready {
    fn eq(&self, other: &Self) -> bool {
        self.grammar == other.grammar
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ready").field(&self.grammar).finish()
    }
}
