//! Requests as clients of other servers write them: what changes nothing here is ignored and named, what has another
//! name is known by it, and what would change the answer is refused.

use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use reqwest::{Client, Method, Response, header};
use serde_json::{Value, json};
use swarm_tests::{Process, Swarm, SwarmSpec, counted_at, tiny_model};
use tokio::time::sleep;

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// A swarm of two shards; more flags for its gateway.
async fn swarm(gateway_args: &[&str]) -> anyhow::Result<(Swarm, swarm_tests::ModelFile)> {
    let model = tiny_model(4)?;
    let gateway_args = gateway_args.iter().map(|arg| (*arg).to_owned()).collect();
    let spec = SwarmSpec { total_shards: 2, gateway_args, ..SwarmSpec::new(model.path()) };
    Ok((Swarm::ready(spec).await?, model))
}

async fn post(gateway: &Process, path: &str, body: &Value) -> anyhow::Result<Response> {
    Ok(Client::new().post(format!("{}{path}", gateway.http_url())).json(body).send().await?)
}

/// A short greedy chat with these fields besides.
fn chat(more: &Value) -> Value {
    with(json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "temperature": 0}), more)
}

/// A short greedy completion with these fields besides.
fn text(more: &Value) -> Value {
    with(json!({"prompt": "hi", "max_tokens": 4, "temperature": 0}), more)
}

fn with(mut body: Value, more: &Value) -> Value {
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body
}

fn ignored(response: &Response) -> Option<String> {
    let named = response.headers().get("x-llama-swarm-ignored")?;
    Some(named.to_str().expect("text").to_owned())
}

/// Path, body, and what is named as ignored.
fn taken() -> Vec<(&'static str, Value, Option<&'static str>)> {
    vec![
        (CHAT, chat(&json!({"num_ctx": 4096, "keep_alive": "5m"})), Some("keep_alive, num_ctx")),
        (CHAT, chat(&json!({"verbosity": "low", "session_id": "x"})), Some("session_id, verbosity")),
        (
            CHAT,
            chat(&json!({"user": "x", "store": false, "prediction": {"type": "content", "content": "x"}})),
            None,
        ),
        (CHAT, chat(&json!({"top_k": -1, "repeat_penalty": 1.1, "typical_p": 1, "mirostat": 0})), None),
        (CHAT, chat(&json!({"top_p": 0, "temperature": 2})), None),
        (CHAT, chat(&json!({"max_tokens": null, "num_predict": 3})), None),
        (CHAT, chat(&json!({"max_tokens": 4.0, "n": 1.0, "seed": -7.0, "top_k": 5.0})), None),
        (CHAT, chat(&json!({"max_tokens": 4, "max_completion_tokens": 4})), None),
        (CHAT, chat(&json!({"stop": ""})), None),
        (
            CHAT,
            chat(&json!({"stop": ["\n\n", "```", "<|im_end|>", "</s>", "/src/", "#- coding: utf-8"]})),
            None,
        ),
        (CHAT, chat(&json!({"stop_token_ids": [1, 2], "min_tokens": 0, "skip_special_tokens": true})), None),
        (CHAT, chat(&json!({"chat_template_kwargs": {"enable_thinking": false}})), None),
        (CHAT, chat(&json!({"reasoning_effort": "none"})), None),
        (CHAT, chat(&json!({"stream_options": {"include_usage": false}})), None),
        (CHAT, chat(&json!({"min_tokens": 5, "skip_special_tokens": false})), None),
        (CHAT, chat(&json!({"stream_options": {"chunk_size": 7}})), Some("stream_options.chunk_size")),
        (CHAT, chat(&json!({"best_of": 1, "tools": [], "tool_choice": "none"})), None),
        (
            CHAT,
            chat(&json!({"messages": [{"role": "user", "content": "hi", "name": "user", "x": 1}]})),
            Some("messages[].x"),
        ),
        (TEXT, text(&json!({"logprobs": false, "max_completion_tokens": 4})), None),
        (
            TEXT,
            text(&json!({"n_predict": 4, "cache_prompt": true, "max_tokens": null})),
            Some("cache_prompt"),
        ),
    ]
}

/// Path, body, and the field that is to blame.
fn refused() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (CHAT, chat(&json!({"modalities": ["audio"]})), "modalities"),
        (CHAT, chat(&json!({"n": 2, "best_of": 3})), "best_of"),
        (CHAT, chat(&json!({"typical_p": 0.5})), "typical_p"),
        (CHAT, chat(&json!({"min_tokens": -5})), "min_tokens"),
        (CHAT, chat(&json!({"top_k": -2})), "top_k"),
        (CHAT, chat(&json!({"top_k": 1.5})), "top_k"),
        (CHAT, chat(&json!({"max_tokens": -2})), "max_tokens"),
        (CHAT, chat(&json!({"max_tokens": 4, "num_predict": 5})), "num_predict"),
        (CHAT, chat(&json!({"repetition_penalty": 1.1, "repeat_penalty": 1.2})), "repeat_penalty"),
        (CHAT, chat(&json!({"stop": [1]})), "stop"),
        (CHAT, chat(&json!({"stop": ["x".repeat(9000)]})), "stop"),
        (CHAT, chat(&json!({"stop_token_ids": [4_000_000_000u32]})), "stop_token_ids"),
        (CHAT, chat(&json!({"chat_template_kwargs": {"bos_token": "x"}})), "chat_template_kwargs"),
        (
            CHAT,
            chat(&json!({"continue_final_message": true, "add_generation_prompt": true})),
            "continue_final_message",
        ),
        (TEXT, text(&json!({"logprobs": true})), "logprobs"),
        (TEXT, text(&json!({"suffix": "x"})), "suffix"),
        (TEXT, text(&json!({"prompt": "word ".repeat(5000)})), "prompt"),
        (CHAT, chat(&json!({"messages": [{"role": "user", "content": "word ".repeat(5000)}]})), "messages"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_take_is_taken_and_what_would_change_the_answer_is_refused() -> anyhow::Result<()> {
    let (swarm, _model) = swarm(&[]).await?;
    let gateway = &swarm.gateway;
    for (path, body, named) in taken() {
        let answer = post(gateway, path, &body).await?;
        let (status, header) = (answer.status(), ignored(&answer));
        assert_eq!((status.as_u16(), header.as_deref()), (200, named), "{body}: {}", answer.text().await?);
    }
    for (path, body, field) in refused() {
        let answer = post(gateway, path, &body).await?;
        assert_eq!(answer.status(), 400, "{body:.200}");
        assert_eq!(answer.json::<Value>().await?["error"]["param"], field, "{body:.200}");
    }
    let greedy = |more: Value| async move {
        let answer = post(gateway, CHAT, &chat(&more)).await?;
        anyhow::Ok(answer.json::<Value>().await?["choices"][0]["message"]["content"].clone())
    };
    let expected = greedy(json!({})).await?;
    assert_eq!(greedy(json!({"top_p": 0, "temperature": 2})).await?, expected);
    assert_eq!(greedy(json!({"temperature": 0, "unknown": true})).await?, expected);

    let overflow = text(&json!({"prompt": "word ".repeat(5000)}));
    let overflow = post(gateway, TEXT, &overflow).await?.json::<Value>().await?;
    let said = overflow["error"]["message"].as_str().unwrap_or_default();
    assert!(said.starts_with("This model's maximum context length is"), "{said}");
    assert_eq!(overflow["error"]["code"], "context_length_exceeded");

    let ignored = counted_at(&gateway.http_url(), "llama_swarm_http_ignored_fields_total").await?;
    assert_eq!(ignored, 8);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_its_least_length_and_shows_tokens_that_steer_where_that_is_wanted()
-> anyhow::Result<()> {
    let (swarm, _model) = swarm(&[]).await?;
    let ask = |more: Value| {
        let gateway = &swarm.gateway;
        async move { anyhow::Ok(post(gateway, TEXT, &text(&more)).await?.json::<Value>().await?) }
    };
    let refused = ask(json!({"stop_token_ids": [u32::MAX]})).await?;
    let said = refused["error"]["message"].as_str().context("a message")?;
    let tokens: u32 = said.rsplit(' ').next().context("a number")?.parse()?;
    // All but one end the answer.
    let ends: Vec<u32> = (0..tokens).filter(|token| *token != 40).collect();
    let short = ask(json!({"stop_token_ids": ends, "logit_bias": {"40": -100}})).await?;
    assert_eq!(short["usage"]["completion_tokens"], 0, "{short}");
    let long = ask(json!({"stop_token_ids": ends, "logit_bias": {"40": -100}, "min_tokens": 3})).await?;
    assert_eq!(long["usage"]["completion_tokens"], 3, "{long}");
    // A token that steers, by itself without text.
    let steered = |shows: bool| ask(json!({"logit_bias": {"1": 100}, "skip_special_tokens": !shows}));
    let (hidden, shown) = (steered(false).await?, steered(true).await?);
    assert_eq!(hidden["choices"][0]["text"], "", "{hidden}");
    assert_eq!(shown["choices"][0]["text"], "<|im_start|>".repeat(4), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_fits_is_cut_and_usage_can_be_followed() -> anyhow::Result<()> {
    let (swarm, _model) = swarm(&[]).await?;
    let gateway = &swarm.gateway;
    for limit in [json!({"max_tokens": 1_000_000}), json!({"max_tokens": -1}), json!({"max_tokens": null})] {
        let body = chat(&with(json!({"ignore_eos": true}), &limit));
        let answer = post(gateway, CHAT, &body).await?.json::<Value>().await?;
        assert_eq!(answer["choices"][0]["finish_reason"], "length", "{limit}: {answer}");
        assert_eq!(answer["usage"]["total_tokens"], context(gateway).await?, "{limit}");
    }

    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let body = chat(&json!({"stream": true, "stream_options": options, "ignore_eos": true, "n": 2}));
    let streamed = post(gateway, CHAT, &body).await?.text().await?;
    let events = streamed.lines().filter_map(|line| line.strip_prefix("data: {"));
    let counts: Vec<u64> = events
        .map(|event| {
            Ok(serde_json::from_str::<Value>(&format!("{{{event}"))?["usage"]["completion_tokens"].as_u64())
        })
        .collect::<anyhow::Result<Option<_>>>()?
        .expect("usage in every event");
    assert!(counts.is_sorted() && counts.first() == Some(&0) && counts.last() == Some(&8), "{counts:?}");
    Ok(())
}

async fn context(gateway: &Process) -> anyhow::Result<Value> {
    let models = Client::new().get(format!("{}/v1/models", gateway.http_url())).send().await?;
    Ok(models.json::<Value>().await?["data"][0]["context_length"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_bodies_are_taken_as_clients_write_them() -> anyhow::Result<()> {
    let (swarm, _model) = swarm(&[]).await?;
    let url = |path: &str| format!("{}{path}", swarm.gateway.http_url());
    let client = Client::new();
    for path in ["/v1//models", "/v1/models/", "/models", "//models//", "/version", "/health", "/health/"] {
        for method in [Method::GET, Method::HEAD] {
            let answer = client.request(method.clone(), url(path)).send().await?;
            assert_eq!(answer.status(), 200, "{method} {path}");
        }
    }
    for path in ["/chat/completions", "/v1//chat/completions/", "/v1/chat/completions?api-version=2024"] {
        assert_eq!(post(&swarm.gateway, path, &chat(&json!({}))).await?.status(), 200, "{path}");
    }
    assert_eq!(post(&swarm.gateway, "/completions/", &text(&json!({}))).await?.status(), 200);
    let options = client.request(Method::OPTIONS, url(CHAT)).send().await?;
    assert_eq!((options.status().as_u16(), &options.headers()[header::ALLOW]), (204, &"POST".parse()?));
    assert_eq!(client.get(url("/v1/nothing")).send().await?.status(), 404);

    let packed = client.post(url(CHAT)).header(header::CONTENT_TYPE, "application/json");
    let packed = packed.header(header::CONTENT_ENCODING, "gzip").body(vec![0x1f, 0x8b, 8, 0]).send().await?;
    assert_eq!(packed.status(), 415);
    assert_eq!(packed.json::<Value>().await?["error"]["code"], "unsupported_encoding");
    let marked = client.post(url(CHAT)).header(header::CONTENT_TYPE, "application/json");
    let marked = marked.body(format!("\u{feff}{}", chat(&json!({})))).send().await?;
    assert_eq!(marked.status(), 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn text_offsets_are_places_in_the_text() -> anyhow::Result<()> {
    let (swarm, _model) = swarm(&[]).await?;
    for prompt in ["😀 日本", "a", "é€é"] {
        for max_tokens in 0..5 {
            let asked = json!({"prompt": prompt, "echo": true, "logprobs": 0, "max_tokens": max_tokens});
            let answer = post(&swarm.gateway, TEXT, &text(&asked)).await?.json::<Value>().await?;
            let choice = &answer["choices"][0];
            let characters = choice["text"].as_str().expect("text").chars().count() as u64;
            let offsets: Option<Vec<u64>> = choice["logprobs"]["text_offset"]
                .as_array()
                .expect("offsets")
                .iter()
                .map(Value::as_u64)
                .collect();
            let offsets = offsets.expect("numbers");
            assert!(offsets.is_sorted() && offsets.iter().all(|offset| *offset <= characters), "{choice}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_given_and_strictness_is_a_choice() -> anyhow::Result<()> {
    let flags = ["--served-model-name", "gpt-4o-mini,tiny", "--strict-fields", "--strict-context"];
    let (strict, _model) = swarm(&flags).await?;
    let gateway = &strict.gateway;
    for (model, status) in [("gpt-4o-mini", 200), ("tiny", 200), ("other", 404)] {
        let answer = post(gateway, CHAT, &chat(&json!({"model": model}))).await?;
        assert_eq!(answer.status(), status, "{model}");
        let answer = answer.json::<Value>().await?;
        assert!(status == 404 || answer["model"] == "gpt-4o-mini", "{answer}");
        let found = Client::new().get(format!("{}/v1/models/{model}", gateway.http_url())).send().await?;
        assert_eq!(found.status(), status, "{model}");
    }
    for (more, param) in [(json!({"num_ctx": 1}), "num_ctx"), (json!({"max_tokens": 1_000_000}), "messages")]
    {
        let answer = post(gateway, CHAT, &chat(&more)).await?;
        assert_eq!(answer.status(), 400, "{more}");
        assert_eq!(answer.json::<Value>().await?["error"]["param"], param);
    }
    let (any, _model) = swarm(&["--allow-any-model"]).await?;
    assert_eq!(post(&any.gateway, CHAT, &chat(&json!({"model": "whatever"}))).await?.status(), 200);
    Ok(())
}

/// As OpenAI's client does by default: again after what `Retry-After` says, twice.
async fn patiently(gateway: &Process, body: &Value) -> anyhow::Result<u16> {
    for _ in 0..2 {
        let answer = post(gateway, CHAT, body).await?;
        if answer.status() != 429 {
            return Ok(answer.status().as_u16());
        }
        let seconds = answer.headers()[header::RETRY_AFTER].to_str()?.parse()?;
        answer.bytes().await?;
        sleep(Duration::from_secs(seconds)).await;
    }
    Ok(post(gateway, CHAT, body).await?.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_loses_nobody_who_comes_again_when_he_is_told_to() -> anyhow::Result<()> {
    let (swarm, _model) = swarm(&["--max-generations", "4", "--max-queued", "4"]).await?;
    let body = chat(&json!({"max_tokens": 32, "ignore_eos": true}));
    let answers = join_all((0..24).map(|_| patiently(&swarm.gateway, &body))).await;
    let statuses: Vec<u16> = answers.into_iter().collect::<anyhow::Result<_>>()?;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    Ok(())
}
