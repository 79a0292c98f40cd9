//! What a text must be like, by any of the names that servers have for it.

use serde_json::{Map, Value};
use swarm_types::Grammar;

use super::{error::ApiError, fields::Fields, short::short};

/// Takes what the text must be like, if anything. Only one of the fields may say something.
pub(super) fn take(fields: &mut Fields) -> Result<Held, ApiError> {
    let mut found: Option<(&'static str, Grammar)> = None;
    for (name, read) in FIELDS {
        let Some(value) = fields.take_value(name) else { continue };
        if name == RESPONSE_FORMAT {
            leave_unknown(fields, &value);
        }
        let Some(grammar) = read(name, value)? else { continue };
        if let Some((first, _)) = found {
            return Err(ApiError::invalid(name, format!("not together with {first}: give one of them")));
        }
        let grammar = grammar.validated().map_err(|error| ApiError::invalid(name, error))?;
        found = Some((name, grammar));
    }
    let field = found.as_ref().map_or(FIELDS[0].0, |(name, _)| *name);
    Ok(Held { field, grammar: found.map(|(_, grammar)| grammar) })
}

/// What the text must be like, if anything, and which field says so.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Held {
    pub(super) field: &'static str,
    pub(super) grammar: Option<Grammar>,
}

type Read = fn(&str, Value) -> Result<Option<Grammar>, ApiError>;

/// OpenAI's field.
const RESPONSE_FORMAT: &str = "response_format";

/// The fields that may say it.
const FIELDS: [(&str, Read); 7] = [
    (RESPONSE_FORMAT, response_format),
    ("structured_outputs", structured_outputs),
    ("guided_json", json),
    ("guided_regex", regex),
    ("guided_choice", choice),
    ("guided_grammar", lark),
    ("grammar", lark),
];

/// Its members that nobody knows.
fn leave_unknown(fields: &mut Fields, format: &Value) {
    fields.leave_others(RESPONSE_FORMAT, format, &["type", "schema", "json_schema"]);
    let below = format!("{RESPONSE_FORMAT}.json_schema");
    fields.leave_others(&below, &format["json_schema"], &["name", "description", "schema", "strict"]);
}

fn response_format(name: &str, value: Value) -> Result<Option<Grammar>, ApiError> {
    let Value::Object(mut format) = value else {
        return Err(ApiError::invalid(name, format!("must be an object, got {}", short(&value))));
    };
    let kind = format.remove("type").unwrap_or_default();
    match kind.as_str() {
        Some("text") => Ok(None),
        // Not OpenAI's: a schema may be here too.
        Some("json_object") => match format.remove("schema").filter(|given| !given.is_null()) {
            Some(given) => json(&format!("{name}.schema"), given),
            None => Ok(Some(any_object())),
        },
        Some("json_schema") => {
            let name = format!("{name}.json_schema");
            let Some(Value::Object(mut given)) = format.remove("json_schema") else {
                return Err(ApiError::invalid(&name, "missing: give an object with name and schema"));
            };
            if given.get("name").is_some_and(|title| !title.is_string() && !title.is_null()) {
                return Err(ApiError::invalid(&format!("{name}.name"), "must be a text"));
            }
            // Also where it is not strict: nobody minds.
            json(&format!("{name}.schema"), given.remove("schema").unwrap_or_default())
        }
        _ => {
            let what = format!("must be text, json_object or json_schema, got {}", short(&kind));
            Err(ApiError::invalid(&format!("{name}.type"), what))
        }
    }
}

/// One of several members.
fn structured_outputs(name: &str, value: Value) -> Result<Option<Grammar>, ApiError> {
    let Value::Object(mut given) = value else {
        return Err(ApiError::invalid(name, format!("must be an object, got {}", short(&value))));
    };
    given.retain(|_, value| !value.is_null() && *value != false);
    let members: [(&str, Read); 5] =
        [("json", json), ("regex", regex), ("choice", choice), ("grammar", lark), ("json_object", any)];
    let (known, unknown): (Map<_, _>, Map<_, _>) =
        given.into_iter().partition(|(key, _)| members.iter().any(|(member, _)| member == key));
    if let Some(key) = unknown.keys().next() {
        return Err(ApiError::unsupported(
            &format!("{name}.{}", short(key)),
            "not supported here, leave it out",
        ));
    }
    let mut known = known.into_iter();
    match (known.next(), known.next()) {
        (Some((key, value)), None) => {
            let read = members.iter().find(|(member, _)| *member == key).map(|(_, read)| *read);
            read.map_or(Ok(None), |read| read(&format!("{name}.{key}"), value))
        }
        (None, _) => Ok(None),
        (Some((first, _)), Some((second, _))) => {
            let what = format!("not together with {first}: give one of them");
            Err(ApiError::invalid(&format!("{name}.{second}"), what))
        }
    }
}

fn json(name: &str, value: Value) -> Result<Option<Grammar>, ApiError> {
    schema(name, value).map(Some)
}

/// A JSON document of this schema, which is given as itself or as a text.
pub(super) fn schema(name: &str, value: Value) -> Result<Grammar, ApiError> {
    let schema = match value {
        Value::String(text) => serde_json::from_str(&text)
            .map_err(|error| ApiError::invalid(name, format!("must be a JSON Schema: {error}")))?,
        value => value,
    };
    match schema {
        Value::Object(_) | Value::Bool(_) => {
            let grammar = Grammar::JsonSchema(schema.to_string().into());
            grammar.validated().map_err(|error| ApiError::invalid(name, error))
        }
        Value::Null => Err(ApiError::invalid(name, "missing: give a JSON Schema")),
        other => Err(ApiError::invalid(
            name,
            format!("must be a JSON Schema, an object or a boolean, got {}", short(other)),
        )),
    }
}

/// Any JSON object.
pub(super) fn any_object() -> Grammar {
    Grammar::JsonSchema(r#"{"type":"object"}"#.into())
}

/// `true`: any JSON object.
fn any(name: &str, value: Value) -> Result<Option<Grammar>, ApiError> {
    match value {
        Value::Bool(true) => Ok(Some(any_object())),
        other => Err(ApiError::invalid(name, format!("must be true or false, got {}", short(other)))),
    }
}

fn regex(name: &str, value: Value) -> Result<Option<Grammar>, ApiError> {
    text(name, value).map(|text| Some(Grammar::Regex(text.into())))
}

fn lark(name: &str, value: Value) -> Result<Option<Grammar>, ApiError> {
    text(name, value).map(|text| Some(Grammar::Lark(text.into())))
}

fn text(name: &str, value: Value) -> Result<String, ApiError> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text),
        other => {
            Err(ApiError::invalid(name, format!("must be a text that is not empty, got {}", short(other))))
        }
    }
}

/// One of several texts.
fn choice(name: &str, value: Value) -> Result<Option<Grammar>, ApiError> {
    let choices: Option<Vec<&str>> =
        value.as_array().and_then(|choices| choices.iter().map(Value::as_str).collect());
    match choices.filter(|choices| !choices.is_empty()) {
        Some(choices) => {
            let choices: Vec<String> = choices.into_iter().map(escaped).collect();
            Ok(Some(Grammar::Regex(format!("(?:{})", choices.join("|")).into())))
        }
        None => Err(ApiError::invalid(name, "must be a list of texts, at least one")),
    }
}

/// A regular expression for just this text.
fn escaped(text: &str) -> String {
    let mut pattern = String::new();
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~/".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<Option<Grammar>, ApiError> {
        take(&mut Fields::parse(body.to_string().as_bytes()).expect("an object")).map(|held| held.grammar)
    }

    #[test]
    fn what_a_text_must_be_like_is_taken_by_all_its_names() {
        let schema = json!({"type": "string", "maxLength": 3});
        let json = || Some(Grammar::JsonSchema(schema.to_string().into()));
        let object = || Some(Grammar::JsonSchema(r#"{"type":"object"}"#.into()));
        let regex = |text: &str| Some(Grammar::Regex(text.into()));
        let lark = || Some(Grammar::Lark("start: \"a\"".into()));
        for (body, expected) in [
            (json!({}), None),
            (
                json!({"response_format": {"type": "text"}, "structured_outputs": {"json_object": false}}),
                None,
            ),
            (json!({"response_format": {"type": "json_object"}}), object()),
            (json!({"response_format": {"type": "json_object", "schema": schema}}), json()),
            (
                json!({"response_format": {
                    "type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": schema},
                }}),
                json(),
            ),
            (json!({"structured_outputs": {"json": schema, "regex": null}}), json()),
            (json!({"structured_outputs": {"json_object": true}}), object()),
            (json!({"structured_outputs": {"choice": ["a.b", "c"]}}), regex(r"(?:a\.b|c)")),
            (json!({"guided_json": schema}), json()),
            (json!({"guided_json": schema.to_string()}), json()),
            (json!({"guided_json": true}), Some(Grammar::JsonSchema("true".into()))),
            (json!({"guided_regex": "[a-z]+"}), regex("[a-z]+")),
            (json!({"guided_choice": ["(é)"]}), regex(r"(?:\(é\))")),
            (json!({"guided_grammar": "start: \"a\""}), lark()),
            (json!({"grammar": "start: \"a\""}), lark()),
        ] {
            assert_eq!(read(body.clone()), Ok(expected), "{body}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_field() {
        for (body, param) in [
            (json!({"response_format": "json"}), "response_format"),
            (json!({"response_format": {"type": "xml"}}), "response_format.type"),
            (json!({"response_format": {}}), "response_format.type"),
            (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}),
                "response_format.json_schema.schema",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": 1, "schema": {}}}}),
                "response_format.json_schema.name",
            ),
            (json!({"guided_json": []}), "guided_json"),
            (json!({"guided_json": "{"}), "guided_json"),
            (json!({"guided_regex": 1}), "guided_regex"),
            (json!({"guided_choice": []}), "guided_choice"),
            (json!({"guided_choice": [1]}), "guided_choice"),
            (json!({"grammar": ""}), "grammar"),
            (json!({"grammar": "x".repeat(100_000)}), "grammar"),
            (json!({"structured_outputs": {"json": {}, "regex": "a"}}), "structured_outputs.regex"),
            (json!({"structured_outputs": {"structural_tag": {}}}), "structured_outputs.structural_tag"),
            (json!({"guided_json": {}, "response_format": {"type": "json_object"}}), "guided_json"),
        ] {
            let error = read(body.clone()).expect_err(param).body_json();
            assert_eq!(error["error"]["param"], param, "{body}");
        }
    }

    #[test]
    fn members_that_nobody_knows_are_named() {
        let format =
            json!({"type": "json_schema", "odd": 1, "json_schema": {"schema": {}, "x": 1, "y": null}});
        let mut fields = Fields::of("response_format", format);
        take(&mut fields).expect("taken");
        let mut names = fields.finish().names().to_vec();
        names.sort();
        assert_eq!(names, ["response_format.json_schema.x", "response_format.odd"]);
    }

    #[test]
    fn a_refusal_repeats_little_of_what_was_sent() {
        let sent = json!({"guided_regex": ["x".repeat(100_000)], "response_format": "x".repeat(100_000)});
        assert!(read(sent).expect_err("refused").body_json().to_string().len() < 400);
    }
}
