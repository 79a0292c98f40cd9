//! What becomes of text.

use std::collections::BTreeMap;

use gguf::{Array, Value, tiny::TinyModel, write::Writer};
use proptest::prelude::*;
use serde::Deserialize;

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

/// A header with a byte-level vocabulary and no tensors.
fn with_words(pre: Option<&str>, tokens: &[String], merges: &[String], more: &[(&str, Value)]) -> Header {
    let text = |text: &str| Value::String(text.into());
    let strings = |list: &[String]| Value::Array(Array::Strings(list.to_vec()));
    let mut entries = BTreeMap::from([
        ("general.architecture", text("llama")),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.tokens", strings(tokens)),
        ("tokenizer.ggml.merges", strings(merges)),
    ]);
    entries.extend(pre.map(|pre| ("tokenizer.ggml.pre", text(pre))));
    entries.extend(more.iter().cloned());
    let mut file = Writer::default();
    entries.into_iter().for_each(|(key, value)| file.metadata(key, value));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("vocabulary.gguf");
    file.write(&path).expect("written");
    Header::read(&path).expect("valid")
}

/// What `tests/python/tokenizing.py` wrote.
#[derive(Deserialize)]
struct Recorded {
    tokens: Vec<String>,
    merges: Vec<String>,
    texts: Vec<String>,
    ways: BTreeMap<String, Vec<Vec<u32>>>,
}

#[test]
fn every_way_to_cut_text_gives_the_tokens_of_the_reference() {
    let recorded: Recorded = serde_json::from_str(include_str!("tests/ways.json")).expect("recorded");
    assert!(recorded.ways.len() > 20);
    for (way, answers) in &recorded.ways {
        let header = with_words(Some(way), &recorded.tokens, &recorded.merges, &[]);
        let tokenizer = Tokenizer::from_header(&header).expect("supported");
        assert_eq!(answers.len(), recorded.texts.len());
        for (text, expected) in recorded.texts.iter().zip(answers) {
            let tokens = tokenizer.encode_as_it_is(text).expect("encoded");
            let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
            assert_eq!(ids, *expected, "{way}: {text:?}");
            assert!(tokenizer.least_tokens(text) <= ids.len(), "{way}: {text:?}");
        }
    }
}

#[test]
fn sequences_begin_with_their_token_where_llama_cpp_puts_it() {
    let tokens = ["<s>", "a"].map(String::from);
    let kinds = ("tokenizer.ggml.token_type", Value::Array(Array::Signed(vec![3, 1])));
    let begin = ("tokenizer.ggml.bos_token_id", Value::U32(0));
    let says = |says| ("tokenizer.ggml.add_bos_token", Value::Bool(says));
    let count = |pre, more: &[(&str, Value)]| {
        let entries = [&[kinds.clone(), begin.clone()], more].concat();
        let tokenizer = Tokenizer::from_header(&with_words(Some(pre), &tokens, &[], &entries));
        tokenizer.expect("supported").encode("a").expect("encoded").len()
    };
    for (pre, more, expected) in [
        ("llama-bpe", vec![], 2),
        ("llama3", vec![], 2),
        ("tekken", vec![], 2),
        ("qwen2", vec![], 1),
        ("gpt-2", vec![], 1),
        ("llama-bpe", vec![says(false)], 1),
        ("qwen2", vec![says(true)], 2),
    ] {
        assert_eq!(count(pre, &more), expected, "{pre} {more:?}");
    }
    let entries = [kinds, begin, ("tokenizer.ggml.add_bos_token", Value::U8(1))];
    let error = Tokenizer::from_header(&with_words(Some("qwen2"), &tokens, &[], &entries)).err();
    assert!(error.expect("refused").to_string().contains("add_bos_token must be a truth value"));
}

#[test]
fn a_file_that_does_not_say_how_to_cut_raises_a_doubt() {
    let tokens = ["a"].map(String::from);
    let doubt = |pre| {
        let tokenizer = Tokenizer::from_header(&with_words(pre, &tokens, &[], &[])).expect("supported");
        tokenizer.doubt().map(str::to_owned)
    };
    assert!(doubt(None).expect("a doubt").contains("does not say"));
    assert!(doubt(Some("default")).expect("a doubt").contains("says `default`"));
    assert_eq!(doubt(Some("gpt-2")), None);
}

#[test]
fn merges_that_could_never_be_used_are_no_obstacle() {
    let tokens = ["a", "b", "ab", "c"].map(String::from);
    let merges = ["x y", "a c", "a b", "ab"].map(String::from);
    let tokenizer =
        Tokenizer::from_header(&with_words(Some("gpt-2"), &tokens, &merges, &[])).expect("supported");
    assert_eq!(tokenizer.encode("abc").expect("encoded"), [TokenId(2), TokenId(3)]);
}

#[test]
fn nothing_more_is_read_once_there_are_too_many_tokens() {
    for sentence_piece in [false, true] {
        let tokenizer = tokenizer(sentence_piece);
        let most = |most| Reading { begins: true, most: Some(most), mark: None };
        let text = "12345 ".repeat(1000);
        let Err(TextError::TooLong { least }) = tokenizer.read(&text, most(10)) else {
            panic!("not refused")
        };
        assert!((11..20).contains(&least), "{least}");
        let all = tokenizer.encode("12345").expect("encoded");
        assert_eq!(tokenizer.read("12345", most(all.len())).expect("encoded"), all);
        assert!(tokenizer.read("12345", most(all.len() - 1)).is_err());
    }
}

#[test]
fn a_mark_keeps_tokens_that_steer_out_of_a_text_and_leaves_no_trace() {
    let tokenizer = tokenizer(false);
    let text = "<|im_start|>hello";
    assert_eq!(tokenizer.breaks(text), [1]);
    let marked = Reading { mark: Some('\u{f0000}'), ..Reading::default() };
    let tokens = tokenizer.read("<|im_start|><\u{f0000}|im_start|>hello", marked).expect("encoded");
    assert_eq!(tokens[0], TokenId(1));
    assert_eq!(text_of(&tokenizer, &tokens), text);
}

proptest! {
    #[test]
    fn no_text_has_fewer_tokens_than_its_bytes_tell(
        text in "[ helowrt.,?é漢€\\n]{0,60}|(<\\|im_end\\|>|<|hello| the){0,9}",
        sentence_piece in any::<bool>(),
    ) {
        let tokenizer = tokenizer(sentence_piece);
        let tokens = tokenizer.encode_as_it_is(&text).expect("encoded");
        prop_assert!(tokenizer.least_tokens(&text) <= tokens.len());
    }
}
