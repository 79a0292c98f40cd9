//! Members of objects inside of a request: those that nobody knows are named.

use serde_json::{Map, Value};

use crate::http::{error::ApiError, fields::Fields};

/// Members of a block that are read, or that change nothing.
const TEXT: [&str; 4] = ["type", "text", "cache_control", "citations"];
const THINKING: [&str; 3] = ["type", "thinking", "signature"];
const REDACTED: [&str; 2] = ["type", "data"];
const CALL: [&str; 5] = ["type", "id", "name", "input", "cache_control"];
const RESULT: [&str; 5] = ["type", "tool_use_id", "content", "is_error", "cache_control"];

/// Members of a tool that are read, or that change nothing.
pub(super) const TOOL: [&str; 6] = ["type", "name", "description", "input_schema", "strict", "cache_control"];

/// The members of a field that is an object, all of them.
pub(super) fn take(fields: &mut Fields, name: &str, known: &[&str]) -> Result<Map<String, Value>, ApiError> {
    let members: Map<String, Value> = fields.take(name)?.unwrap_or_default();
    let given = Value::Object(members);
    fields.leave_others(name, &given, known);
    Ok(match given {
        Value::Object(members) => members,
        _ => Map::new(),
    })
}

pub(super) fn leave_message(fields: &mut Fields, message: &Value) {
    fields.leave_others("messages[]", message, &["role", "content"]);
    leave_blocks(fields, "messages[].content", &message["content"]);
}

/// `path` is the way to the blocks.
pub(super) fn leave_blocks(fields: &mut Fields, path: &str, content: &Value) {
    for block in content.as_array().into_iter().flatten() {
        let known = match block["type"].as_str() {
            Some("text") => &TEXT[..],
            Some("thinking") => &THINKING[..],
            Some("redacted_thinking") => &REDACTED[..],
            Some("tool_use") => &CALL[..],
            Some("tool_result") => &RESULT[..],
            // It is refused.
            _ => continue,
        };
        fields.leave_others(&format!("{path}[]"), block, known);
        // Of results.
        leave_blocks(fields, &format!("{path}[].content"), &block["content"]);
    }
}
