//! What a text must be like that has to call functions: a grammar in the form that the model's family writes, with the
//! functions' own schemas. In Lark, as llguidance reads it.

use std::collections::HashSet;

use grammar::on_one_line;
use serde_json::{Map, Value};
use swarm_types::{Grammar, MAX_GRAMMAR_BYTES};

use super::{api::Tool, format::ToolFormat};
use crate::text::Tokenizer;

/// A model that has to call something and may do so again may never come to an end; small ones do not.
const MOST_CALLS: usize = 4;

/// The members of a schema that others in it may refer to.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// The functions make a grammar that is longer than any that is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("together they make a grammar of more than {MAX_GRAMMAR_BYTES} bytes")]
pub(super) struct TooLong;

/// Rules as they are written. Schemas come from outside, so no more is written than a grammar may have.
#[derive(Default)]
struct Rules(String);

impl Rules {
    fn add(&mut self, more: &str) -> Result<(), TooLong> {
        self.0.push_str(more);
        if self.0.len() <= MAX_GRAMMAR_BYTES { Ok(()) } else { Err(TooLong) }
    }
}

/// A text that calls one of the functions, or several calls where `several` are allowed.
///
/// # Errors
/// When the schemas are too long together.
pub(super) fn grammar(
    format: ToolFormat,
    tools: &[&Tool],
    several: bool,
    tokenizer: &Tokenizer,
) -> Result<Grammar, TooLong> {
    let mark = |mark: &str| match tokenizer.control(mark) {
        // No text makes this token.
        Some(token) => format!("<[{}]>", token.0),
        None => literal(mark),
    };
    let mut rules = Rules::default();
    rules.add(&(start(format, several, mark) + "\n"))?;
    let names: Vec<String> = (0..tools.len()).map(|place| format!("f{place}")).collect();
    rules.add(&format!("call: {}\n", names.join(" | ")))?;
    for (place, tool) in tools.iter().enumerate() {
        match format {
            ToolFormat::Pythonic => pythonic(&mut rules, place, tool)?,
            _ => {
                let key = if format == ToolFormat::Llama3Json { "parameters" } else { "arguments" };
                let head = literal(&format!("{{\"name\": \"{}\", \"{key}\": ", tool.name));
                rules.add(&format!("f{place}: {head} %json {} \"}}\"\n", object(&tool.parameters)))?;
            }
        }
    }
    Ok(Grammar::Lark(rules.0.into()))
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

/// `f(a=…, b=…)`: those that must be there in their order, and behind them any of the others in theirs. What may stand
/// behind an argument is a rule of its own, so that it is written once however many arguments it may stand behind.
fn pythonic(rules: &mut Rules, place: usize, tool: &Tool) -> Result<(), TooLong> {
    let none = Map::new();
    let schema = &tool.parameters;
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let must = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let must: HashSet<&str> = must.filter_map(Value::as_str).collect();
    let (required, optional): (Vec<_>, Vec<_>) =
        properties.iter().partition(|(name, _)| must.contains(name.as_str()));
    let count = properties.len();
    let followed = |number: usize| match number + 1 < count {
        true => format!("f{place}a{number} f{place}t{}", number + 1),
        false => format!("f{place}a{number}"),
    };
    rules.add(&format!("f{place}: {} ", literal(&format!("{}(", tool.name))))?;
    match required.len() {
        0 if count > 0 => {
            rules.add(&format!("({}", followed(0)))?;
            for number in 1..count {
                rules.add(&format!(" | {}", followed(number)))?;
            }
            rules.add(")? ")?;
        }
        0 => {}
        length => {
            for number in 0..length - 1 {
                rules.add(&format!("f{place}a{number} \", \" "))?;
            }
            rules.add(&format!("{} ", followed(length - 1)))?;
        }
    }
    rules.add("\")\"\n")?;
    for number in required.len().max(1)..count {
        let rest = followed(number);
        let (argument, more) = rest.split_once(' ').unwrap_or((rest.as_str(), ""));
        rules.add(format!("f{place}t{number}: (\", \" {argument})? {more}").trim_end())?;
        rules.add("\n")?;
    }
    for (number, (name, value)) in required.iter().chain(&optional).enumerate() {
        let name = literal(&format!("{name}="));
        rules.add(&format!("f{place}a{number}: {name} %json {}\n", within(schema, value)))?;
    }
    Ok(())
}

/// A schema of arguments: they are always an object.
fn object(schema: &Value) -> Value {
    let mut schema = schema.as_object().cloned().unwrap_or_default();
    schema.insert("type".into(), "object".into());
    on_one_line(schema)
}

/// A part of a schema by itself, with what it refers to.
fn within(whole: &Value, part: &Value) -> Value {
    let mut part = match part {
        Value::Object(part) => part.clone(),
        Value::Bool(true) => Map::new(),
        part => return part.clone(),
    };
    for (key, name, definition) in referred(whole, &part) {
        if let Value::Object(definitions) = part.entry(key).or_insert_with(|| Map::new().into()) {
            definitions.insert(name.into(), definition.clone());
        }
    }
    on_one_line(part)
}

/// The definitions that a part of a schema refers to, and those that these refer to: key, name, and what it is. A
/// reference that leads nowhere is found where the grammar is read.
fn referred<'a>(whole: &'a Value, part: &Map<String, Value>) -> Vec<(&'a str, &'a str, &'a Value)> {
    let (mut seen, mut found) = (HashSet::new(), vec![]);
    let mut open: Vec<&Value> = part.values().collect();
    let mut references = vec![part.get("$ref")];
    loop {
        for reference in references.drain(..).flatten() {
            let defined = reference.as_str().and_then(|reference| definition(whole, reference));
            if let Some(defined) = defined.filter(|(key, name, _)| seen.insert((*key, *name))) {
                open.push(defined.2);
                found.push(defined);
            }
        }
        match open.pop() {
            Some(Value::Object(members)) => {
                references.push(members.get("$ref"));
                open.extend(members.values());
            }
            Some(Value::Array(values)) => open.extend(values),
            Some(_) => {}
            None => return found,
        }
    }
}

/// What a reference such as `#/$defs/A` means: key, name, and what it is.
fn definition<'a>(whole: &'a Value, reference: &str) -> Option<(&'a str, &'a str, &'a Value)> {
    let (key, path) = reference.strip_prefix("#/")?.split_once('/')?;
    let name = path.split('/').next()?.replace("~1", "/").replace("~0", "~");
    let key = DEFINITIONS.into_iter().find(|known| *known == key)?;
    let (name, value) = whole.get(key)?.as_object()?.get_key_value(&name)?;
    Some((key, name.as_str(), value))
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
    use crate::text::ServedModel;

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
        let inner = &written[1..written.len() - 1];
        grammar.text().replace(&format!(",{inner}"), "").replace(inner, "")
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
            "properties": {"b": {}, "a": {"$ref": "#/$defs/A"}, "c": true}, "required": ["a"],
            "$defs": {"A": {"items": {"$ref": "#/$defs/B~1C"}}, "B/C": {"$ref": "#/$defs/A"}, "D": {}},
        });
        let needed = r##"{"A":{"items":{"$ref":"#/$defs/B~1C"}},"B/C":{"$ref":"#/$defs/A"}}"##;
        let expected = format!(
            "f0: \"f(\" f0a0 f0t1 \")\"\n\
             f0t1: (\", \" f0a1)? f0t2\n\
             f0t2: (\", \" f0a2)?\n\
             f0a0: \"a=\" %json {{\"$ref\":\"#/$defs/A\",\"$defs\":{needed}}}\n\
             f0a1: \"b=\" %json {{}}\n\
             f0a2: \"c=\" %json {{}}"
        );
        assert_eq!(function(some), expected);
        let free = json!({"properties": {"a": {}, "b": {}}});
        let expected = "f0: \"f(\" (f0a0 f0t1 | f0a1)? \")\"\nf0t1: (\", \" f0a1)?\n";
        assert!(function(free).starts_with(expected));
        let both = json!({"properties": {"a": {}, "b": {}}, "required": ["b", "a"]});
        assert!(function(both).starts_with("f0: \"f(\" f0a0 \", \" f0a1 \")\"\nf0a0: \"a=\""));
    }

    #[test]
    fn what_is_too_long_is_not_written_to_its_end() {
        let optional: Map<String, Value> =
            (0..100_000).map(|number| (format!("p{number}"), json!({}))).collect();
        let names: Vec<&String> = optional.keys().collect();
        let long = json!({"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"const": "x".repeat(70_000)}}});
        for parameters in
            [json!({"properties": optional}), json!({"properties": optional, "required": names}), long]
        {
            let tool = Tool { name: "f".into(), description: None, parameters, strict: false };
            let mut rules = Rules::default();
            assert_eq!(pythonic(&mut rules, 0, &tool), Err(TooLong));
            assert!(rules.0.len() < 2 * MAX_GRAMMAR_BYTES, "{}", rules.0.len());
        }
    }

    #[tokio::test]
    async fn arguments_of_python_are_a_grammar_that_is_understood() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("tiny.gguf");
        TinyModel { layers: 1, ..TinyModel::default() }.write(&path).expect("written");
        let model = ServedModel::for_tests(&path);
        let optional: Map<String, Value> =
            (0..40).map(|number| (format!("p{number}"), json!({"type": "integer"}))).collect();
        for required in [json!([]), json!(["p3", "p1"])] {
            let parameters = json!({"properties": optional, "required": required});
            let tool = Tool { name: "f".into(), description: None, parameters, strict: false };
            let grammar =
                grammar(ToolFormat::Pythonic, &[&tool], true, model.tokenizer()).expect("short enough");
            assert!(model.grammars().ready(grammar).await.is_ok());
        }
    }
}
