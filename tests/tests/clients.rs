//! Who may ask a gateway, and how much: keys, limits, and names by which it is called. Real processes, real sockets.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures::future::join_all;
use gateway::clients::{Entry, Key, Limits};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};
use swarm_proto::wire::{
    GenerateRequest, GetStatusRequest, ListModelsRequest, SamplingParams, TokenIds, generate_request::Input,
    inference_service_client::InferenceServiceClient, swarm_service_client::SwarmServiceClient,
};
use swarm_tests::{BOUND, ModelFile, Process, Swarm, SwarmSpec, counted_at, llama_swarm, tiny_model};
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};
use tonic::{Code, Request};

swarm_tests::scenarios! {
    Guarded::start;
    a_key_is_asked_for_everywhere_but_for_health,
    over_grpc_as_well,
    what_a_key_may_not_is_refused_and_its_use_is_counted,
    one_keys_burst_does_not_shut_out_anothers,
    keys_change_under_load_and_no_request_is_lost,
    a_page_of_others_is_not_answered,
    our_own_commands_show_a_key,
}

/// A swarm whose gateway nobody needs a key for, and beside it gateways with keys.
struct Guarded {
    swarm: Swarm,
    dir: TempDir,
    _model: ModelFile,
}

impl Guarded {
    async fn start() -> anyhow::Result<Self> {
        let model = tiny_model(1)?;
        let swarm = Swarm::ready(SwarmSpec { total_shards: 1, ..SwarmSpec::new(model.path()) }).await?;
        Ok(Self { swarm, dir: TempDir::with_prefix("keys-")?, _model: model })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.keys"))
    }

    /// A gateway that takes these clients' keys, once it is ready.
    async fn gateway(&self, name: &str, lines: &str, flags: &[&str]) -> anyhow::Result<Process> {
        let file = self.file(name);
        std::fs::write(&file, lines)?;
        let file = file.display().to_string();
        let flags: Vec<_> = ["--api-keys-file", &file].into_iter().chain(flags.iter().copied()).collect();
        let gateway = self.swarm.another_gateway(name, &flags).await?;
        gateway.is_ready().await?;
        Ok(gateway)
    }
}

/// A new key and its line in the file.
fn key(name: &str, limits: &str) -> anyhow::Result<(Key, String)> {
    let (key, entry) = Entry::new(name, Limits::default()).map_err(anyhow::Error::msg)?;
    Ok((key, format!("{entry} {limits}\n")))
}

fn question(max_tokens: u32) -> Value {
    let messages = json!([{"role": "user", "content": "hello"}]);
    json!({"messages": messages, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true})
}

fn chat(http: &Client, gateway: &Process, max_tokens: u32) -> RequestBuilder {
    http.post(format!("{}/v1/chat/completions", gateway.http_url())).json(&question(max_tokens))
}

/// The code of a refusal in OpenAI's form.
async fn refused(answer: Response) -> anyhow::Result<(u16, String)> {
    let (status, body) = (answer.status().as_u16(), answer.json::<Value>().await?);
    let error = &body["error"];
    ensure!(error["message"].is_string() && error["type"].is_string(), "{body}");
    Ok((status, error["code"].as_str().unwrap_or_default().to_owned()))
}

async fn a_key_is_asked_for_everywhere_but_for_health(guarded: &Guarded) -> anyhow::Result<()> {
    let (key, line) = key("alice", "")?;
    let gateway = guarded.gateway("http", &line, &[]).await?;
    let http = Client::new();
    let routes = [
        (Method::GET, "/v1/models"),
        (Method::GET, "/v1/models/tiny"),
        (Method::GET, "/v1/swarm"),
        (Method::GET, "/metrics"),
        (Method::POST, "/v1/chat/completions"),
        (Method::POST, "/v1/completions"),
        (Method::DELETE, "/v1/swarm"),
        (Method::GET, "/nothing"),
    ];
    for (method, path) in routes {
        let ask = || http.request(method.clone(), format!("{}{path}", gateway.http_url()));
        let wrong = Key::random()?;
        let almost = &key.as_str()[..key.as_str().len() - 1];
        for request in [
            ask(),
            ask().bearer_auth(wrong.as_str()),
            ask().bearer_auth(almost),
            ask().header("x-api-key", "").header("authorization", "Bearer "),
            ask().basic_auth("alice", Some(key.as_str())),
        ] {
            let answer = request.send().await?;
            assert_eq!(answer.headers()[header::WWW_AUTHENTICATE], "Bearer", "{path}");
            assert_eq!(refused(answer).await?, (401, "invalid_api_key".into()), "{path}");
        }
        let with_bearer = ask().bearer_auth(key.as_str()).send().await?.status();
        let with_header = ask().header("x-api-key", key.as_str()).send().await?.status();
        assert!(with_bearer != 401 && with_bearer == with_header, "{path}: {with_bearer}, {with_header}");
    }
    for open in ["/healthz", "/readyz", "/"] {
        assert_eq!(http.get(format!("{}{open}", gateway.http_url())).send().await?.status(), 200, "{open}");
    }
    assert_eq!(chat(&http, &gateway, 2).bearer_auth(key.as_str()).send().await?.status(), 200);
    assert!(!gateway.log().contains(key.as_str()), "a key is in the log");
    Ok(())
}

fn with_key<T>(message: T, key: Option<&Key>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(key) = key {
        request.metadata_mut().insert("x-api-key", key.as_str().parse().expect("a key is ASCII"));
    }
    request
}

fn tokens(count: u32) -> GenerateRequest {
    GenerateRequest {
        input: Some(Input::PromptTokens(TokenIds { ids: vec![40; 8] })),
        sampling: Some(SamplingParams { temperature: Some(0.0), ..SamplingParams::default() }),
        max_tokens: Some(count),
        ignore_eos: true,
        ..GenerateRequest::default()
    }
}

async fn over_grpc_as_well(guarded: &Guarded) -> anyhow::Result<()> {
    let ((alice, one), (other, two)) =
        (key("alice", "requests-per-minute=1")?, key("other", "models=other")?);
    let gateway = guarded.gateway("grpc", &(one + &two), &[]).await?;
    let mut inference = InferenceServiceClient::connect(gateway.grpc_url()).await?;
    let mut swarm = SwarmServiceClient::connect(gateway.grpc_url()).await?;
    let unknown = Key::random()?;
    for wrong in [None, Some(&unknown)] {
        let codes = [
            swarm.get_status(with_key(GetStatusRequest {}, wrong)).await.expect_err("refused").code(),
            inference.list_models(with_key(ListModelsRequest {}, wrong)).await.expect_err("refused").code(),
            inference.generate(with_key(tokens(1), wrong)).await.expect_err("refused").code(),
        ];
        assert_eq!(codes, [Code::Unauthenticated; 3]);
    }
    assert_eq!(reqwest::get(format!("{}/metrics", gateway.grpc_url())).await?.status(), 401);
    swarm.get_status(with_key(GetStatusRequest {}, Some(&other))).await?;

    let models = inference.list_models(with_key(ListModelsRequest {}, Some(&other))).await?.into_inner();
    assert!(models.models.is_empty(), "{models:?}");
    let denied = inference.generate(with_key(tokens(1), Some(&other))).await.expect_err("refused");
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");

    let mut answer = inference.generate(with_key(tokens(2), Some(&alice))).await?.into_inner();
    while answer.message().await?.is_some() {}
    let late = inference.generate(with_key(tokens(2), Some(&alice))).await.expect_err("refused");
    assert_eq!(late.code(), Code::ResourceExhausted, "{late}");
    let retry_after = late.metadata().get("retry-after").context("it says when to come again")?.to_str()?;
    assert!((1..=60).contains(&retry_after.parse::<u64>()?), "{retry_after}");
    // As a container engine asks.
    let health =
        Command::new(llama_swarm()).args(["health", "--addr"]).arg(bare(&gateway.grpc_url())).output();
    assert!(health.await?.status.success());
    Ok(())
}

fn bare(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// The value of a series on a gateway's port for metrics alone.
async fn counted(gateway: &Process, series: &str) -> anyhow::Result<u64> {
    counted_at(&gateway.metrics_url(), series).await
}

async fn what_a_key_may_not_is_refused_and_its_use_is_counted(guarded: &Guarded) -> anyhow::Result<()> {
    let (slow, one) = key("slow", "requests-per-minute=1")?;
    let (single, two) = key("single", "requests=1")?;
    let (small, three) = key("small", "tokens-per-minute=60")?;
    let (other, four) = key("other", "models=other")?;
    let metrics = ["--metrics-listen", "127.0.0.1:0"];
    let gateway = guarded.gateway("limits", &[one, two, three, four].concat(), &metrics).await?;
    let http = Client::new();
    let ask = |key: &Key, max_tokens| chat(&http, &gateway, max_tokens).bearer_auth(key.as_str()).send();
    assert_eq!(counted(&gateway, "llama_swarm_gateway_client_requests_total{client=\"slow\"}").await?, 0);

    assert_eq!(ask(&slow, 2).await?.status(), 200);
    let late = ask(&slow, 2).await?;
    let wait: u64 = late.headers()[header::RETRY_AFTER].to_str()?.parse()?;
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(refused(late).await?, (429, "rate_limit_exceeded".into()));

    let mut body = question(400);
    body["stream"] = true.into();
    let url = format!("{}/v1/chat/completions", gateway.http_url());
    let streamed = http.post(url).json(&body).bearer_auth(single.as_str()).send().await?;
    assert_eq!(streamed.status(), 200);
    assert_eq!(refused(ask(&single, 1).await?).await?, (429, "rate_limit_exceeded".into()));
    drop(streamed);
    let since = Instant::now();
    while ask(&single, 1).await?.status() != 200 {
        ensure!(since.elapsed() < BOUND, "the place of an answer that was given up is not free again");
    }

    // More is generated than is left: it is answered, and has to be made up for.
    assert_eq!(ask(&small, 100).await?.status(), 200);
    let overdrawn = ask(&small, 1).await?;
    let wait: u64 = overdrawn.headers()[header::RETRY_AFTER].to_str()?.parse()?;
    assert!(wait >= 40, "40 tokens and more were overdrawn at one a second, and it is told to wait {wait} s");
    assert_eq!(refused(overdrawn).await?.0, 429);

    assert_eq!(refused(ask(&other, 1).await?).await?, (403, "model_not_allowed".into()));
    let list = http.get(format!("{}/v1/models", gateway.http_url())).bearer_auth(other.as_str());
    assert_eq!(list.send().await?.json::<Value>().await?["data"], json!([]));

    let of_small = |what: &str| format!("llama_swarm_gateway_client_{what}_total{{client=\"small\"}}");
    assert_eq!(counted(&gateway, &of_small("requests")).await?, 1);
    assert_eq!(counted(&gateway, &of_small("generated_tokens")).await?, 100);
    assert!(counted(&gateway, &of_small("prompt_tokens")).await? > 0);
    let elsewhere = http.get(format!("{}/metrics", gateway.http_url())).bearer_auth(slow.as_str());
    assert_eq!(elsewhere.send().await?.status(), 404, "metrics have a port of their own");
    Ok(())
}

async fn one_keys_burst_does_not_shut_out_anothers(guarded: &Guarded) -> anyhow::Result<()> {
    let ((greedy, one), (modest, two)) = (key("greedy", "")?, key("modest", "")?);
    let bounds = ["--max-generations", "1", "--max-queued", "4"];
    let gateway = guarded.gateway("burst", &(one + &two), &bounds).await?;
    let http = Client::new();
    let over = AtomicUsize::new(0);
    let burst = async {
        while over.load(Ordering::Relaxed) == 0 {
            let ask = || async {
                let answer = chat(&http, &gateway, 40).bearer_auth(greedy.as_str()).send().await?;
                answer.error_for_status().map(|_| ())
            };
            let answers = join_all((0..24).map(|_| ask())).await;
            let refused = answers
                .into_iter()
                .filter_map(Result::err)
                .find(|error| error.status() != Some(StatusCode::TOO_MANY_REQUESTS));
            ensure!(refused.is_none(), "{refused:?}");
        }
        Ok(())
    };
    let others = async {
        for number in 0..8 {
            let answer = chat(&http, &gateway, 2).bearer_auth(modest.as_str()).send().await?;
            ensure!(answer.status() == 200, "request {number}: {} {}", answer.status(), answer.text().await?);
        }
        over.store(1, Ordering::Relaxed);
        Ok(())
    };
    futures::try_join!(burst, others)?;
    Ok(())
}

/// Asks by `key` until it is answered so.
async fn until(http: &Client, gateway: &Process, key: &Key, expected: u16) -> anyhow::Result<()> {
    let (since, mut poll) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
    let models = format!("{}/v1/models", gateway.http_url());
    while http.get(&models).bearer_auth(key.as_str()).send().await?.status() != expected {
        ensure!(since.elapsed() < BOUND, "never {expected}: {}", gateway.log());
        poll.tick().await;
    }
    Ok(())
}

async fn logs(gateway: &Process, text: &str) -> anyhow::Result<()> {
    let (since, mut poll) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
    while !gateway.log().contains(text) {
        ensure!(since.elapsed() < BOUND, "{text:?} is not in the log: {}", gateway.log());
        poll.tick().await;
    }
    Ok(())
}

async fn keys_change_under_load_and_no_request_is_lost(guarded: &Guarded) -> anyhow::Result<()> {
    let ((old, one), (new, two)) = (key("alice", "")?, key("alice", "")?);
    let gateway = guarded.gateway("rotation", &one, &[]).await?;
    let (http, file) = (Client::new(), guarded.file("rotation"));
    // The key that clients show, and how many were answered.
    let (shown, answered, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let load = || async {
        while over.load(Ordering::Relaxed) == 0 {
            let key = [&old, &new][shown.load(Ordering::Relaxed)];
            let answer = chat(&http, &gateway, 4).bearer_auth(key.as_str()).send().await?;
            ensure!(answer.status() == 200, "{}: {}", answer.status(), answer.text().await?);
            answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let rotate = async {
        until(&http, &gateway, &new, 401).await?;
        std::fs::write(&file, format!("{one}{two}"))?;
        until(&http, &gateway, &new, 200).await?;
        shown.store(1, Ordering::Relaxed);
        // What began by the old key ends before it goes: a request takes milliseconds, and is counted.
        let begun = answered.load(Ordering::Relaxed);
        while answered.load(Ordering::Relaxed) < begun + 16 {
            tokio::task::yield_now().await;
        }
        std::fs::write(&file, "alice what is this")?;
        logs(&gateway, "line 1: behind the name stand").await?;
        until(&http, &gateway, &new, 200).await?;
        std::fs::write(&file, &two)?;
        until(&http, &gateway, &old, 401).await?;
        over.store(1, Ordering::Relaxed);
        Ok(())
    };
    futures::try_join!(rotate, load(), load(), load(), load())?;
    eprintln!("{} requests were answered meanwhile", answered.load(Ordering::Relaxed));
    assert!(answered.load(Ordering::Relaxed) > 20);
    assert_eq!(gateway.log().matches("behind the name stand").count(), 1, "told once");
    Ok(())
}

async fn a_page_of_others_is_not_answered(guarded: &Guarded) -> anyhow::Result<()> {
    let http = Client::new();
    let (open, port) =
        (&guarded.swarm.gateway, |url: &str| url.rsplit(':').next().unwrap_or_default().to_owned());
    let evil = format!("evil.example:{}", port(&open.http_url()));
    let rebound = |path: &str| http.get(format!("{}{path}", open.http_url())).header("host", &evil);
    for path in ["/", "/v1/swarm", "/v1/models", "/metrics"] {
        let answer = rebound(path).header("origin", format!("http://{evil}")).send().await?;
        let text = answer.text().await?;
        assert!(
            text.contains("--allowed-host evil.example") && text.contains("host_not_allowed"),
            "{path}: {text}"
        );
    }
    // What a page may say freely of a request of its own opens nothing, on neither port.
    for url in [open.http_url(), open.grpc_url()] {
        let as_grpc = http.post(format!("{url}/swarm.v1.SwarmService/GetStatus")).header("host", &evil);
        let answer = as_grpc.header("content-type", "application/grpc").body(vec![0; 5]).send().await?;
        assert_eq!(
            answer.headers().get("grpc-status").map(|code| code.as_bytes()),
            Some(&b"7"[..]),
            "{answer:?}"
        );
        assert_eq!(http.get(format!("{url}/metrics")).header("host", &evil).send().await?.status(), 403);
    }
    let post = chat(&http, open, 1).header("host", &evil).send().await?;
    assert_eq!(refused(post).await?, (403, "host_not_allowed".into()));
    for own in ["localhost", "swarm.localhost", "127.0.0.1", "[::1]", "10.0.0.1"] {
        let host = format!("{own}:{}", port(&open.http_url()));
        let asked = http.get(format!("{}/v1/models", open.http_url())).header("host", host).send().await?;
        assert_eq!(asked.status(), 200, "{own}");
    }
    assert_eq!(
        rebound("/healthz").send().await?.status(),
        200,
        "those who watch over it call it as they like"
    );

    let flags = ["--allowed-host", "swarm.lan", "--cors-origin", "https://chat.example"];
    let named = guarded.swarm.another_gateway("named", &flags).await?;
    let models = format!("{}/v1/models", named.http_url());
    assert_eq!(http.get(&models).header("host", "Swarm.LAN:80").send().await?.status(), 200);
    assert_eq!(http.get(&models).header("host", "other.lan").send().await?.status(), 403);
    let from = |origin: &'static str| {
        let asked = http.request(Method::OPTIONS, &models).header("origin", origin);
        asked
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization")
    };
    let listed = from("https://chat.example").send().await?;
    assert_eq!(listed.headers()["access-control-allow-origin"], "https://chat.example");
    assert_eq!(listed.headers()["access-control-allow-headers"], "authorization");
    let others = from("https://evil.example").send().await?;
    assert_eq!(others.headers().get("access-control-allow-origin"), None);
    let none = http.get(format!("{}/v1/models", open.http_url())).header("origin", "https://chat.example");
    assert_eq!(none.send().await?.headers().get("access-control-allow-origin"), None);
    Ok(())
}

async fn run(arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = Command::new(llama_swarm());
    let output = timeout(BOUND, command.args(arguments).kill_on_drop(true).output()).await??;
    let said =
        [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned()).concat();
    Ok((output.status.code(), said))
}

async fn our_own_commands_show_a_key(guarded: &Guarded) -> anyhow::Result<()> {
    let file = guarded.file("made");
    let file = file.to_str().context("a path in UTF-8")?;
    let (code, said) = run(&["key", "new", "alice", "--file", file, "--requests", "8"]).await?;
    ensure!(code == Some(0), "{said}");
    let key = said.trim().to_owned();
    assert!(key.starts_with("lsk-") && said.lines().count() == 1, "{said}");
    let lines = std::fs::read_to_string(Path::new(file))?;
    assert!(lines.starts_with("alice ") && lines.trim_end().ends_with("requests=8") && !lines.contains(&key));
    let (code, said) = run(&["key", "new", "bob"]).await?;
    assert!(code == Some(0) && said.lines().count() == 2, "{said}");

    let gateway = guarded.gateway("commands", &lines, &[]).await?;
    let (grpc, url) = (gateway.grpc_url(), gateway.http_url());
    let commands: [&[&str]; 3] = [
        &["status", "--addr", bare(&grpc)],
        &["chat", "--url", &url, "--max-tokens", "2", "hello"],
        &["bench", "--addr", bare(&grpc), "--rounds", "1", "--concurrency", "1", "--max-tokens", "2"],
    ];
    for command in commands {
        let (code, said) = run(command).await?;
        assert!(code == Some(1) && said.contains("key"), "{command:?}: {said}");
        let (code, said) = run(&[command, &["--api-key", &key]].concat()).await?;
        assert_eq!(code, Some(0), "{command:?}: {said}");
    }
    let doctor = ["doctor", "--addr", bare(&grpc), "--url", &url, "--total-shards", "1"];
    let (_, said) = run(&doctor).await?;
    assert!(said.contains("asks for a key") && said.contains("--api-key"), "{said}");
    let (_, said) = run(&[&doctor[..], &["--api-key", &key]].concat()).await?;
    assert!(said.contains("answers on gRPC") && said.contains("is loaded on one worker"), "{said}");
    Ok(())
}
