//! `llama-swarm bench --against`: what it asks of servers of OpenAI's API, and what it tells of them. The servers here
//! speak the real protocol; one of them is our own gateway.

use std::{
    collections::BTreeSet,
    process::Output,
    sync::{Arc, Mutex},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use swarm_tests::{BOUND, Swarm, SwarmSpec, llama_swarm, tiny_model};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// What a server knows of the API.
#[derive(Clone, Debug, Default)]
struct Knows {
    /// Fields that are not OpenAI's; others it refuses.
    fields: &'static [&'static str],
    /// `/v1/completions` beside the chat.
    completions: bool,
    /// The key it asks for.
    key: Option<&'static str>,
    /// Tokens after which its answers end, where `ignore_eos` is not set.
    ends_after: Option<u64>,
}

/// A server that answers with as many words as it was asked for.
struct Server {
    knows: Knows,
    /// Bodies of the answered requests.
    asked: Mutex<Vec<Value>>,
    url: String,
}

const OPENAI: [&str; 7] =
    ["model", "prompt", "messages", "max_tokens", "temperature", "stream", "stream_options"];

impl Server {
    async fn start(knows: Knows) -> anyhow::Result<Arc<Self>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = Arc::new(Self { knows, asked: Mutex::default(), url });
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serving.clone().answer(client));
            }
        });
        Ok(server)
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().expect("nobody panics with it").clone()
    }

    /// One request a connection.
    async fn answer(self: Arc<Self>, client: TcpStream) -> anyhow::Result<()> {
        let (mut client, mut head, mut length) = (BufReader::new(client), String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let mut line = String::new();
            ensure!(client.read_line(&mut line).await? > 0, "the client has gone");
            let line = line.to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            head += &line;
        }
        let mut body = vec![0; length];
        client.read_exact(&mut body).await?;
        let (status, text) = self.answer_to(&head, &body);
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n");
        client.write_all(head.as_bytes()).await?;
        // Event by event, as they would come.
        for event in text.split_inclusive("\n\n") {
            client.write_all(event.as_bytes()).await?;
            client.flush().await?;
        }
        Ok(client.shutdown().await?)
    }

    fn answer_to(&self, head: &str, body: &[u8]) -> (u16, String) {
        let error = |status, message: String| (status, json!({"error": {"message": message}}).to_string());
        if self.knows.key.is_some_and(|key| !head.contains(&format!("authorization: bearer {key}\r\n"))) {
            return error(401, "no such key".into());
        }
        if head.starts_with("get /v1/models ") {
            return (200, json!({"object": "list", "data": [{"id": "words-1"}]}).to_string());
        }
        if head.starts_with("post /v1/completions ") && !self.knows.completions {
            return error(404, "no such path".into());
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut fields = body.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
        let unknown = fields.find(|field| !OPENAI.contains(field) && !self.knows.fields.contains(field));
        if let Some(unknown) = unknown {
            return error(400, format!("unrecognized request argument: {unknown}"));
        }
        self.asked.lock().expect("nobody panics with it").push(body.clone());
        (200, self.events(&body))
    }

    fn events(&self, body: &Value) -> String {
        let prompt = prompt_of(body);
        let asked = body["max_tokens"].as_u64().unwrap_or(1);
        let ends = self.knows.ends_after.filter(|_| body["ignore_eos"] != true);
        let tokens = ends.map_or(asked, |ends| ends.min(asked));
        let choice = match body["prompt"].is_string() {
            true => json!({"index": 0, "text": " word"}),
            false => json!({"index": 0, "delta": {"content": " word"}}),
        };
        let usage = json!({"prompt_tokens": prompt.split(' ').count() + 3, "completion_tokens": tokens});
        let words = (0..tokens).map(|_| json!({"choices": [choice]}));
        let events = words.chain([json!({"choices": [], "usage": usage})]);
        let events: String = events.map(|event| format!("data: {event}\n\n")).collect();
        events + "data: [DONE]\n\n"
    }
}

fn prompt_of(body: &Value) -> &str {
    body["prompt"].as_str().or(body["messages"][0]["content"].as_str()).unwrap_or_default()
}

async fn bench(ours: &str, other: &str, more: &[&str]) -> anyhow::Result<Output> {
    let mut command = tokio::process::Command::new(llama_swarm());
    command.args(["bench", "--json", "--url", ours, "--against", other, "--concurrency", "1,3"]);
    command.args(["--rounds", "2", "--prompt-tokens", "40", "--max-tokens", "8"]).args(more);
    command.kill_on_drop(true);
    Ok(tokio::time::timeout(BOUND, command.output()).await??)
}

fn report(output: &Output) -> anyhow::Result<Value> {
    let told = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).with_context(|| format!("no report: {told}"))
}

fn told(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_get_the_same_new_prompts_and_the_fields_that_each_knows() -> anyhow::Result<()> {
    let knows = Knows { completions: true, fields: &["ignore_eos"], ends_after: Some(5), ..Knows::default() };
    let ours = Server::start(knows.clone()).await?;
    let other = Server::start(Knows { fields: &[], ..knows }).await?;
    let report = report(&bench(&ours.url, &format!("{}/v1/", other.url), &[]).await?)?;
    assert_eq!((&report["ours"]["model"], &report["other"]["model"]), (&json!("words-1"), &json!("words-1")));
    for line in report["results"].as_array().context("lines")? {
        assert_eq!(line["ours"]["prompt_tokens"], 40.0, "37 words and 3 around them: {line}");
        assert_eq!(
            (&line["ours"]["answer_tokens"], &line["other"]["answer_tokens"]),
            (&json!(8.0), &json!(5.0))
        );
        // Requests at once need not decode at the same time: these answers are over at once.
        let ratios = ["prefill", "all", "first_token", "decode"];
        for ratio in ratios.iter().take(if line["requests"] == 1 { 4 } else { 3 }) {
            assert!(line["ratios"][ratio].as_f64().is_some_and(|ratio| ratio > 0.0), "{ratio}: {line}");
        }
    }
    let measured = |server: &Server| {
        let asked =
            server.asked().into_iter().filter(|body| body["max_tokens"] == 8 || prompt_of(body).len() > 99);
        asked.map(|body| prompt_of(&body).to_owned()).collect::<Vec<_>>()
    };
    let (to_ours, to_other) = (measured(&ours), measured(&other));
    let distinct: BTreeSet<_> = to_other.iter().collect();
    assert_eq!(distinct.len(), to_other.len(), "no prompt comes twice, so no cache helps");
    assert!(to_other.len() >= 2 * (1 + 3) * 2, "{}", to_other.len());
    let asked_of_ours: BTreeSet<_> = to_ours.iter().collect();
    assert!(distinct.is_subset(&asked_of_ours), "both get the same");
    assert!(ours.asked().iter().all(|body| body["ignore_eos"] == true && body["cache_prompt"].is_null()));
    assert!(other.asked().iter().all(|body| body["ignore_eos"].is_null()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_chats_is_measured_by_chats_on_both_sides() -> anyhow::Result<()> {
    let fields = &["ignore_eos", "cache_prompt"];
    let ours = Server::start(Knows { completions: true, fields, ..Knows::default() }).await?;
    let other = Server::start(Knows { fields, ..Knows::default() }).await?;
    let report = report(&bench(&ours.url, &other.url, &["--against-model", "another"]).await?)?;
    assert_eq!(report["results"][1]["other"]["answer_tokens"], 8.0);
    assert!(other.asked().iter().all(|body| body["messages"].is_array() && body["model"] == "another"));
    assert!(other.asked().iter().all(|body| body["ignore_eos"] == true && body["cache_prompt"] == false));
    let chats = ours.asked().iter().filter(|body| body["messages"].is_array()).count();
    assert!(chats + 1 >= ours.asked().len(), "but for the first try");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_server_from_answering_is_told_with_its_fix() -> anyhow::Result<()> {
    let ours = Server::start(Knows { completions: true, ..Knows::default() }).await?;
    let locked = Knows { completions: true, key: Some("sesame"), ..Knows::default() };
    let locked = Server::start(locked).await?;
    let refused = told(&bench(&ours.url, &locked.url, &[]).await?);
    for part in [&locked.url, "401", "no such key", "--against-key"] {
        assert!(refused.contains(part), "{part} is not in {refused}");
    }
    report(&bench(&ours.url, &locked.url, &["--against-key", "sesame"]).await?)?;
    let silent = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let absent = told(&bench(&ours.url, &format!("http://{silent}"), &[]).await?);
    assert!(absent.contains(&silent.to_string()) && absent.contains("--against"), "{absent}");
    let no_url = told(&bench(&ours.url, "localhost", &[]).await?);
    assert!(no_url.contains("http://127.0.0.1:8080"), "{no_url}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_gateway_can_be_either_side() -> anyhow::Result<()> {
    let model = tiny_model(2)?;
    let swarm = Swarm::ready(SwarmSpec { total_shards: 2, ..SwarmSpec::new(model.path()) }).await?;
    let url = swarm.gateway.http_url();
    let report = report(&bench(&url, &url, &[]).await?)?;
    for line in report["results"].as_array().context("lines")? {
        for side in ["ours", "other"] {
            let figures = &line[side];
            assert_eq!(figures["answer_tokens"], 8.0, "{line}");
            let tokens = figures["prompt_tokens"].as_f64().context("its usage was read")?;
            assert!((20.0..60.0).contains(&tokens), "about 40 were asked for: {line}");
            assert!(figures["time_to_first_token_ms"]["p50"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
        }
    }
    Ok(())
}
