//! Tests of what is asked.

use std::net::Ipv4Addr;

use serde_json::json;

use super::*;
use crate::http::dialect::Dialect;

fn read(body: &Value, purpose: Purpose) -> Result<(Asked, Ignored), ApiError> {
    let fields = Fields::parse(body.to_string().as_bytes())?;
    Asked::read(fields, &Principal::at(Ipv4Addr::LOCALHOST.into()), purpose)
}

fn request(more: &Value) -> ChatRequest {
    read(&with(more), Purpose::Answer).expect("taken").0.request
}

fn with(more: &Value) -> Value {
    let mut body = json!({"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body
}

#[test]
fn blocks_become_messages() {
    let request = request(&json!({
        "system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}],
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I look"},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "1"}]},
                {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": true},
                {"type": "text", "text": "and?"},
            ]},
        ],
    }));
    let messages = &request.chat.messages;
    let told: Vec<_> = messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
    let expected = [
        ("system", "a\nb"),
        ("user", "hi"),
        ("assistant", "I look"),
        ("tool", "1"),
        ("tool", ""),
        ("user", "and?"),
    ];
    assert_eq!(told, expected);
    assert_eq!(messages[2].reasoning_content.as_deref(), Some("hm"));
    assert_eq!(messages[2].tool_calls[0].arguments, r#"{"x":1}"#);
    assert_eq!(messages[4].tool_call_id.as_deref(), Some("toolu_2"));
}

#[test]
fn members_that_nobody_knows_are_named() {
    let block = json!({"type": "text", "text": "a", "citations": null, "cache_control": {}, "odd": 1});
    let body = with(&json!({
        "system": [block], "messages": [{"role": "user", "content": [block], "name": "x"}],
        "output_config": {"effort": "low", "task_budget": 1}, "thinking": {"type": "disabled", "display": "x"},
        "tool_choice": {"type": "auto", "x": 1},
    }));
    let ignored = read(&body, Purpose::Answer).expect("taken").1;
    let mut names = ignored.names().to_vec();
    names.sort();
    let expected = [
        "messages[].content[].odd",
        "messages[].name",
        "output_config.task_budget",
        "system[].odd",
        "thinking.display",
        "tool_choice.x",
    ];
    assert_eq!(names, expected);
}

#[test]
fn results_count_as_messages() {
    let result = json!({"type": "tool_result", "tool_use_id": "a"});
    let body = with(&json!({"messages": [{"role": "user", "content": vec![result; 10_001]}]}));
    let error = read(&body, Purpose::Answer).expect_err("too many").body_json();
    assert_eq!(error["error"]["param"], "messages");
}

#[test]
fn what_is_asked_besides_reaches_the_core() {
    let tools = json!([{"name": "f", "input_schema": {"type": "object"}}, {"type": "custom", "name": "g"}]);
    let read = request(&json!({
        "tools": tools, "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
        "temperature": 0.5, "top_p": 0.9, "top_k": 5, "stop_sequences": ["x", ""],
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "metadata": {"user_id": "x"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    }));
    assert_eq!((read.tools.len(), &read.tool_choice), (2, &ToolChoice::Required));
    assert!(!read.parallel_tool_calls && read.grammar.is_some());
    assert_eq!((read.max_tokens, read.sampling.top_k), (Some(9), 5));
    assert_eq!(read.stop, ["x"]);
    assert_eq!(
        Value::Object(read.chat.variables),
        json!({"reasoning_effort": "low", "enable_thinking": true})
    );
    for (choice, expected) in [
        (json!({"type": "auto"}), ToolChoice::Auto),
        (json!({"type": "none"}), ToolChoice::None),
        (json!({"type": "tool", "name": "g"}), ToolChoice::Function("g".into())),
    ] {
        assert_eq!(request(&json!({"tools": tools, "tool_choice": choice})).tool_choice, expected);
    }
    let off = request(&json!({"thinking": {"type": "disabled"}}));
    assert_eq!(off.chat.variables["enable_thinking"], false);
}

#[test]
fn what_cannot_be_served_is_refused_by_field() {
    let message = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    for (more, param) in [
        (json!({"max_tokens": null}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": [1]}), "messages[0]"),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].role"),
        (message(json!([{"type": "image", "source": {}}])), "messages[0].content[0].type"),
        (message(json!([{"type": "tool_result"}])), "messages[0].content[0].tool_use_id"),
        (message(json!(1)), "messages[0].content"),
        (json!({"system": [{"type": "image"}]}), "system[0].type"),
        (json!({"tools": [{"type": "bash_20250124", "name": "bash"}]}), "tools[0].type"),
        (json!({"tool_choice": {"type": "any"}}), "tool_choice.type"),
        (json!({"tool_choice": {"type": "tool", "name": "f"}}), "tool_choice"),
        (json!({"thinking": {"type": "odd"}}), "thinking.type"),
        (json!({"output_config": {"format": {"type": "xml"}}}), "output_config.format.type"),
        (json!({"mcp_servers": [{}]}), "mcp_servers"),
    ] {
        let error = read(&with(&more), Purpose::Answer).expect_err(param);
        assert_eq!(error.body_json()["error"]["param"], param, "{more}");
        let told = error.body_in(Dialect::Anthropic);
        assert_eq!(
            (&told["type"], &told["error"]["type"]),
            (&json!("error"), &json!("invalid_request_error"))
        );
    }
    assert!(read(&with(&json!({"max_tokens": null})), Purpose::Count).is_ok());
}
