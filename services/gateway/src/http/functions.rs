//! What dialects have in common about functions and schemas: they write them in other places, but mean the same.

use serde_json::{Map, Value, json};
use swarm_types::Grammar;

use super::error::ApiError;
use crate::chat::Tool;

/// As OpenAI's API has it.
const LONGEST_NAME: usize = 64;
/// More fill no prompt with sense, and each is read and rendered.
const MOST_TOOLS: usize = 128;

/// A function as a request describes it; `place` is the field that holds it.
pub(super) fn tool(
    place: &str,
    mut given: Map<String, Value>,
    parameters: &'static str,
) -> Result<Tool, ApiError> {
    let wrong = |name: &str, what: &str| ApiError::invalid(&format!("{place}.{name}"), what);
    let mut take = |name: &str| given.remove(name).filter(|value| !value.is_null());
    let name = match take("name") {
        Some(Value::String(name)) if is_name(&name) => name,
        _ => return Err(wrong("name", "must be 1 to 64 letters, digits, _ and -")),
    };
    let description = match take("description") {
        None => None,
        Some(Value::String(text)) => Some(text),
        Some(_) => return Err(wrong("description", "must be a text")),
    };
    let schema = match take(parameters) {
        None => json!({"type": "object", "properties": {}}),
        Some(schema) if schema.is_object() => schema,
        Some(_) => return Err(wrong(parameters, "must be a JSON Schema: an object")),
    };
    let strict = match take("strict") {
        None => false,
        Some(Value::Bool(strict)) => strict,
        Some(_) => return Err(wrong("strict", "must be true or false")),
    };
    Ok(Tool { name, description, parameters: schema, strict })
}

/// The functions of a request that has them as `{"type": "function", "function": {…}}`.
pub(super) fn nested(given: Vec<Map<String, Value>>) -> Result<Vec<Tool>, ApiError> {
    let one = |place: &str, mut tool: Map<String, Value>| {
        let is_function = tool.get("type").is_none_or(|kind| kind == "function");
        match tool.remove("function") {
            Some(Value::Object(function)) if is_function => {
                self::tool(&format!("{place}.function"), function, "parameters")
            }
            _ => {
                let what = "must be {\"type\": \"function\", \"function\": {…}}";
                Err(ApiError::unsupported(place, what))
            }
        }
    };
    each(given, one)
}

/// All functions of a request, each read by `one` with its place. No two may have one name.
pub(super) fn each(
    given: Vec<Map<String, Value>>,
    one: impl Fn(&str, Map<String, Value>) -> Result<Tool, ApiError>,
) -> Result<Vec<Tool>, ApiError> {
    if given.len() > MOST_TOOLS {
        return Err(ApiError::invalid("tools", format!("at most {MOST_TOOLS}, got {}", given.len())));
    }
    let mut tools: Vec<Tool> = vec![];
    for (place, tool) in given.into_iter().enumerate() {
        let place = format!("tools[{place}]");
        let tool = one(&place, tool)?;
        if tools.iter().any(|other| other.name == tool.name) {
            return Err(ApiError::invalid(&format!("{place}.name"), format!("{} is there twice", tool.name)));
        }
        tools.push(tool);
    }
    Ok(tools)
}

/// The function that must be called is one of those there are.
pub(super) fn check_choice(name: &str, tools: &[Tool]) -> Result<(), ApiError> {
    match tools.iter().any(|tool| tool.name == name) {
        true => Ok(()),
        false => Err(ApiError::invalid("tool_choice", format!("{name:?} is not among the tools"))),
    }
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(plain)
}

/// A JSON document of this schema; `field` is where it was given.
pub(super) fn schema(field: &str, schema: &Value) -> Result<Grammar, ApiError> {
    if !schema.is_object() {
        return Err(ApiError::invalid(field, "must be a JSON Schema: an object"));
    }
    let grammar = Grammar::JsonSchema(schema.to_string().into());
    grammar.validated().map_err(|error| ApiError::invalid(field, error))
}

/// Any JSON object.
pub(super) fn any_object() -> Grammar {
    Grammar::JsonSchema(json!({"type": "object"}).to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tools: Value) -> Result<Vec<Tool>, ApiError> {
        nested(serde_json::from_value(tools).expect("objects"))
    }

    #[test]
    fn functions_are_read_with_what_they_take() {
        let parameters = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let given = json!([
            {"type": "function", "function": {
                "name": "f", "description": "d", "parameters": parameters, "strict": true}},
            {"function": {"name": "g-2_x"}},
        ]);
        let tools = read(given).expect("taken");
        let first = Tool { name: "f".into(), description: Some("d".into()), parameters, strict: true };
        assert_eq!(tools[0], first);
        assert_eq!((tools[1].name.as_str(), tools[1].strict), ("g-2_x", false));
        assert_eq!(tools[1].parameters["type"], "object");
    }

    #[test]
    fn functions_that_cannot_be_are_refused_by_place() {
        let function = |function: Value| json!([{"type": "function", "function": function}]);
        for (given, param) in [
            (function(json!({})), "tools[0].function.name"),
            (function(json!({"name": "a b"})), "tools[0].function.name"),
            (function(json!({"name": "x".repeat(65)})), "tools[0].function.name"),
            (function(json!({"name": "f", "description": 1})), "tools[0].function.description"),
            (function(json!({"name": "f", "parameters": []})), "tools[0].function.parameters"),
            (function(json!({"name": "f", "strict": "x"})), "tools[0].function.strict"),
            (json!([{"type": "web_search"}]), "tools[0]"),
            (json!([{"function": {"name": "f"}}, {"function": {"name": "f"}}]), "tools[1].name"),
        ] {
            assert_eq!(read(given).expect_err(param).body_json()["error"]["param"], param);
        }
    }
}
