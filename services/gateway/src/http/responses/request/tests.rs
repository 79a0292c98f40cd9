//! Tests of what is asked.

use std::net::Ipv4Addr;

use super::{
    super::answer::{self, Envelope, State, Usage},
    *,
};
use crate::{
    chat::{ChatFinish, ChatMessage},
    http::openapi::misfits,
};

fn read(body: &Value) -> Result<(Asked, Ignored), ApiError> {
    let fields = Fields::parse(body.to_string().as_bytes())?;
    Asked::read(fields, &Principal::at(Ipv4Addr::LOCALHOST.into()))
}

fn asked(body: &Value) -> Asked {
    read(body).expect("taken").0
}

#[test]
fn input_becomes_messages_and_what_was_called_in_one_turn_is_one() {
    let asked = asked(&json!({
        "instructions": "be brief",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "x"}]},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "c", "annotations": []}]},
            {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "call_2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "1"},
            {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "2"}]},
        ],
    }));
    let messages = &asked.request.chat.messages;
    let told: Vec<_> =
        messages.iter().map(|m| (m.role.as_str(), m.content.as_str(), m.tool_calls.len())).collect();
    let expected = [
        ("system", "be brief", 0),
        ("user", "ab", 0),
        ("assistant", "c", 2),
        ("tool", "1", 0),
        ("tool", "2", 0),
    ];
    assert_eq!(told, expected);
    assert_eq!(messages[4].tool_call_id.as_deref(), Some("call_2"));
}

#[test]
fn what_is_asked_besides_reaches_the_core_and_the_answer() {
    let asked = asked(&json!({
        "input": "hi", "max_output_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stream": true,
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": true}],
        "tool_choice": {"type": "function", "name": "f"}, "parallel_tool_calls": false,
        "reasoning": {"effort": "none"}, "metadata": {"a": "b"}, "store": true,
    }));
    let request = &asked.request;
    assert!(asked.stream);
    assert_eq!((request.max_tokens, request.sampling.temperature), (Some(9), 0.5));
    assert_eq!(request.tool_choice, ToolChoice::Function("f".into()));
    assert!(!request.parallel_tool_calls && request.tools[0].strict);
    assert_eq!(request.chat.variables["enable_thinking"], false);
    let told = |name: &str| asked.echo[name].clone();
    assert_eq!((told("metadata"), told("store")), (json!({"a": "b"}), json!(false)));
    assert_eq!((told("top_p"), told("temperature")), (json!(0.9), json!(0.5)));
    assert_eq!(told("tools")[0]["name"], "f");
    assert_eq!(told("text"), json!({"format": {"type": "text"}}));
}

#[test]
fn formats_become_grammars() {
    let grammar = |format: Value| asked(&json!({"input": "x", "text": {"format": format}})).request.grammar;
    assert_eq!(grammar(json!({"type": "text"})), None);
    assert_eq!(grammar(json!({"type": "json_object"})), Some(grammar::any_object()));
    let schema = json!({"type": "object", "properties": {}});
    let expected = Grammar::JsonSchema(schema.to_string().into());
    let format = json!({"type": "json_schema", "name": "n", "strict": true, "schema": schema});
    assert_eq!(grammar(format), Some(expected));
}

#[test]
fn what_cannot_be_served_is_refused_by_field() {
    let with = |more: Value| {
        let mut body = json!({"input": "x"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    for (body, param) in [
        (json!({}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": [{"role": "x", "content": "y"}]}), "input[0].role"),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
            "input[0].content[0].type",
        ),
        (json!({"input": [{"type": "computer_call"}]}), "input[0].type"),
        (json!({"input": [{"type": "item_reference", "id": "x"}]}), "input[0]"),
        (json!({"input": [{"type": "function_call", "call_id": "a"}]}), "input[0].name"),
        (with(json!({"previous_response_id": "resp_1"})), "previous_response_id"),
        (with(json!({"conversation": "c"})), "conversation"),
        (with(json!({"background": true})), "background"),
        (with(json!({"max_output_tokens": 0})), "max_output_tokens"),
        (with(json!({"temperature": 3})), "temperature"),
        (with(json!({"tools": [{"type": "web_search"}]})), "tools[0].type"),
        (with(json!({"tool_choice": "required"})), "tool_choice"),
        (with(json!({"tool_choice": {"type": "function", "name": "f"}})), "tool_choice"),
        (with(json!({"text": {"format": {"type": "xml"}}})), "text.format.type"),
        (with(json!({"text": {"format": {"type": "json_schema"}}})), "text.format.schema"),
        (with(json!({"truncation": "auto"})), "truncation"),
        (with(json!({"reasoning": {"effort": 1}})), "reasoning.effort"),
        (json!({"input": vec![json!({"type": "reasoning"}); 10_001]}), "input"),
        (with(json!({"include": ["message.output_text.logprobs"]})), "include"),
    ] {
        let error = read(&body).expect_err(param).body_json();
        assert_eq!(error["error"]["param"], param, "{body}");
    }
    let more = json!({
        "odd": 1, "text": {"verbosity": "low", "format": {"type": "text", "x": 1}}, "reasoning": {"mode": "x"},
    });
    let mut names = read(&with(more)).expect("taken").1.names().to_vec();
    names.sort();
    assert_eq!(names, ["odd", "reasoning.mode", "text.format.x", "text.verbosity"]);
}

#[test]
fn an_answer_fits_the_document() {
    let message = ChatMessage {
        content: "a".into(),
        reasoning: "b".into(),
        tool_calls: vec![ToolCall { id: "call_1".into(), name: "f".into(), arguments: "{}".into() }],
        call_places: vec![],
        tokens: vec![],
        reason: ChatFinish::Length,
        stop: None,
        completion_tokens: 3,
        reasoning_tokens: 1,
    };
    let asked = asked(&json!({"input": "hi", "tools": [{"type": "function", "name": "f"}]}));
    let envelope = Envelope::new("m", asked.echo);
    let told = answer::whole(message, &envelope, Usage::of(2, 3, 1));
    let found = misfits("/v1/responses", Some("200"), &told);
    assert!(found.is_empty(), "{found:?}");
    let failed = envelope.response(State::Failed { code: "server_error", message: "x" }, vec![], None);
    assert!(misfits("/v1/responses", Some("200"), &failed).is_empty());
}
