//! What a text must be like that has to call functions: a grammar in the form that the model's family writes, with the
//! functions' own schemas. In Lark, as llguidance reads it.

use std::fmt::Write;

use grammar::on_one_line;
use serde_json::{Map, Value};
use swarm_types::{Grammar, GrammarTooLong};

use super::{api::Tool, format::ToolFormat};
use crate::text::Tokenizer;

/// A model that has to call something and may do so again may never come to an end; small ones do not.
const MOST_CALLS: usize = 4;

/// A text that calls one of the functions, or several calls where `several` are allowed.
///
/// # Errors
/// When the schemas are too long together.
pub(super) fn grammar(
    format: ToolFormat,
    tools: &[&Tool],
    several: bool,
    tokenizer: &Tokenizer,
) -> Result<Grammar, GrammarTooLong> {
    let mark = |mark: &str| match tokenizer.control(mark) {
        // No text makes this token.
        Some(token) => format!("<[{}]>", token.0),
        None => literal(mark),
    };
    let mut rules = start(format, several, mark) + "\n";
    let names: Vec<String> = (0..tools.len()).map(|place| format!("f{place}")).collect();
    rules += &format!("call: {}\n", names.join(" | "));
    for (place, tool) in tools.iter().enumerate() {
        match format {
            ToolFormat::Pythonic => rules += &pythonic(place, tool),
            _ => {
                let key = if format == ToolFormat::Llama3Json { "parameters" } else { "arguments" };
                let head = literal(&format!("{{\"name\": \"{}\", \"{key}\": ", tool.name));
                rules += &format!("f{place}: {head} %json {} \"}}\"\n", object(&tool.parameters));
            }
        }
    }
    Grammar::Lark(rules.into()).validated()
}

/// How often what stands before it may come, behind the first call.
fn up_to_others() -> String {
    format!("{{0,{}}}", MOST_CALLS - 1)
}

fn start(format: ToolFormat, several: bool, mark: impl Fn(&str) -> String) -> String {
    let more = |between: &str| match several {
        true => format!(" ({} call){}", literal(between), up_to_others()),
        false => String::new(),
    };
    match format {
        ToolFormat::Hermes => {
            let marked =
                format!("marked: {} \"\\n\" call \"\\n\" {}", mark("<tool_call>"), mark("</tool_call>"));
            let others = if several { format!(" (\"\\n\" marked){}", up_to_others()) } else { String::new() };
            format!("start: marked{others}\n{marked}")
        }
        ToolFormat::Llama3Json => format!("start: call{}", more("; ")),
        ToolFormat::Json if several => format!("start: call | \"[\" call{} \"]\"", more(", ")),
        ToolFormat::Json => "start: call".into(),
        ToolFormat::Mistral => format!("start: {} \"[\" call{} \"]\"", mark("[TOOL_CALLS]"), more(", ")),
        ToolFormat::Pythonic => format!("start: \"[\" call{} \"]\"", more(", ")),
    }
}

/// `f(a=…, b=…)`: those that must be there in their order, and behind them any of the others in theirs.
fn pythonic(place: usize, tool: &Tool) -> String {
    let schema = object(&tool.parameters);
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let must = |name: &String| {
        schema["required"]
            .as_array()
            .is_some_and(|names| names.iter().any(|must| must.as_str() == Some(name)))
    };
    let (required, optional): (Vec<_>, Vec<_>) = properties.iter().partition(|(name, _)| must(name));
    let mut rules = String::new();
    for (number, (name, value)) in required.iter().chain(&optional).enumerate() {
        let value = within(&schema, value);
        let _ = writeln!(rules, "f{place}a{number}: {} %json {value}", literal(&format!("{name}=")));
    }
    let argument = |number: usize| format!("f{place}a{number}");
    let count = properties.len();
    let tail = |from: usize| {
        (from..count).map(|number| format!(" (\", \" {})?", argument(number))).collect::<String>()
    };
    let first: Vec<String> = (0..required.len()).map(argument).collect();
    let arguments = match required.is_empty() {
        false => first.join(" \", \" ") + &tail(required.len()),
        true => {
            let each = (0..count).map(|number| format!("{}{}", argument(number), tail(number + 1)));
            each.collect::<Vec<_>>().join(" | ")
        }
    };
    let arguments = match (arguments.is_empty(), required.is_empty()) {
        (true, _) => String::new(),
        (_, true) => format!("({arguments})? "),
        (_, false) => format!("{arguments} "),
    };
    format!("f{place}: {} {arguments}\")\"\n{rules}", literal(&format!("{}(", tool.name)))
}

/// A schema of arguments: they are always an object.
fn object(schema: &Value) -> Value {
    let mut schema = schema.as_object().cloned().unwrap_or_default();
    schema.insert("type".into(), "object".into());
    on_one_line(schema)
}

/// A part of a schema by itself, with what it may refer to.
fn within(whole: &Value, part: &Value) -> Value {
    let part = if *part == Value::Bool(true) { Value::Object(Map::new()) } else { part.clone() };
    let definitions = ["$defs", "definitions"].into_iter().filter_map(|key| Some((key, whole.get(key)?)));
    match part {
        Value::Object(mut part) => {
            part.extend(definitions.map(|(key, value)| (key.to_owned(), value.clone())));
            on_one_line(part)
        }
        part => part,
    }
}

/// A text as Lark writes it.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use gguf::{Header, tiny::TinyModel};
    use serde_json::json;

    use super::*;

    fn lark(format: ToolFormat, parameters: Value, several: bool) -> String {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("tiny.gguf");
        TinyModel { layers: 1, ..TinyModel::default() }.write(&path).expect("written");
        let tokenizer = Tokenizer::from_header(&Header::read(&path).expect("valid")).expect("a tokenizer");
        let tool = |name: &str| Tool {
            name: name.into(),
            description: None,
            parameters: parameters.clone(),
            strict: false,
        };
        let grammar = grammar(format, &[&tool("f"), &tool("g")], several, &tokenizer).expect("short enough");
        // How documents are written is the same in all of them.
        let written = on_one_line(Map::new()).to_string();
        grammar.text().replace(&format!(",{}", &written[1..written.len() - 1]), "")
    }

    #[test]
    fn calls_have_the_form_of_the_family() {
        let parameters = json!({"properties": {"a": {"type": "integer"}}});
        let json = r#"{"properties":{"a":{"type":"integer"}},"type":"object"}"#;
        let call = |key: &str| {
            let one = |place: usize, name: &str| {
                format!("f{place}: \"{{\\\"name\\\": \\\"{name}\\\", \\\"{key}\\\": \" %json {json} \"}}\"\n")
            };
            format!("call: f0 | f1\n{}{}", one(0, "f"), one(1, "g"))
        };
        let start = |format, several| {
            let key = if format == ToolFormat::Llama3Json { "parameters" } else { "arguments" };
            let lark = lark(format, parameters.clone(), several);
            lark.strip_suffix(&call(key)).unwrap_or_else(|| panic!("{lark}")).to_owned()
        };
        let marked = "marked: \"<tool_call>\" \"\\n\" call \"\\n\" \"</tool_call>\"\n";
        assert_eq!(start(ToolFormat::Hermes, false), format!("start: marked\n{marked}"));
        assert_eq!(
            start(ToolFormat::Hermes, true),
            format!("start: marked (\"\\n\" marked){{0,3}}\n{marked}")
        );
        assert_eq!(start(ToolFormat::Json, false), "start: call\n");
        assert_eq!(start(ToolFormat::Json, true), "start: call | \"[\" call (\", \" call){0,3} \"]\"\n");
        assert_eq!(start(ToolFormat::Llama3Json, true), "start: call (\"; \" call){0,3}\n");
        assert_eq!(start(ToolFormat::Mistral, false), "start: \"[TOOL_CALLS]\" \"[\" call \"]\"\n");
    }

    #[test]
    fn arguments_of_python_come_in_order_and_those_that_need_not_be_there_need_not() {
        let function = |parameters: Value| {
            let lark = lark(ToolFormat::Pythonic, parameters, false);
            let lines: Vec<&str> = lark.lines().filter(|line| line.starts_with("f0")).collect();
            lines.join("\n")
        };
        assert_eq!(function(json!({})), r#"f0: "f(" ")""#);
        let some = json!({
            "properties": {"b": {}, "a": {"$ref": "#/$defs/A"}, "c": true}, "required": ["a"], "$defs": {"A": {}},
        });
        let expected = "f0: \"f(\" f0a0 (\", \" f0a1)? (\", \" f0a2)? \")\"\n\
                        f0a0: \"a=\" %json {\"$ref\":\"#/$defs/A\",\"$defs\":{\"A\":{}}}\n\
                        f0a1: \"b=\" %json {\"$defs\":{\"A\":{}}}\n\
                        f0a2: \"c=\" %json {\"$defs\":{\"A\":{}}}";
        assert_eq!(function(some), expected);
        let free = json!({"properties": {"a": {}, "b": {}}});
        assert!(function(free).starts_with("f0: \"f(\" (f0a0 (\", \" f0a1)? | f0a1)? \")\"\n"));
    }
}
