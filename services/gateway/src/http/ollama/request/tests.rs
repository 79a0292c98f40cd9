//! Tests of what is asked.

use std::net::Ipv4Addr;

use serde_json::json;

use super::*;

fn read(body: &Value, form: Form) -> Result<(Asked, Ignored), ApiError> {
    let fields = Fields::parse(body.to_string().as_bytes())?;
    Asked::read(fields, &Principal::at(Ipv4Addr::LOCALHOST.into()), form)
}

fn chat(body: &Value, form: Form) -> ChatRequest {
    match read(body, form).expect("taken").0.wish {
        Wish::Chat(request) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_are_taken_and_results_find_their_calls() {
    let function = |name: &str| json!({"function": {"name": name, "arguments": {"x": 1}}});
    let request = chat(
        &json!({"messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi", "images": []},
            {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [function("f"), function("g")]},
            {"role": "tool", "content": "2", "tool_name": "g"},
            {"role": "tool", "content": "1"},
        ]}),
        Form::Chat,
    );
    let messages = &request.chat.messages;
    assert_eq!(messages[2].reasoning_content.as_deref(), Some("hm"));
    assert_eq!(messages[2].tool_calls[0].arguments, r#"{"x":1}"#);
    let ids: Vec<_> = messages[2].tool_calls.iter().map(|call| Some(call.id.clone())).collect();
    assert_eq!((&messages[3].tool_call_id, &messages[4].tool_call_id), (&ids[1], &ids[0]));
}

#[test]
fn options_reach_the_core_and_unknown_ones_are_named() {
    let body = json!({
        "messages": [{"role": "user", "content": "hi"}], "stream": false, "keep_alive": "5m", "think": "low",
        "format": "json", "tools": [{"type": "function", "function": {"name": "f"}}],
        "options": {
            "temperature": 0.5, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "repeat_penalty": 1.1, "seed": 3,
            "num_predict": 9, "stop": ["x"], "num_ctx": 4096, "mirostat": 0,
        },
    });
    let (asked, ignored) = read(&body, Form::Chat).expect("taken");
    assert_eq!(ignored.names(), ["options.num_ctx"]);
    assert!(!asked.stream);
    let request = chat(&body, Form::Chat);
    assert_eq!((request.max_tokens, request.stop), (Some(9), vec!["x".to_owned()]));
    assert_eq!((request.sampling.seed, request.sampling.top_k), (3, 5));
    assert_eq!(request.grammar, Some(grammar::any_object()));
    let variables = json!({"enable_thinking": true, "reasoning_effort": "low"});
    assert_eq!(Value::Object(request.chat.variables), variables);
    let limit = |tokens: i64| {
        let body = json!({"prompt": "a", "options": {"num_predict": tokens, "seed": -1}});
        chat(&body, Form::Generate).max_tokens
    };
    assert_eq!((limit(-1), limit(-2), limit(1)), (None, None, Some(1)));
}

#[test]
fn members_that_nobody_knows_are_named() {
    let call = json!({"id": "a", "odd": 1, "function": {"name": "f", "arguments": {}, "index": 0, "x": 1}});
    let message = json!({"role": "assistant", "content": "", "audio": 1, "tool_calls": [call], "y": null});
    let ignored = read(&json!({"messages": [message]}), Form::Chat).expect("taken").1;
    let expected = ["messages[].audio", "messages[].tool_calls[].function.x", "messages[].tool_calls[].odd"];
    let mut names = ignored.names().to_vec();
    names.sort();
    assert_eq!(names, expected);
}

#[test]
fn a_wrong_option_is_named_where_it_stands() {
    let body = json!({"prompt": "a", "options": {"temperature": 9}});
    let told = read(&body, Form::Generate).expect_err("refused").body_json();
    assert!(
        told["error"]["message"].as_str().is_some_and(|text| text.starts_with("options.temperature must"))
    );
}

#[test]
fn prompts_go_through_the_template_or_are_raw() {
    let request = chat(&json!({"prompt": "hi", "system": "be brief"}), Form::Generate);
    let roles: Vec<_> = request.chat.messages.iter().map(|message| message.role.as_str()).collect();
    assert_eq!(roles, ["system", "user"]);
    let raw = read(&json!({"prompt": "hi", "raw": true}), Form::Generate).expect("taken").0;
    assert!(raw.stream && matches!(raw.wish, Wish::Raw { prompt, .. } if prompt == "hi"));
}

#[test]
fn nothing_to_go_on_with_loads_the_model() {
    for (body, form, expected) in [
        (json!({}), Form::Generate, false),
        (json!({"prompt": ""}), Form::Generate, false),
        (json!({"messages": []}), Form::Chat, false),
        (json!({"keep_alive": 0}), Form::Chat, true),
    ] {
        let asked = read(&body, form).expect("taken").0;
        assert!(matches!(asked.wish, Wish::Load { unload } if unload == expected), "{body}");
    }
}

#[test]
fn what_cannot_be_served_is_refused_by_field() {
    let message = |message: Value| json!({"messages": [message]});
    for (body, form, param) in [
        (json!({"prompt": "a", "images": ["x"]}), Form::Generate, "images"),
        (json!({"prompt": "a", "template": "x"}), Form::Generate, "template"),
        (json!({"prompt": "a", "suffix": "x"}), Form::Generate, "suffix"),
        (json!({"prompt": "a", "context": [1]}), Form::Generate, "context"),
        (json!({"prompt": "a", "system": "b", "raw": true}), Form::Generate, "system"),
        (json!({"prompt": "a", "options": {"num_predict": 0}}), Form::Generate, "options.num_predict"),
        (json!({"prompt": "a", "options": {"mirostat": 2}}), Form::Generate, "options.mirostat"),
        (json!({"prompt": "a", "options": {"temperature": 9}}), Form::Generate, "options.temperature"),
        (json!({"prompt": "a", "format": "xml"}), Form::Generate, "format"),
        (json!({"prompt": "a", "think": 1}), Form::Generate, "think"),
        (json!({"messages": [1]}), Form::Chat, "messages[0]"),
        (message(json!({"role": "x"})), Form::Chat, "messages[0].role"),
        (message(json!({"role": "user", "content": 1})), Form::Chat, "messages[0].content"),
        (message(json!({"role": "user", "images": ["x"]})), Form::Chat, "messages[0].images"),
        (
            message(
                json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}),
            ),
            Form::Chat,
            "messages[0].tool_calls[0].function.arguments",
        ),
    ] {
        let error = read(&body, form).expect_err(param).body_json();
        assert_eq!(error["error"]["param"], param, "{body}");
    }
}
