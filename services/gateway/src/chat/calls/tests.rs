//! Calls in all forms, and what is none.

use proptest::prelude::*;

use super::{Calls, Piece, ToolFormat};

/// What was said, the calls with their arguments, and how many of these were a whole JSON object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Told {
    said: String,
    calls: Vec<(String, String)>,
    complete: u32,
}

fn told(said: &str, calls: &[(&str, &str)]) -> Told {
    let complete = calls.len() as u32;
    let calls = calls.iter().map(|(name, arguments)| ((*name).into(), (*arguments).into())).collect();
    Told { said: said.into(), calls, complete }
}

fn read_parts(format: ToolFormat, only_one: bool, parts: &[&str]) -> Told {
    let names = ["f", "get_time", "g"].map(str::to_owned).to_vec();
    let mut calls = Calls::new(format, names, only_one);
    let mut pieces: Vec<Piece> = parts.iter().flat_map(|part| calls.push(part)).collect();
    pieces.extend(calls.finish());
    let mut told = Told { complete: calls.complete, ..Told::default() };
    for piece in pieces {
        match piece {
            Piece::Said(text) => told.said += &text,
            Piece::Call { index, name } => {
                assert_eq!(index as usize, told.calls.len(), "calls are counted");
                told.calls.push((name, String::new()));
            }
            Piece::Arguments { index, text } => told.calls[index as usize].1 += &text,
        }
    }
    told
}

fn read(format: ToolFormat, text: &str) -> Told {
    read_parts(format, false, &[text])
}

#[test]
fn hermes_calls_are_told_and_the_text_around_them_stays() {
    let read = |text: &str| read(ToolFormat::Hermes, text);
    let one = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}</tool_call>\"}}\n</tool_call>";
    assert_eq!(read(one), told("", &[("f", "{\"a\": \"}</tool_call>\"}")]));
    let two = format!("Wait.\n\n{one}\n<tool_call>{{\"name\":\"g\",\"arguments\":{{}}}}</tool_call>\n");
    assert_eq!(read(&two), told("Wait.", &[("f", "{\"a\": \"}</tool_call>\"}"), ("g", "{}")]));
    assert_eq!(read(&format!("{one} Done. ")), told(" Done. ", &[("f", "{\"a\": \"}</tool_call>\"}")]));
    // The order of members, a text for the arguments, none at all, a list, and an end that is not there.
    for (text, arguments) in [
        (r#"{"arguments": {"a": 1}, "name": "f"}"#, r#"{"a": 1}"#),
        (r#"{"name": "f", "arguments": "{\"a\": 1}"}"#, r#"{"a": 1}"#),
        (r#"{"arguments": "{}", "id": "x", "type": "function", "name": "f"}"#, "{}"),
        (r#"{"name": "f"}"#, "{}"),
        (r#"{"name": "f", "arguments": null}"#, "{}"),
        (r#"[{"name": "f", "parameters": {}}]"#, "{}"),
        (r#"{"name": "f", "arguments": {}"#, "{}"),
        (r#"{"name": "f", "arguments": {}, "why": [1, "x"], "name": "g"}"#, "{}"),
    ] {
        assert_eq!(read(&format!("<tool_call>{text}</tool_call>")), told("", &[("f", arguments)]), "{text}");
        assert_eq!(read(&format!("<tool_call>{text}")), told("", &[("f", arguments)]), "{text}");
    }
}

#[test]
fn what_only_looks_like_a_call_is_text_as_it_was() {
    for text in [
        "a <tool_call b",
        "<tool_call>",
        "<tool_call>\nnothing</tool_call>",
        "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": 1}</tool_call> x",
        "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": \"x\"}</tool_call>",
        "<tool_call>{\"arguments\": {}}</tool_call>",
        "<tool_call>{}</tool_call>",
        "<tool_call>[]</tool_call>",
        "<tool_call>[f()]</tool_call>",
        "{\"name\": \"f",
        "{\"answer\": 1}",
        "[1, 2]",
        "[x](y)",
        "  ",
        "<<tool_call>>",
        "1 < 2",
    ] {
        for format in [ToolFormat::Hermes, ToolFormat::Json, ToolFormat::Llama3Json, ToolFormat::Pythonic] {
            assert_eq!(read(format, text), told(text, &[]), "{format:?}");
        }
    }
    let bare = r#"{"name": "f", "arguments": {}}"#;
    assert_eq!(read(ToolFormat::Hermes, bare), told(bare, &[]));
    let late = format!("So: {bare}");
    assert_eq!(read(ToolFormat::Json, &late), told(&late, &[]));
    // Behind what is none, one may follow.
    let text = "<tool_call>x<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    assert_eq!(read(ToolFormat::Hermes, text), told("<tool_call>x", &[("f", "{}")]));
}

#[test]
fn other_families_are_understood() {
    let call = r#"{"name": "f", "parameters": {"a": 1}}"#;
    let f = ("f", r#"{"a": 1}"#);
    for text in [call.to_owned(), format!("\n<|python_tag|>{call}"), format!("{call}\n")] {
        assert_eq!(read(ToolFormat::Llama3Json, &text), told("", &[f]), "{text}");
    }
    assert_eq!(read(ToolFormat::Llama3Json, &format!("{call}; {call}")), told("", &[f, f]));
    assert_eq!(read(ToolFormat::Llama3Json, &format!("{call}\n{call}, so")), told(", so", &[f, f]));

    let list = format!("[TOOL_CALLS][{call}, {call}]");
    assert_eq!(read(ToolFormat::Mistral, &list), told("", &[f, f]));
    assert_eq!(read(ToolFormat::Mistral, &format!("So.{list}")), told("So.", &[f, f]));
    assert_eq!(read(ToolFormat::Mistral, &format!("[TOOL_CALLS]{call}")), told("", &[f]));

    for text in [call.to_owned(), format!("[{call}]"), format!("<tool_call>[{call}]</tool_call>")] {
        assert_eq!(read(ToolFormat::Json, &text), told("", &[f]), "{text}");
    }

    let python = r#"[f(a=1), get_time(), g(x="a, (b", y=[True])]"#;
    let expected = [("f", r#"{"a":1}"#), ("get_time", "{}"), ("g", r#"{"x":"a, (b","y":[true]}"#)];
    assert_eq!(read(ToolFormat::Pythonic, python), told("", &expected));
    let marked = format!("<|python_start|>{python}<|python_end|>");
    assert_eq!(read(ToolFormat::Pythonic, &marked), told("", &expected));
    for text in ["[f(a=b)]", "[unknown()]", "[f(", "[f", "f()"] {
        assert_eq!(read(ToolFormat::Pythonic, text), told(text, &[]));
    }
}

#[test]
fn a_call_that_is_cut_off_is_told_as_far_as_it_came_but_is_not_complete() {
    let text = r#"<tool_call>{"name": "f", "arguments": {"a": "x"#;
    let cut = Told { complete: 0, ..told("", &[("f", r#"{"a": "x"#)]) };
    assert_eq!(read(ToolFormat::Hermes, text), cut);
}

#[test]
fn a_call_whose_arguments_are_no_json_is_told_but_is_not_complete() {
    let text = r#"<tool_call>{"name": "f", "arguments": {"a": x}}</tool_call>"#;
    let broken = Told { complete: 0, ..told("", &[("f", r#"{"a": x}"#)]) };
    assert_eq!(read(ToolFormat::Hermes, text), broken);
    let then = format!(r#"{text}<tool_call>{{"name": "g", "arguments": {{}}}}</tool_call>"#);
    let one = Told { complete: 1, ..told("", &[("f", r#"{"a": x}"#), ("g", "{}")]) };
    assert_eq!(read(ToolFormat::Hermes, &then), one);
}

/// Each place where blanks may come holds many of them. With an effort that grows with the square this would take
/// minutes.
#[test]
fn a_long_run_of_blanks_is_read_in_any_place() {
    let blanks = " \n".repeat(100_000);
    let call = |name: &str| format!("<tool_call>{{\"name\": \"{name}\", \"arguments\": {{}}}}");
    let before = call("f").replace('{', &format!("{blanks}{{"));
    for (format, before, after) in [
        (ToolFormat::Hermes, String::new(), "x".to_owned()),
        (ToolFormat::Hermes, "x".into(), call("f")),
        (ToolFormat::Hermes, "<tool_call>".into(), before),
        (ToolFormat::Hermes, call("f"), format!("</tool_call>{}", call("g"))),
        (ToolFormat::Hermes, call("f") + "</tool_call>", call("g")),
        (ToolFormat::Json, call("f"), ", so".into()),
        (ToolFormat::Pythonic, "[f(".into(), "), g()]".into()),
        (ToolFormat::Pythonic, "[f()".into(), ", g()]".into()),
    ] {
        let text = format!("{before}{blanks}{after}");
        let letters: Vec<&str> = text.split_inclusive(['\n', 'x']).collect();
        assert_eq!(read_parts(format, false, &letters), read(format, &text), "{format:?}");
    }
}

#[test]
fn where_only_one_may_be_called_nothing_comes_behind_it() {
    let call = r#"<tool_call>{"name": "f", "arguments": {}}</tool_call>"#;
    let text = format!("So.{call}{call} Then.");
    assert_eq!(read_parts(ToolFormat::Hermes, true, &[&text]), told("So.", &[("f", "{}")]));
}

#[test]
fn a_call_is_told_as_soon_as_it_is_certain_and_text_is_not_held_for_long() {
    let mut calls = Calls::new(ToolFormat::Hermes, vec!["f".into()], false);
    assert_eq!(calls.push("a <"), [Piece::Said("a".into())]);
    assert_eq!(calls.push("b"), [Piece::Said(" <b".into())]);
    assert!(calls.push("<tool_call>{\"name\": \"f\", \"arguments\": ").is_empty());
    let begins = Piece::Call { index: 0, name: "f".into() };
    assert_eq!(calls.push("{\"a\""), [begins, Piece::Arguments { index: 0, text: "{\"a\"".into() }]);
    assert_eq!(calls.push(": 1"), [Piece::Arguments { index: 0, text: ": 1".into() }]);
}

/// Pieces that calls and what looks like them are made of.
const WORDS: &str = "(<tool_call>|</tool_call>|<\\|python_tag\\|>|\\[TOOL_CALLS\\]|\
    \\{\"name\": \"f\", |\"arguments\": |\\{\"a\": \\[1\\]\\}|\\{\"name\": \"g\", \"parameters\": \\{\\}\\}|\
    \\}|\\]|\\[|f\\(|a=1|\\)|, |;|\n| |\"|\\\\|null|<|é)";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn it_does_not_matter_how_the_text_is_cut(
        words in proptest::collection::vec(WORDS, 0..14),
        cuts in proptest::collection::vec(0usize..200, 0..12),
        format in proptest::sample::select(vec![
            ToolFormat::Hermes, ToolFormat::Json, ToolFormat::Llama3Json, ToolFormat::Mistral, ToolFormat::Pythonic,
        ]),
        only_one: bool,
    ) {
        let text = words.concat();
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| text.is_char_boundary(*cut)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let parts: Vec<&str> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        let whole = read_parts(format, only_one, &[&text]);
        prop_assert_eq!(read_parts(format, only_one, &parts), whole.clone());
        if whole.calls.is_empty() {
            prop_assert_eq!(whole.said, text, "what has no call is text as it was");
        }
    }
}
