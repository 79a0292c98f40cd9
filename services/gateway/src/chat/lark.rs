//! Functions as rules of a grammar in Lark, as llguidance reads it: in the form that a model's family writes, with the
//! functions' own schemas.

use std::collections::HashSet;

use grammar::on_one_line;
use serde_json::{Map, Value};
use swarm_types::MAX_GRAMMAR_BYTES;

use super::{api::Tool, format::ToolFormat};
use crate::text::Tokenizer;

/// The members of a schema that others in it may refer to.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// The functions make a grammar that is longer than any that is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("together they make a grammar of more than {MAX_GRAMMAR_BYTES} bytes")]
pub(super) struct TooLong;

/// Rules as they are written. Schemas come from outside, so no more is written than a grammar may have.
#[derive(Default)]
pub(super) struct Rules(String);

impl Rules {
    pub(super) fn add(&mut self, more: &str) -> Result<(), TooLong> {
        self.0.push_str(more);
        if self.0.len() <= MAX_GRAMMAR_BYTES { Ok(()) } else { Err(TooLong) }
    }

    /// The rule `call`: one of the functions, with arguments by its schema, or any where `held` says that they are not
    /// looked at.
    pub(super) fn add_call(
        &mut self,
        format: ToolFormat,
        tools: &[&Tool],
        held: impl Fn(&Tool) -> bool,
    ) -> Result<(), TooLong> {
        let names: Vec<String> = (0..tools.len()).map(|place| format!("f{place}")).collect();
        self.add(&format!("call: {}\n", names.join(" | ")))?;
        for (place, tool) in tools.iter().enumerate() {
            let key = if format == ToolFormat::Llama3Json { "parameters" } else { "arguments" };
            match (format, held(tool)) {
                (ToolFormat::Pythonic, true) => pythonic(self, place, tool)?,
                (ToolFormat::Pythonic, false) => any_pythonic(self, place, tool)?,
                (_, held) => {
                    let schema = object(if held { &tool.parameters } else { &Value::Null });
                    let head = literal(&format!("{{\"name\": \"{}\", \"{key}\": ", tool.name));
                    self.add(&format!("f{place}: {head} %json {schema} \"}}\"\n"))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn text(self) -> String {
        self.0
    }
}

/// A mark around calls: the token that is one by itself, which no text makes, or its characters.
pub(super) fn mark(mark: &str, tokenizer: &Tokenizer) -> String {
    match tokenizer.control(mark) {
        Some(token) => format!("<[{}]>", token.0),
        None => literal(mark),
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

/// `f(a=…)` with any names.
fn any_pythonic(rules: &mut Rules, place: usize, tool: &Tool) -> Result<(), TooLong> {
    let (name, any) = (literal(&format!("{}(", tool.name)), on_one_line(Map::new()));
    rules.add(&format!("f{place}: {name} (f{place}a (\", \" f{place}a)*)? \")\"\n"))?;
    rules.add(&format!("f{place}a: /[a-zA-Z_][a-zA-Z0-9_]*=/ %json {any}\n"))
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
pub(super) fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
}
