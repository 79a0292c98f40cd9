//! What a text must be like in which functions may be called, where some of them are strict: it is free, but a call in
//! it is one of a function that there is, and those of strict functions are by their schemas.

use swarm_types::Grammar;

use super::{
    api::Tool,
    forced::up_to_others,
    format::{Marks, ToolFormat},
    lark::{Rules, TooLong, literal, mark},
    thinking,
};
use crate::text::Tokenizer;

/// A message that does not begin with what may be a call without a mark.
const NOT_BARE: &str = r"[ \t\r\n]*[^{\[ \t\r\n](.|\n)*";

/// A text in which functions may be called. Where the model `thinks`, it may do so first.
///
/// # Errors
/// When the schemas are too long together.
pub(super) fn grammar(
    format: ToolFormat,
    tools: &[&Tool],
    thinks: bool,
    tokenizer: &Tokenizer,
) -> Result<Grammar, TooLong> {
    let Marks { open, bare, .. } = format.marks();
    let thought = if thinks { "thought? " } else { "" };
    let mut rules = Rules::default();
    // The shortest text up to a mark ends there, so that what comes behind one is a call. A longer one has no mark.
    rules.add("TEXT: /(.|\\n)+/\n")?;
    rules.add(&up_to("opened", r"(.|\n)*", "TEXT?", open, tokenizer))?;
    rules.add(&format!("marked: {}\n", marked(format, tokenizer)))?;
    if bare {
        rules.add(&format!(
            "start: {thought}(bare | first marked (opened marked)* TEXT? | OTHER | BLANKS)?\n"
        ))?;
        rules.add(&format!(
            "bare: BLANKS? {}\nBLANKS: /[ \\t\\r\\n]+/\nOTHER: /{NOT_BARE}/\n",
            calls(format)
        ))?;
        rules.add(&up_to(
            "first",
            &format!("({NOT_BARE}|[ \\t\\r\\n]*)"),
            "(OTHER | BLANKS)?",
            open,
            tokenizer,
        ))?;
    } else {
        rules.add(&format!("start: {thought}(opened marked)* TEXT?\n"))?;
    }
    if thinks {
        rules.add(&thoughts(tokenizer))?;
    }
    rules.add_call(format, tools, |tool| tool.strict)?;
    Ok(Grammar::Lark(rules.text().into()))
}

/// The rule of a text up to a mark and with it: `pattern` is what it is before a mark of characters, `rule` before one
/// that is a token, which is in no text.
fn up_to(name: &str, pattern: &str, rule: &str, open: &str, tokenizer: &Tokenizer) -> String {
    match tokenizer.control(open) {
        Some(_) => format!("{name}: {rule} {}\n", mark(open, tokenizer)),
        None => format!("{name}[lazy]: /{pattern}{}/\n", escaped(open)),
    }
}

/// What comes behind the opening mark.
fn marked(format: ToolFormat, tokenizer: &Tokenizer) -> String {
    match format.marks().close {
        Some(close) => format!("\"\\n\"? {} \"\\n\"? {}", calls(format), mark(close, tokenizer)),
        None => calls(format),
    }
}

fn calls(format: ToolFormat) -> String {
    let list = format!(r#""[" call (", " call){} "]""#, up_to_others());
    match format {
        ToolFormat::Hermes => "call".into(),
        ToolFormat::Llama3Json => format!("call ({} call){}", literal("; "), up_to_others()),
        ToolFormat::Json => format!("(call | {list})"),
        ToolFormat::Mistral | ToolFormat::Pythonic => list,
    }
}

/// What is thought before anything is said. The prompt may have begun it.
fn thoughts(tokenizer: &Tokenizer) -> String {
    let open = match tokenizer.control(thinking::OPEN) {
        Some(_) => format!("{}? ", mark(thinking::OPEN, tokenizer)),
        None => String::new(),
    };
    let thinks = up_to("thinks", r"(.|\n)*", "TEXT?", thinking::CLOSE, tokenizer);
    format!("thought: {open}thinks\n{thinks}")
}

/// A text in a regular expression between slashes.
fn escaped(text: &str) -> String {
    let escape = |c: char| if r"\.+*?()|[]{}^$/".contains(c) { format!("\\{c}") } else { c.into() };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use gguf::tiny::TinyModel;
    use serde_json::json;

    use super::*;
    use crate::text::ServedModel;

    /// How far a text is taken, and whether it may end there.
    async fn taken(format: ToolFormat, thinks: bool, text: &str) -> (String, bool) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("tiny.gguf");
        TinyModel { layers: 1, ..TinyModel::default() }.write(&path).expect("written");
        let model = ServedModel::for_tests(&path);
        let parameters = json!({"properties": {"a": {"type": "integer"}}, "required": ["a"]});
        let tool = |name: &str, strict| {
            let (name, parameters) = (name.into(), parameters.clone());
            Tool { name, description: None, parameters, strict }
        };
        let grammar = grammar(format, &[&tool("f", true), &tool("g", false)], thinks, model.tokenizer());
        let ready = model.grammars().ready(grammar.expect("short enough")).await.expect("understood");
        let (mut matcher, mut bytes) = (ready.matcher(), vec![]);
        for token in model.tokenizer().encode_as_it_is(text).expect("tokens") {
            if !matcher.allows(token).expect("it goes on") {
                break;
            }
            matcher.take(token).expect("allowed");
            bytes.extend_from_slice(model.tokenizer().bytes(token));
        }
        let ends = matcher.allows(model.tokenizer().end_tokens()[0]).expect("it goes on");
        (String::from_utf8_lossy(&bytes).into_owned(), ends)
    }

    async fn is_whole(format: ToolFormat, thinks: bool, text: &str) {
        assert_eq!(taken(format, thinks, text).await, (text.into(), true), "{format:?} {thinks}");
    }

    /// All is taken but what begins here.
    async fn stops(format: ToolFormat, text: &str, wrong: &str) {
        let whole = format!("{text}{wrong}");
        assert_eq!(taken(format, false, &whole).await, (text.into(), false), "{format:?} {wrong}");
    }

    fn call(name: &str, arguments: &str) -> String {
        format!("{{\"name\": \"{name}\", \"arguments\": {arguments}}}")
    }

    #[tokio::test]
    async fn a_text_is_free_until_a_call_begins_and_behind_it() {
        let (f, g) = (call("f", r#"{"a": 1}"#), call("g", r#"{"b": [true]}"#));
        for text in ["", "Hi.\n{\"a\": 1} <tool", " \n"] {
            is_whole(ToolFormat::Hermes, false, text).await;
            is_whole(ToolFormat::Mistral, false, text).await;
        }
        for text in ["Hi", "", "  ", "<tool", "so: {\"a\": 1}"] {
            is_whole(ToolFormat::Json, false, text).await;
            is_whole(ToolFormat::Llama3Json, false, text).await;
            is_whole(ToolFormat::Pythonic, false, text).await;
        }
        let marked = format!("Well.\n<tool_call>\n{f}\n</tool_call>\n<tool_call>{g}</tool_call> done");
        is_whole(ToolFormat::Hermes, false, &marked).await;
        is_whole(ToolFormat::Json, false, &marked).await;
        is_whole(ToolFormat::Json, false, &f).await;
        is_whole(ToolFormat::Json, false, &format!("\n[{g}, {f}]")).await;
        is_whole(ToolFormat::Mistral, false, &format!("So [TOOL_CALLS][{f}, {g}]")).await;
        is_whole(ToolFormat::Llama3Json, false, &f.replace("arguments", "parameters")).await;
        is_whole(ToolFormat::Pythonic, false, r#"[f(a=1), g(b="x", c=[1])]"#).await;
        is_whole(ToolFormat::Pythonic, false, "So <|python_start|>[g(), f(a=2)]<|python_end|>").await;
    }

    #[tokio::test]
    async fn a_call_is_of_a_function_that_there_is_and_by_the_schema_of_a_strict_one() {
        let head = "Hi <tool_call>\n{\"name\": \"";
        stops(ToolFormat::Hermes, head, "h").await;
        stops(ToolFormat::Hermes, &format!("{head}f\", \"arguments\": {{\"a\": "), "\"x\"}").await;
        stops(ToolFormat::Hermes, &format!("{head}g\", \"arguments\": "), "1").await;
        stops(ToolFormat::Json, "{\"name\": \"f\", \"arguments\": {", "}").await;
        stops(ToolFormat::Json, "{\"", "answer\": 1}").await;
        stops(ToolFormat::Pythonic, "[f(a=", "True)]").await;
        stops(ToolFormat::Mistral, "[TOOL_CALLS]", "f").await;
    }

    #[tokio::test]
    async fn who_thinks_first_may_think_of_anything() {
        let f = call("f", r#"{"a": 1}"#);
        is_whole(ToolFormat::Json, true, &format!("<think>{{</think>\n{f}")).await;
        is_whole(ToolFormat::Json, true, &format!("begun by the prompt </think>{f}")).await;
        is_whole(ToolFormat::Hermes, true, &format!("<think>so</think>Hi <tool_call>{f}</tool_call>")).await;
        is_whole(ToolFormat::Hermes, true, "Hi").await;
    }
}
