//! The document is held against the routes and against examples.

mod schema;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::http;
use schema::errors;

fn told() -> Value {
    serde_json::from_str(&DOCUMENT).expect("JSON")
}

#[test]
fn every_route_is_in_the_document_and_nothing_else() {
    let routes = http::asked().merge(http::shown());
    let listed: BTreeSet<(String, String)> = routes
        .listed()
        .iter()
        .map(|(method, path)| (method.as_str().to_lowercase(), path.replace("{*", "{")))
        .collect();
    let document = told();
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let methods = item.as_object().expect("operations").keys();
        described.extend(methods.map(|method| (method.clone(), path.clone())));
    }
    assert_eq!(listed, described);
}

#[test]
fn every_schema_that_is_named_is_there() {
    let document = told();
    let text = DOCUMENT.as_str();
    let named = text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next());
    for name in named {
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
}

/// The schema of a request, or of an answer with this status.
fn schema_of<'a>(document: &'a Value, path: &str, status: Option<&str>) -> &'a Value {
    let item = document["paths"][path].as_object().expect("a path").values().next().expect("an operation");
    let carrier = match status {
        None => &item["requestBody"],
        Some(status) => &item["responses"][status],
    };
    &carrier["content"]["application/json"]["schema"]
}

/// What does not fit the document: of a request, or of an answer with this status.
pub(in crate::http) fn misfits(path: &str, status: Option<&str>, value: &Value) -> Vec<String> {
    let document = told();
    errors(&document, schema_of(&document, path, status), value)
}

fn requests() -> Vec<(&'static str, Value)> {
    let user = json!([{"role": "user", "content": "hi"}]);
    vec![
        ("/v1/chat/completions", json!({"model": "m", "messages": user, "temperature": 0.5, "stop": "x"})),
        ("/v1/completions", json!({"prompt": ["a"], "max_tokens": -1, "stop": ["x"], "odd": {}})),
        (
            "/v1/responses",
            json!({"input": "hi", "metadata": {"a": "b"}, "store": true, "max_output_tokens": null}),
        ),
        ("/v1/responses", json!({"input": user, "tools": [{"type": "function", "name": "f"}]})),
        ("/v1/messages", json!({"model": "m", "max_tokens": 5, "messages": user, "top_k": 3})),
        ("/v1/messages/count_tokens", json!({"messages": user, "system": [{"type": "text", "text": "x"}]})),
        ("/tokenize", json!({"prompt": "a", "add_special_tokens": false})),
        ("/tokenize", json!({"messages": user})),
        ("/detokenize", json!({"tokens": [1, 2]})),
        ("/api/chat", json!({"messages": user, "options": {"num_predict": -1, "num_ctx": 7}, "think": true})),
        ("/api/generate", json!({"prompt": "a", "format": "json", "keep_alive": "5m", "think": "low"})),
        ("/api/show", json!({"model": "m", "verbose": true})),
        ("/api/embed", json!({"model": "m", "input": ["a", "b"], "truncate": true})),
        ("/api/embeddings", json!({"prompt": "a"})),
    ]
}

#[test]
fn requests_that_are_taken_fit_the_document() {
    for (path, body) in requests() {
        let found = misfits(path, None, &body);
        assert!(found.is_empty(), "{path} {body}: {found:?}");
    }
}

#[test]
fn requests_that_are_refused_do_not_fit_the_document() {
    let user = json!([{"role": "user", "content": "hi"}]);
    for (path, body) in [
        ("/v1/chat/completions", json!({"messages": []})),
        ("/v1/chat/completions", json!({"messages": user, "temperature": 3})),
        ("/v1/embeddings", json!({"input": "a", "encoding_format": "hex"})),
        ("/v1/responses", json!({"input": 1})),
        ("/v1/responses", json!({"input": "a", "max_output_tokens": 0})),
        ("/v1/messages", json!({"messages": user})),
        ("/v1/messages", json!({"messages": user, "max_tokens": 0})),
        ("/detokenize", json!({})),
        ("/api/chat", json!({"messages": [{"role": "x"}]})),
        ("/api/generate", json!({"prompt": 1})),
        ("/api/embeddings", json!({})),
    ] {
        let found = misfits(path, None, &body);
        assert!(!found.is_empty(), "{path} {body}");
    }
}

#[test]
fn errors_fit_the_document_in_each_dialect() {
    for path in ["/v1/responses", "/v1/messages", "/api/chat", "/tokenize"] {
        let body = http::ApiError::invalid("input", "x").body_in(http::dialect::Dialect::of(path));
        for status in ["400", "401", "429", "503"] {
            let found = misfits(path, Some(status), &body);
            assert!(found.is_empty(), "{path} {status}: {found:?}");
        }
    }
}

#[test]
fn the_operations_say_what_they_may_carry() {
    let document = told();
    for (path, kind) in [
        ("/v1/responses", "text/event-stream"),
        ("/v1/messages", "text/event-stream"),
        ("/api/chat", "application/x-ndjson"),
        ("/v1/swarm", "text/event-stream"),
    ] {
        let item = document["paths"][path].as_object().expect("a path").values().next().expect("one");
        assert!(item["responses"]["200"]["content"][kind]["schema"].is_object(), "{path}");
    }
}
