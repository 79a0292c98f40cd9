//! As much of JSON Schema as the document needs.

use serde_json::Value;

/// What of `value` does not fit, by place.
pub(super) fn errors(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = vec![];
    check(document, schema, value, "", &mut found);
    found
}

fn check(document: &Value, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        let target = document.pointer(&target[1..]).expect("a schema that is there");
        return check(document, target, value, place, found);
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        check(document, part, value, place, found);
    }
    for several in ["oneOf", "anyOf"] {
        let Some(options) = schema[several].as_array() else { continue };
        let fits = options.iter().filter(|option| errors(document, option, value).is_empty()).count();
        if fits == 0 || (several == "oneOf" && fits > 1) {
            found.push(format!("{place}: {fits} of {several} fit"));
        }
    }
    if !of_type(&schema["type"], value) {
        found.push(format!("{place}: {value} is not {}", schema["type"]));
        return;
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        found.push(format!("{place}: {value} is not one of them"));
    }
    numbers(schema, value, place, found);
    match value {
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    found.push(format!("{place}.{name}: missing"));
                }
            }
            for (name, value) in fields {
                let inner = match &schema["properties"][name] {
                    Value::Null => &schema["additionalProperties"],
                    inner => inner,
                };
                if inner.is_object() {
                    check(document, inner, value, &format!("{place}.{name}"), found);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if schema["items"].is_object() {
                    check(document, &schema["items"], item, &format!("{place}[{index}]"), found);
                }
            }
        }
        _ => {}
    }
}

fn numbers(schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    let size = match value {
        Value::Number(number) => number.as_f64().map(|number| ("minimum", "maximum", number)),
        Value::Array(items) => Some(("minItems", "maxItems", items.len() as f64)),
        _ => None,
    };
    let Some((least, most, size)) = size else { return };
    let below = schema[least].as_f64().is_some_and(|least| size < least);
    if below || schema[most].as_f64().is_some_and(|most| size > most) {
        found.push(format!("{place}: {size} is out of range"));
    }
}

fn of_type(kinds: &Value, value: &Value) -> bool {
    let is = |kind: &Value| match kind.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    };
    match kinds {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(is),
        kind => is(kind),
    }
}
