//! The APIs of others on one swarm: each is answered in its own form, whole and streamed, and refuses in its own form.

use reqwest::{Client, Response};
use serde_json::{Value, json};
use swarm_tests::{Process, Swarm, SwarmSpec, tiny_model};

/// A gateway before a swarm of two shards.
async fn swarm() -> anyhow::Result<(Swarm, swarm_tests::ModelFile)> {
    let model = tiny_model(4)?;
    let spec = SwarmSpec { total_shards: 2, ..SwarmSpec::new(model.path()) };
    Ok((Swarm::ready(spec).await?, model))
}

async fn post(gateway: &Process, path: &str, body: &Value) -> anyhow::Result<Response> {
    Ok(Client::new().post(format!("{}{path}", gateway.http_url())).json(body).send().await?)
}

async fn get(gateway: &Process, path: &str) -> anyhow::Result<Value> {
    let answer = Client::new().get(format!("{}{path}", gateway.http_url())).send().await?;
    assert_eq!(answer.status(), 200, "{path}");
    Ok(answer.json().await?)
}

fn user() -> Value {
    json!([{"role": "user", "content": "hi"}])
}

/// Path, body, and where the text of a whole answer stands.
fn asked() -> Vec<(&'static str, Value, &'static str)> {
    let options = json!({"temperature": 0, "num_predict": 4});
    vec![
        (
            "/v1/chat/completions",
            json!({"messages": user(), "max_tokens": 4, "temperature": 0}),
            "/choices/0/message/content",
        ),
        (
            "/v1/responses",
            json!({"input": "hi", "max_output_tokens": 4, "temperature": 0}),
            "/output/0/content/0/text",
        ),
        ("/v1/messages", json!({"messages": user(), "max_tokens": 4, "temperature": 0}), "/content/0/text"),
        ("/api/chat", json!({"messages": user(), "stream": false, "options": options}), "/message/content"),
        ("/api/generate", json!({"prompt": "hi", "stream": false, "options": options}), "/response"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn all_dialects_ask_the_same_model() -> anyhow::Result<()> {
    let (swarm, _model) = swarm().await?;
    let mut told: Vec<String> = vec![];
    for (path, body, place) in asked() {
        let answer = post(&swarm.gateway, path, &body).await?;
        assert_eq!(answer.status(), 200, "{path}");
        let answer: Value = answer.json().await?;
        let tokens = ["/usage/completion_tokens", "/usage/output_tokens", "/eval_count"];
        let tokens = tokens.iter().find_map(|place| answer.pointer(place));
        assert!(tokens.is_some_and(|tokens| tokens.as_u64() > Some(0)), "{path}: {answer}");
        // Where nothing can be shown of the tokens, some have an empty text and some have none.
        told.push(answer.pointer(place).and_then(Value::as_str).unwrap_or_default().to_owned());
    }
    assert!(told.iter().all(|text| *text == told[0]), "{told:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_as_their_clients_expect() -> anyhow::Result<()> {
    let (swarm, _model) = swarm().await?;
    let gateway = &swarm.gateway;
    let streamed = |path: &'static str, mut body: Value| async move {
        body["stream"] = true.into();
        let answer = post(gateway, path, &body).await?;
        let kind = answer.headers()["content-type"].to_str()?.to_owned();
        anyhow::Ok((kind, answer.text().await?))
    };
    let events = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix("event: ")).map(str::to_owned).collect()
    };
    let body = json!({"input": "hi", "max_output_tokens": 4, "temperature": 0});
    let (kind, text) = streamed("/v1/responses", body).await?;
    let names = events(&text);
    assert!(kind.starts_with("text/event-stream"), "{kind}");
    assert_eq!(names.first().map(String::as_str), Some("response.created"));
    assert!(
        names
            .last()
            .is_some_and(|name| ["response.completed", "response.incomplete"].contains(&name.as_str()))
    );

    let body = json!({"messages": user(), "max_tokens": 4, "temperature": 0});
    let (_, text) = streamed("/v1/messages", body).await?;
    let names = events(&text);
    assert_eq!(names.first().map(String::as_str), Some("message_start"));
    assert_eq!(names.last().map(String::as_str), Some("message_stop"));

    let body = json!({"prompt": "hi", "raw": true, "options": {"num_predict": 4}});
    let (kind, text) = streamed("/api/generate", body).await?;
    assert_eq!(kind, "application/x-ndjson");
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let last = lines.last().expect("an end");
    // At an end token, which may come first, it ends sooner.
    assert!(last["done"] == true && last["eval_count"].as_u64().is_some_and(|count| count <= 4), "{last}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_form_of_the_path() -> anyhow::Result<()> {
    let (swarm, _model) = swarm().await?;
    let gateway = &swarm.gateway;
    for (path, body, status, place) in [
        ("/v1/responses", json!({"input": "hi", "background": true}), 400, "/error/param"),
        ("/v1/messages", json!({"messages": user()}), 400, "/error/type"),
        ("/v1/messages", json!({"messages": user(), "max_tokens": 1, "model": "no"}), 404, "/error/type"),
        ("/api/chat", json!({"messages": [{"role": "x"}]}), 400, "/error"),
        ("/api/show", json!({"model": "no"}), 404, "/error"),
        ("/api/nothing", json!({}), 404, "/error"),
        ("/detokenize", json!({"tokens": [4_000_000_000u32]}), 400, "/error/param"),
    ] {
        let answer = post(gateway, path, &body).await?;
        assert_eq!(answer.status(), status, "{path} {body}");
        let answer: Value = answer.json().await?;
        assert!(answer.pointer(place).is_some_and(Value::is_string), "{path}: {answer}");
    }
    let plain = Client::new().post(format!("{}/api/chat", gateway.http_url())).body("{}").send().await?;
    assert_eq!(plain.status(), 415);
    assert!(plain.json::<Value>().await?["error"].is_string());
    let named = post(gateway, "/api/generate", &json!({"options": {"num_ctx": 1}})).await?;
    assert_eq!(named.headers()["x-llama-swarm-ignored"], "options.num_ctx");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_become_tokens_and_come_back() -> anyhow::Result<()> {
    let (swarm, _model) = swarm().await?;
    let gateway = &swarm.gateway;
    let body = json!({"prompt": "hello <|im_end|>", "add_special_tokens": false, "return_token_strs": true});
    let told: Value = post(gateway, "/tokenize", &body).await?.json().await?;
    assert_eq!(told["tokens"].as_array().map(Vec::len), told["count"].as_u64().map(|count| count as usize));
    assert_eq!(told["token_strs"].as_array().map(Vec::len), told["tokens"].as_array().map(Vec::len));
    let back: Value = post(gateway, "/detokenize", &json!({"tokens": told["tokens"]})).await?.json().await?;
    assert_eq!(back["prompt"], body["prompt"]);

    let chat: Value = post(gateway, "/tokenize", &json!({"messages": user()})).await?.json().await?;
    let counted: Value =
        post(gateway, "/v1/messages/count_tokens", &json!({"messages": user()})).await?.json().await?;
    assert_eq!(chat["count"], counted["input_tokens"]);
    let info = get(gateway, "/tokenizer_info").await?;
    assert!(info["chat_template"].is_string() && info["eos_token"].is_string(), "{info}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_shown_to_each_dialect_and_the_document_has_all_paths() -> anyhow::Result<()> {
    let (swarm, _model) = swarm().await?;
    let gateway = &swarm.gateway;
    let name = get(gateway, "/v1/models").await?["data"][0]["id"].as_str().unwrap_or_default().to_owned();
    for path in ["/api/tags", "/api/ps"] {
        assert_eq!(get(gateway, path).await?["models"][0]["name"], format!("{name}:latest"), "{path}");
    }
    let shown = post(gateway, "/api/show", &json!({"model": format!("{name}:latest")})).await?;
    assert_eq!(shown.json::<Value>().await?["details"]["format"], "gguf");
    let document = get(gateway, "/openapi.json").await?;
    for (path, ..) in asked() {
        assert!(document["paths"][path]["post"].is_object(), "{path}");
    }
    Ok(())
}
