//! Members of items inside of a request: those that nobody knows are named.

use serde_json::Value;

use crate::http::fields::Fields;

/// Members that are read, or that change nothing.
pub(super) const TOOL: [&str; 5] = ["type", "name", "description", "parameters", "strict"];
const MESSAGE: [&str; 6] = ["type", "id", "status", "role", "content", "phase"];
const CALL: [&str; 6] = ["type", "id", "status", "call_id", "name", "arguments"];
const OUTPUT: [&str; 5] = ["type", "id", "status", "call_id", "output"];
const REASONING: [&str; 6] = ["type", "id", "status", "summary", "content", "encrypted_content"];
const PART: [&str; 5] = ["type", "text", "refusal", "annotations", "logprobs"];

pub(super) fn leave_item(fields: &mut Fields, item: &Value) {
    let (known, parts) = match item.get("type").map_or(Some("message"), Value::as_str) {
        Some("message") => (&MESSAGE[..], "content"),
        Some("function_call") => (&CALL[..], ""),
        Some("function_call_output") => (&OUTPUT[..], "output"),
        Some("reasoning") => (&REASONING[..], ""),
        // It is refused.
        _ => return,
    };
    fields.leave_others("input[]", item, known);
    for part in item[parts].as_array().into_iter().flatten() {
        fields.leave_others(&format!("input[].{parts}[]"), part, &PART);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_that_nobody_knows_are_named() {
        let mut fields = Fields::inside(serde_json::Map::new());
        for item in [
            json!({"role": "user", "content": [{"type": "input_text", "text": "a", "odd": 1}], "more": 1}),
            json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "role": "x"}),
            json!({"type": "function_call_output", "call_id": "c", "output": [{"type": "text", "bold": true}]}),
            json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}),
        ] {
            leave_item(&mut fields, &item);
        }
        let names = ["input[].more", "input[].content[].odd", "input[].role", "input[].output[].bold"];
        assert_eq!(fields.finish().names(), names);
    }
}
