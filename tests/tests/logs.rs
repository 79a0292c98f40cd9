//! What operators read in the logs of real processes, and what their tools do.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use swarm_proto::wire::{
    GenerateRequest, generate_request::Input, inference_service_client::InferenceServiceClient,
};
use swarm_tests::{BOUND, ModelFile, Process, Swarm, SwarmSpec, ask, chat, stream_chat, tiny_model};
use tokio::time::interval;

/// A swarm of two shards of this model whose logs have this form.
async fn swarm(model: &ModelFile, form: &str, gateway: &[&str]) -> anyhow::Result<Swarm> {
    let environment = vec![("LLAMA_SWARM_LOG_FORMAT".into(), form.into())];
    let gateway_args = gateway.iter().map(|&arg| arg.into()).collect();
    Swarm::ready(SwarmSpec { total_shards: 2, environment, gateway_args, ..SwarmSpec::new(model.path()) })
        .await
}

/// The lines with this word, once there are so many.
async fn lines(process: &Process, word: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let (since, mut poll) = (Instant::now(), interval(Duration::from_millis(20)));
    while since.elapsed() < BOUND {
        poll.tick().await;
        let log = process.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(word)).map(str::to_owned).collect();
        if lines.len() >= count {
            return Ok(lines);
        }
    }
    bail!("not {count} lines with {word:?}:\n{}", process.log())
}

/// The fields of events whose messages have this word.
async fn events(process: &Process, word: &str, count: usize) -> anyhow::Result<Vec<Value>> {
    let read =
        |line: String| Ok(serde_json::from_str::<Value>(&line).with_context(|| line)?["fields"].clone());
    lines(process, word, count).await?.into_iter().map(read).collect()
}

async fn generate(gateway: &Process) -> anyhow::Result<()> {
    let mut client = InferenceServiceClient::connect(gateway.grpc_url()).await?;
    let request = GenerateRequest {
        input: Some(Input::Prompt("hello".into())),
        max_tokens: Some(3),
        ignore_eos: true,
        ..GenerateRequest::default()
    };
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("x-request-id", "mine".parse()?);
    let mut answers = client.generate(request).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_one_event_with_fields() -> anyhow::Result<()> {
    let model = tiny_model(2)?;
    let swarm = swarm(&model, "json", &[]).await?;
    let gateway = &swarm.gateway;
    chat(gateway, "hello", 4).await?;
    let unread = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 480});
    stream_chat(gateway, unread, |_| false).await?;
    assert_eq!(ask(gateway, "/v1/completions", &json!({"prompt": 7.5})).await?.0, 400);
    generate(gateway).await?;

    let told = events(gateway, "\"request ", 4).await?;
    let of = |path: &str, cause: &Value| {
        let found: Vec<_> =
            told.iter().filter(|told| told["path"] == path && told["cause"] == *cause).collect();
        found.into_iter().cloned().collect::<Vec<_>>()
    };
    let chats = of("/v1/chat/completions", &Value::Null);
    assert_eq!(chats.len(), 2, "{told:?}");
    let whole = chats.iter().find(|told| told["finish_reason"] != "cancelled").context("one that ended")?;
    assert_eq!(whole["status"], 200, "{whole}");
    // Nodes that have just met may lose one of two connections, and with it the first attempt.
    assert!(whole["attempts"].as_u64() > Some(0), "{whole}");
    assert_eq!(whole["message"], "request answered");
    assert!(
        whole["prompt_tokens"].as_u64() > Some(0) && whole["generated_tokens"].as_u64() > Some(0),
        "{whole}"
    );
    assert!(whole["first_token_ms"].as_u64() <= whole["duration_ms"].as_u64(), "{whole}");
    let short = |worker: usize| swarm.workers[worker].peer_id()[46..].to_owned();
    assert_eq!(whole["route"], format!("0:{}>1:{}", short(0), short(1)), "{whole}");
    assert!(chats.iter().any(|told| told["finish_reason"] == "cancelled"), "its client left: {chats:?}");

    let [refused] = &of("/v1/completions", &json!("invalid_value"))[..] else {
        bail!("one was refused: {told:?}")
    };
    assert_eq!((&refused["status"], &refused["message"]), (&json!(400), &json!("request refused")));
    let [called] = &of("swarm.v1.InferenceService/Generate", &Value::Null)[..] else { bail!("{told:?}") };
    assert_eq!((&called["grpc_status"], &called["request_id"]), (&json!(0), &json!("mine")), "{called}");
    assert_eq!((&called["generated_tokens"], &called["finish_reason"]), (&json!(3), &json!("length")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_sees_is_fields_for_programs_and_the_lines_they_know_for_people() -> anyhow::Result<()> {
    let model = tiny_model(2)?;
    let for_programs = swarm(&model, "json", &["--log-requests", "off"]).await?;
    let gateway = &for_programs.gateway;
    for peer in events(gateway, "\"peer connected\"", 3).await? {
        assert!(peer["peer_id"].is_string() && peer["transport"].is_string(), "{peer}");
    }
    let shards = events(gateway, "\"shard changed\"", 2).await?;
    assert!(shards.iter().any(|told| told["shard"] == 1 && told["state"] == "ONLINE"), "{shards:?}");
    chat(gateway, "hello", 2).await?;
    let log = gateway.log();
    assert!(!log.contains("request answered"), "{log}");
    assert!(!log.contains("[STATUS]") && !log.contains("[CONNECT]") && !log.contains("banner"), "{log}");

    let for_people = swarm(&model, "text", &[]).await?;
    chat(&for_people.gateway, "hello", 2).await?;
    lines(&for_people.gateway, " INFO request answered request_id=", 1).await?;
    let log = for_people.gateway.log();
    for line in ["INFO [CONNECT] ✓✓✓ CONNECTED TO PEER ✓✓✓", "INFO [STATUS]   Shard 1: ✓ ONLINE"]
    {
        assert!(log.lines().any(|told| told.ends_with(line)), "no {line}:\n{log}");
    }
    assert!(!log.contains("shard changed"), "{log}");
    Ok(())
}
