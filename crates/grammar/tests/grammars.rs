//! Grammars over the tokens of a small model: what is allowed, where a text ends, and what hostile ones cost.

use std::time::{Duration, Instant};

use gguf::tiny::TinyModel;
use grammar::{GrammarError, Matcher, Vocabulary};
use swarm_types::{Grammar, TokenId};

struct Model {
    vocabulary: Vocabulary,
    bytes: Vec<Vec<u8>>,
    end: Vec<u32>,
}

fn model() -> Model {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("tiny.gguf");
    TinyModel { layers: 1, ..TinyModel::default() }.write(&path).expect("written");
    let header = gguf::Header::read(&path).expect("valid");
    let tokens = gguf::Vocabulary::from_header(&header).expect("tokens");
    let vocabulary = Vocabulary::read(&path).expect("arranged");
    Model { vocabulary, bytes: tokens.bytes, end: tokens.end }
}

impl Model {
    fn matcher(&self, grammar: Grammar) -> Matcher {
        self.vocabulary.ready(&grammar).expect("ready").matcher()
    }

    /// The longest tokens of a text.
    fn tokens(&self, text: &str) -> Vec<TokenId> {
        let (mut rest, mut tokens) = (text.as_bytes(), vec![]);
        while !rest.is_empty() {
            let fits = |(_, bytes): &(usize, &Vec<u8>)| !bytes.is_empty() && rest.starts_with(bytes);
            let longest = self.bytes.iter().enumerate().filter(fits).max_by_key(|(_, bytes)| bytes.len());
            let (id, bytes) = longest.expect("every byte is a token");
            rest = &rest[bytes.len()..];
            tokens.push(TokenId(id as u32));
        }
        tokens
    }

    /// How the text fares: token by token, and whether it may end behind.
    fn takes(&self, grammar: Grammar, text: &str) -> bool {
        let mut matcher = self.matcher(grammar);
        for token in self.tokens(text) {
            if !matcher.allows(token).expect("no error") {
                return false;
            }
            assert!(
                matcher.mask().expect("a mask").allows(token),
                "mask and check differ at {token} in {text:?}"
            );
            matcher.take(token).expect("allowed");
        }
        matcher.allows(TokenId(self.end[0])).expect("no error")
    }
}

fn schema(text: &str) -> Grammar {
    Grammar::JsonSchema(text.into())
}

const PERSON: &str = r#"{"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"], "additionalProperties": false}"#;

#[test]
fn a_text_is_held_to_its_grammar_and_ends_only_where_it_is_complete() {
    let model = model();
    let person = || schema(PERSON);
    assert!(model.takes(person(), r#"{"name": "Ann", "age": 7}"#));
    assert!(model.takes(person(), r#"{"name": "caf\u00e9 é", "age": 7}"#), "escapes as people write them");
    for wrong in [r#"{"name": "Ann", "age": 7"#, r#"{"age": 7"#, r#"{"name": 7"#, "hello", "", "{\n"] {
        assert!(!model.takes(person(), wrong), "{wrong}");
    }
    assert!(model.takes(Grammar::Regex("(yes|no)".into()), "yes"));
    assert!(!model.takes(Grammar::Regex("(yes|no)".into()), "yess"));
    assert!(model.takes(Grammar::Lark("start: \"a\" start \"b\" | \"c\"".into()), "aacbb"));
    assert!(!model.takes(Grammar::Lark("start: \"a\" start \"b\" | \"c\"".into()), "aacb"));
    assert!(model.takes(schema(r#"{"type": "object"}"#), r#"{"x": [1, {"y": null}]}"#));
    assert!(model.takes(schema("true"), "[1]"));
}

#[test]
fn behind_a_complete_text_only_its_end_may_come() {
    let model = model();
    let mut matcher = model.matcher(Grammar::Regex("ab".into()));
    for token in model.tokens("ab") {
        matcher.take(token).expect("allowed");
    }
    let mask = matcher.mask().expect("a mask");
    let allowed: Vec<u32> = (0..model.bytes.len() as u32).filter(|id| mask.allows(TokenId(*id))).collect();
    assert_eq!(allowed, model.end);
    assert!(!mask.allows(TokenId(u32::MAX)) && !mask.is_empty());
    matcher.take(TokenId(model.end[0])).expect("the end");
    assert!(matcher.allows(TokenId(model.end[0])).expect("no error"));
    assert!(!matcher.allows(model.tokens("a")[0]).expect("no error"));
}

#[test]
fn a_matcher_built_again_from_the_tokens_says_the_same_from_there_on() {
    let model = model();
    let ready = model.vocabulary.ready(&schema(PERSON)).expect("ready");
    let tokens = model.tokens(r#"{"name": "Ann and her friends", "age": 1234}"#);
    let mut first = ready.matcher();
    for taken in 0..tokens.len() {
        let mut again = ready.matcher();
        tokens[..taken].iter().for_each(|token| again.take(*token).expect("allowed"));
        let (mask, other) = (first.mask().expect("a mask"), again.mask().expect("a mask"));
        let same = |id| mask.allows(TokenId(id)) == other.allows(TokenId(id));
        assert!((0..model.bytes.len() as u32).all(same), "behind {taken} tokens");
        first.take(tokens[taken]).expect("allowed");
    }
    assert_eq!(first.taken() as usize, tokens.len());
}

/// A small schema that makes a large one: each way of `a` and each other, with all of `b`.
fn alternatives() -> String {
    let properties: Vec<String> = (0..4000).map(|n| format!(r#""p{n}": true"#)).collect();
    let ways = vec![r#"{"type": "array"}"#; 140].join(", ");
    format!(
        r##"{{"allOf": [{{"$ref": "#/$defs/b"}}, {{"$ref": "#/$defs/a"}}, {{"$ref": "#/$defs/a"}}], "$defs": {{
            "a": {{"anyOf": [{ways}]}}, "b": {{"type": "array", "items": {{"properties": {{{}}}}}}}}}}}"##,
        properties.join(", ")
    )
}

/// Grammars that are wrong, or made to cost much.
fn hostile() -> Vec<(&'static str, Grammar)> {
    let deep = |open: &str, close: &str, levels: usize| open.repeat(levels) + "1" + &close.repeat(levels);
    let properties: Vec<String> =
        (0..2000).map(|n| format!(r#""property_{n}": {{"type": "string"}}"#)).collect();
    let chain: Vec<String> = (0..3000).map(|n| format!("r{n}: r{}", n + 1)).collect();
    let lark = |text: String| Grammar::Lark(text.into());
    vec![
        ("not JSON", schema("{")),
        ("alternatives of alternatives", schema(&alternatives())),
        (
            "many alternatives",
            schema(&format!(r#"{{"oneOf": [{}]}}"#, vec![r#"{"type": "object"}"#; 900].join(", "))),
        ),
        ("no schema", schema("7")),
        ("false", schema("false")),
        ("unknown type", schema(r#"{"type": "strange"}"#)),
        ("a reference to nothing", schema(r##"{"$ref": "#/$defs/nothing"}"##)),
        ("a reference to itself", schema(r##"{"$ref": "#"}"##)),
        ("a reference abroad", schema(r#"{"$ref": "https://example.org/schema.json"}"#)),
        ("deep", schema(&deep(r#"{"items":"#, "}", 5000).replace('1', "true"))),
        ("many properties", schema(&format!(r#"{{"properties": {{{}}}}}"#, properties.join(", ")))),
        ("long", schema(&format!(r#"{{"const": "{}"}}"#, "x".repeat(70_000)))),
        ("a huge count", schema(r#"{"type": "array", "minItems": 1000000000, "items": {"type": "string"}}"#)),
        ("a huge length", schema(r#"{"type": "string", "minLength": 100000000}"#)),
        ("a pattern that explodes", schema(r#"{"type": "string", "pattern": "^(a|b|ab)*(.{1000}){1000}$"}"#)),
        ("no regex", Grammar::Regex("(".into())),
        ("nested repeats", Grammar::Regex("((((((a{100}){100}){100}){100}){100}){100})".into())),
        ("deep groups", Grammar::Regex(deep("(", ")", 20_000).into())),
        ("look-around", Grammar::Regex("(?<=a)b".into())),
        ("no Lark", lark("this is not a grammar".into())),
        ("no start", lark("a: \"b\"".into())),
        ("a rule of itself", lark("start: start".into())),
        ("deep Lark", lark(format!("start: {}", deep("(", ")", 20_000)))),
        ("a chain of rules", lark(format!("start: r0\n{}\nr3000: \"x\"", chain.join("\n")))),
        ("ambiguous", lark("start: start start | \"a\" | \"aa\" | \"\"".into())),
    ]
}

#[test]
fn hostile_grammars_are_refused_or_ready_in_bounded_time_and_never_break_anything() {
    let model = model();
    let mut refused = vec![];
    for (name, grammar) in hostile() {
        let started = Instant::now();
        let ready = model.vocabulary.ready(&grammar);
        let took = started.elapsed();
        eprintln!("{name}: {} in {took:?}", ready.as_ref().err().map_or("ready".into(), ToString::to_string));
        assert!(took < Duration::from_secs(5), "{name} took {took:?}");
        match ready {
            Err(GrammarError::Invalid(_)) => refused.push(name),
            Err(other) => panic!("{name}: {other}"),
            Ok(ready) => {
                let mut matcher = ready.matcher();
                for token in model.tokens("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa") {
                    let started = Instant::now();
                    let mask = matcher.mask();
                    let took = started.elapsed();
                    assert!(took < Duration::from_secs(1), "{name}: a mask took {took:?}");
                    if mask.is_err() {
                        break;
                    }
                    if !matcher.allows(token).unwrap_or(false) || matcher.take(token).is_err() {
                        break;
                    }
                }
            }
        }
    }
    for name in
        ["not JSON", "no schema", "deep", "long", "a reference to nothing", "no regex", "no Lark", "no start"]
    {
        assert!(refused.contains(&name), "{name} was taken");
    }
}
