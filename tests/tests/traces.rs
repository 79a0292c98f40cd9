//! Traces as a receiver of others gets them, from real processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use swarm_proto::wire::{
    GenerateRequest, generate_request::Input, inference_service_client::InferenceServiceClient,
};
use swarm_tests::{
    BOUND, Process, SharedModel, Swarm, SwarmSpec, chat, counted, counts, needed, otelcol, python_script,
    python_with, tiny_model,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// Ids as a client's own tracing would give them.
const HTTP_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const GRPC_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "b7ad6b7169203331";

/// A running receiver that we did not write, and the spans it has handed on.
struct Receiver {
    endpoint: String,
    spans: Vec<Value>,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Receiver {
    async fn rotel() -> anyhow::Result<Self> {
        Self::start(&python_of_receivers().await?, &[]).await.context("rotel needs libpython3.11")
    }

    /// The script says what the arguments mean.
    async fn start(python: &Path, arguments: &[PathBuf]) -> anyhow::Result<Self> {
        // Its end is that of its standard input, which goes with us.
        let mut child = Command::new(python)
            .arg(python_script("traces.py"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let endpoint = timeout(BOUND, lines.next_line()).await??.context("the receiver did not start")?;
        Ok(Self { endpoint, spans: vec![], lines, _child: child })
    }

    /// Sends everything that a process traces here, soon.
    fn environment(&self) -> Vec<(String, String)> {
        environment(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &self.endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "50")])
    }

    /// Waits until the spans are so.
    async fn receives(&mut self, what: &str, so: impl Fn(&[Value]) -> bool) -> anyhow::Result<()> {
        let since = Instant::now();
        while !so(&self.spans) {
            let left = BOUND.saturating_sub(since.elapsed());
            match timeout(left, self.lines.next_line()).await {
                Ok(line) => self.spans.push(serde_json::from_str(&line?.context("the receiver ended")?)?),
                Err(_) => bail!("never received {what}; received: {}", listed(&self.spans)),
            }
        }
        Ok(())
    }
}

async fn python_of_receivers() -> anyhow::Result<PathBuf> {
    tokio::task::spawn_blocking(|| python_with("traces-requirements.txt", "receiver")).await?
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn listed(spans: &[Value]) -> String {
    let line = |span: &Value| format!("\n{} {} in {}", span["name"], span["id"], span["trace"]);
    spans.iter().map(line).collect()
}

fn named<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

fn traceparent(trace: &str) -> String {
    format!("00-{trace}-{CLIENT_SPAN}-01")
}

fn one<'a>(spans: &'a [Value], name: &str) -> anyhow::Result<&'a Value> {
    let found = named(spans, name);
    ensure!(found.len() == 1, "{} spans {name}, not one: {}", found.len(), listed(spans));
    Ok(found[0])
}

/// Asks with a trace of the client's; gives the text of the events.
async fn ask_in_trace(gateway: &Process, trace: &str, body: Value) -> anyhow::Result<String> {
    let url = format!("{}/v1/chat/completions", gateway.http_url());
    let request = reqwest::Client::new().post(url).header("traceparent", traceparent(trace)).json(&body);
    let answer = request.send().await?;
    ensure!(answer.status() == 200, "{}: {}", answer.status(), answer.text().await?);
    Ok(answer.text().await?)
}

fn question(max_tokens: u32) -> Value {
    json!({
        "messages": [{"role": "user", "content": "hello"}], "max_tokens": max_tokens, "temperature": 0.5,
        "top_p": 0.75, "seed": 7, "stream": true, "stream_options": {"include_usage": true},
    })
}

/// Those of generations, whose names say what was asked of which model.
fn generations(spans: &[Value]) -> Vec<&Value> {
    let asks = |span: &&Value| span["attributes"]["gen_ai.operation.name"].is_string();
    spans.iter().filter(asks).collect()
}

fn generation(spans: &[Value]) -> anyhow::Result<&Value> {
    let [generation] = generations(spans)[..] else { bail!("not one generation: {}", listed(spans)) };
    let told = |name: &str| generation["attributes"][name].as_str().unwrap_or_default();
    let name = format!("{} {}", told("gen_ai.operation.name"), told("gen_ai.request.model"));
    ensure!(generation["name"] == name, "{generation:#}");
    Ok(generation)
}

/// The attributes that must have these values.
fn has(span: &Value, expected: &Value) -> anyhow::Result<()> {
    let given = &span["attributes"];
    for (name, value) in expected.as_object().context("an object")? {
        ensure!(given[name] == *value, "{}: {name} is {}, not {value}: {given:#}", span["name"], given[name]);
    }
    Ok(())
}

/// One trace of one request: `above` is what the client called.
fn is_whole(spans: &[Value], above: &str, swarm: &Swarm) -> anyhow::Result<()> {
    let (server, generation) = (one(spans, above)?, generation(spans)?);
    ensure!(server["parent"] == CLIENT_SPAN, "the client's span is above all: {server:#}");
    ensure!(generation["parent"] == server["id"], "{generation:#}");
    for span in [server, generation] {
        ensure!(span["resource"]["service.name"] == "gateway", "{span:#}");
        ensure!(span["resource"]["service.instance.id"] == swarm.gateway.peer_id(), "{span:#}");
    }
    let mut by_shard = BTreeMap::new();
    for session in named(spans, "session") {
        ensure!(session["parent"] == generation["id"], "sessions are siblings: {session:#}");
        let within = |key: &str| session[key].as_u64().zip(generation[key].as_u64());
        let starts = within("start_ns").context("times")?;
        ensure!(starts.0 >= starts.1, "it begins before its cause: {session:#}");
        by_shard.insert(session["attributes"]["llama_swarm.shards"].to_string(), session);
    }
    ensure!(by_shard.len() == swarm.workers.len(), "a session for each hop: {}", listed(spans));
    for (place, (session, worker)) in by_shard.values().zip(&swarm.workers).enumerate() {
        let above = place.checked_sub(1).map_or(&swarm.gateway, |above| &swarm.workers[above]);
        has(
            session,
            &json!({
                "llama_swarm.worker": worker.peer_id(), "llama_swarm.caller": above.peer_id(),
                "llama_swarm.shards": place.to_string(), "llama_swarm.attempt": 1,
                "rpc.system": "grpc", "rpc.service": "swarm.v1.ShardService", "rpc.method": "Forward",
            }),
        )?;
        ensure!(session["kind"] == "server" && session["status"] == "unset", "{session:#}");
        ensure!(session["resource"]["service.name"] == "shard-worker", "{session:#}");
        ensure!(session["resource"]["service.instance.id"] == worker.peer_id(), "{session:#}");
        ensure!(session["resource"]["service.version"].is_string(), "{session:#}");
        let attributes = &session["attributes"];
        for time in ["llama_swarm.queue_ms", "llama_swarm.compute_ms", "llama_swarm.send_ms"] {
            ensure!(attributes[time].as_f64().is_some_and(|ms| ms > 0.0), "{time}: {session:#}");
        }
        let phases = spans.iter().filter(|span| span["parent"] == session["id"]);
        let steps =
            phases.map(|span| (span["name"].as_str(), span["attributes"]["llama_swarm.steps"].as_i64()));
        let steps: BTreeMap<_, _> = steps.collect();
        let all: i64 = steps.values().flatten().sum();
        ensure!(steps.keys().flatten().eq(["decode", "prefill"].iter()), "{steps:?}");
        ensure!(attributes["llama_swarm.steps"] == all, "{steps:?} make {session:#}");
    }
    let phases = spans.iter().filter(|span| span["parent"] == generation["id"] && span["kind"] == "internal");
    let phases: BTreeMap<_, _> = phases.map(|span| (span["name"].as_str(), &span["attributes"])).collect();
    ensure!(phases.keys().flatten().eq(["decode", "prefill"].iter()), "{phases:?}");
    for time in ["llama_swarm.queue_ms", "llama_swarm.compute_ms", "llama_swarm.network_ms"] {
        ensure!(phases[&Some("decode")][time].as_f64().is_some_and(|ms| ms > 0.0), "{time}: {phases:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_over_all_its_processes() -> anyhow::Result<()> {
    let Some(receiver) = needed("traces at a receiver of others", Receiver::rotel().await)? else {
        return Ok(());
    };
    two_requests_are_two_whole_traces(receiver).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_collector_takes_our_configuration_and_hands_on_whole_traces() -> anyhow::Result<()> {
    let needs = async { anyhow::Ok((python_of_receivers().await?, otelcol()?)) };
    let Some((python, otelcol)) = needed("traces at the OpenTelemetry Collector", needs.await)? else {
        return Ok(());
    };
    let receiver = Receiver::start(&python, &[otelcol]).await?;
    two_requests_are_two_whole_traces(receiver).await
}

/// One by HTTP, one by gRPC.
async fn two_requests_are_two_whole_traces(mut receiver: Receiver) -> anyhow::Result<()> {
    let model = tiny_model(8)?;
    let environment = receiver.environment();
    let mut swarm = Swarm::ready(SwarmSpec { environment, ..SwarmSpec::new(model.path()) }).await?;
    let answer = ask_in_trace(&swarm.gateway, HTTP_TRACE, question(6)).await?;
    generate_in_trace(&swarm.gateway, GRPC_TRACE).await?;

    // A server, a generation with two phases, and of each hop a session with two phases.
    let expected = 2 * (1 + 3 + 8 * 3);
    receiver.receives("two whole traces", |spans| spans.len() >= expected).await?;
    swarm.gateway.stop().await?;
    for worker in &mut swarm.workers {
        worker.stop().await?;
    }
    assert_eq!(receiver.spans.len(), expected, "{}", listed(&receiver.spans));
    let traces: BTreeSet<_> = receiver.spans.iter().filter_map(|span| span["trace"].as_str()).collect();
    assert_eq!(traces, [HTTP_TRACE, GRPC_TRACE].into());

    let of = |trace| receiver.spans.iter().filter(move |span| span["trace"] == trace).cloned();
    let http: Vec<_> = of(HTTP_TRACE).collect();
    is_whole(&http, "POST /v1/chat/completions", &swarm)?;
    the_http_request_is_told(&http, &answer)?;
    let grpc: Vec<_> = of(GRPC_TRACE).collect();
    is_whole(&grpc, "swarm.v1.InferenceService/Generate", &swarm)?;
    the_call_is_told(&grpc)
}

async fn generate_in_trace(gateway: &Process, trace: &str) -> anyhow::Result<()> {
    let mut client = InferenceServiceClient::connect(gateway.grpc_url()).await?;
    let mut request = tonic::Request::new(GenerateRequest {
        input: Some(Input::Prompt("hello".into())),
        max_tokens: Some(4),
        ignore_eos: true,
        ..GenerateRequest::default()
    });
    request.metadata_mut().insert("traceparent", traceparent(trace).parse()?);
    let mut events = client.generate(request).await?.into_inner();
    while events.message().await?.is_some() {}
    Ok(())
}

/// `answer`: the text of its events.
fn the_http_request_is_told(spans: &[Value], answer: &str) -> anyhow::Result<()> {
    let mut usage = answer.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok());
    let usage: Value = usage.next_back().context("the last event")?;
    let server = one(spans, "POST /v1/chat/completions")?;
    assert_eq!(server["kind"], "server");
    has(
        server,
        &json!({
            "http.request.method": "POST", "http.route": "/v1/chat/completions", "url.scheme": "http",
            "url.path": "/v1/chat/completions", "http.response.status_code": 200, "server.address": "127.0.0.1",
        }),
    )?;
    let generation = generation(spans)?;
    has(
        generation,
        &json!({
            "gen_ai.operation.name": "chat", "gen_ai.request.max_tokens": 6, "gen_ai.request.temperature": 0.5,
            "gen_ai.request.top_p": 0.75, "gen_ai.request.seed": 7, "gen_ai.request.model": usage["model"],
            "gen_ai.usage.input_tokens": usage["usage"]["prompt_tokens"],
            "gen_ai.usage.output_tokens": usage["usage"]["completion_tokens"],
            "gen_ai.response.finish_reasons": ["length"], "llama_swarm.attempts": 1,
        }),
    )?;
    let ends = server["end_ns"].as_u64().zip(generation["end_ns"].as_u64()).context("times")?;
    assert!(ends.0 + 5_000_000 > ends.1, "a streamed request lasts as long as its generation: {ends:?}");
    Ok(())
}

fn the_call_is_told(spans: &[Value]) -> anyhow::Result<()> {
    has(
        one(spans, "swarm.v1.InferenceService/Generate")?,
        &json!({
            "rpc.system": "grpc", "rpc.service": "swarm.v1.InferenceService", "rpc.method": "Generate",
            "rpc.grpc.status_code": 0, "server.address": "127.0.0.1",
        }),
    )?;
    let generation = generation(spans)?;
    ensure!(
        generation["attributes"]["gen_ai.request.seed"].is_null(),
        "nobody has named a seed: {generation:#}"
    );
    has(generation, &json!({"gen_ai.operation.name": "text_completion"}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_hop_is_an_event_of_the_generation_and_the_trace_goes_on() -> anyhow::Result<()> {
    let Some(mut receiver) = needed("traces at a receiver of others", Receiver::rotel().await)? else {
        return Ok(());
    };
    let model = tiny_model(2)?;
    let spec =
        SwarmSpec { total_shards: 2, environment: receiver.environment(), ..SwarmSpec::new(model.path()) };
    let mut swarm = Swarm::ready(spec).await?;
    let lost = swarm.workers[1].peer_id().to_owned();

    let url = format!("{}/v1/chat/completions", swarm.gateway.http_url());
    let request = reqwest::Client::new().post(url).header("traceparent", traceparent(HTTP_TRACE));
    let mut answer = request.json(&question(300)).send().await?;
    // The role, then some text.
    for _ in 0..3 {
        answer.chunk().await?.context("the answer goes on")?;
    }
    swarm.workers[1].kill().await?;
    swarm.workers[1].restart().await?;
    let rest = answer.text().await?;
    ensure!(rest.trim_end().ends_with("data: [DONE]"), "it came to its end: {rest}");

    receiver.receives("the generation", |spans| !generations(spans).is_empty()).await?;
    let generation = generation(&receiver.spans)?.clone();
    let attempts = generation["attributes"]["llama_swarm.attempts"].as_u64().context("a number")?;
    assert!(attempts >= 2, "{generation:#}");
    let events = generation["events"].as_array().context("a list")?;
    let retries: Vec<_> = events.iter().filter(|event| event["name"] == "hop failed, replanning").collect();
    assert_eq!(retries.len() as u64, attempts - 1, "{generation:#}");
    assert_eq!(retries[0]["attributes"]["worker"], lost);
    assert_eq!(generation["status"], "unset", "the client got its answer");

    let again = |spans: &[Value]| {
        let second = |session: &&Value| session["attributes"]["llama_swarm.attempt"] == attempts;
        named(spans, "session").into_iter().filter(second).count() == 2
    };
    receiver.receives("both sessions of the last attempt", again).await?;
    for session in named(&receiver.spans, "session") {
        assert_eq!(session["parent"], generation["id"], "{session:#}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_fetches_of_a_model_is_a_span() -> anyhow::Result<()> {
    let Some(mut receiver) = needed("traces at a receiver of others", Receiver::rotel().await)? else {
        return Ok(());
    };
    let file = tiny_model(2)?;
    let model = SharedModel::of(file.path()).await?;
    let spec = SwarmSpec {
        total_shards: 1,
        environment: receiver.environment(),
        ..SwarmSpec::fetching(file.path())
    };
    let mut swarm = Swarm::ready(spec).await?;
    // The header by both, and the layers by the worker.
    receiver.receives("three fetches", |spans| named(spans, "fetch").len() == 3).await?;
    let attribute = |span: &Value, name: &str| span["attributes"][format!("llama_swarm.{name}")].clone();
    let mut received = BTreeMap::<String, u64>::new();
    for span in named(&receiver.spans, "fetch") {
        has(
            span,
            &json!({
                "llama_swarm.model": "tiny-llama", "llama_swarm.pieces_wrong": 0,
                "llama_swarm.info_hash": model.metainfo.info_hash().to_string(),
            }),
        )?;
        ensure!(span["kind"] == "internal" && span["status"] == "unset", "{span:#}");
        ensure!(attribute(span, "seconds").as_f64().is_some_and(|seconds| seconds > 0.0), "{span:#}");
        ensure!(attribute(span, "bytes_wanted").as_u64().is_some_and(|bytes| bytes > 0), "{span:#}");
        ensure!(attribute(span, "peers").as_u64().is_some_and(|peers| (1..=2).contains(&peers)), "{span:#}");
        let node = span["resource"]["service.instance.id"].to_string();
        *received.entry(node).or_default() +=
            attribute(span, "bytes_received").as_u64().context("a number")?;
    }
    let worker = received[&json!(swarm.workers[0].peer_id()).to_string()];
    ensure!(worker >= model.metainfo.layout().total(), "the worker has got all: {received:?}");
    swarm.gateway.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_sampler_says_no_nothing_is_sent() -> anyhow::Result<()> {
    let Some(mut receiver) = needed("traces at a receiver of others", Receiver::rotel().await)? else {
        return Ok(());
    };
    let model = tiny_model(2)?;
    let mut environment = receiver.environment();
    environment.push(("OTEL_TRACES_SAMPLER".into(), "always_off".into()));
    let spec = SwarmSpec { total_shards: 2, environment, ..SwarmSpec::new(model.path()) };
    let mut swarm = Swarm::ready(spec).await?;
    ask_in_trace(&swarm.gateway, HTTP_TRACE, question(4)).await?;
    // What a process has to send, it sends before it ends.
    swarm.gateway.stop().await?;
    for worker in &mut swarm.workers {
        worker.stop().await?;
    }

    // The receiver does receive: a gateway that samples what its clients do.
    let mut environment = receiver.environment();
    environment.push(("OTEL_TRACES_SAMPLER".into(), "parentbased_always_off".into()));
    let spec = SwarmSpec { total_shards: 2, environment, ..SwarmSpec::new(model.path()) };
    let swarm = Swarm::without_workers(spec).await?;
    chat(&swarm.gateway, "hello", 4).await.expect_err("nobody is there, and nobody samples");
    ask_in_trace(&swarm.gateway, GRPC_TRACE, question(4)).await.expect_err("nobody is there");
    receiver.receives("the refused request", |spans| spans.len() >= 2).await?;
    let traces: BTreeSet<_> = receiver.spans.iter().filter_map(|span| span["trace"].as_str()).collect();
    assert_eq!(traces, [GRPC_TRACE].into(), "{}", listed(&receiver.spans));
    let (server, generation) =
        (one(&receiver.spans, "POST /v1/chat/completions")?, generation(&receiver.spans)?);
    has(server, &json!({"http.response.status_code": 503, "error.type": "503"}))?;
    has(generation, &json!({"error.type": "not_ready"}))?;
    assert!(server["status"] == "error" && generation["status"] == "error", "{server:#}{generation:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_costs_a_counter_and_one_line() -> anyhow::Result<()> {
    // It takes connections and never says a word, which is worse than being gone.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", silent.local_addr()?);
    let environment = environment(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2"),
    ]);
    let model = tiny_model(2)?;
    let spec = SwarmSpec { total_shards: 2, environment, ..SwarmSpec::new(model.path()) };
    let mut swarm = Swarm::ready(spec).await?;
    let mut slowest = Duration::ZERO;
    for _ in 0..6 {
        let since = Instant::now();
        chat(&swarm.gateway, "hello", 4).await?;
        slowest = slowest.max(since.elapsed());
    }
    eprintln!("slowest answer while the receiver is silent: {slowest:?}");
    for cause in ["export_failed", "queue_full"] {
        let series = format!("llama_swarm_spans_dropped_total{{cause=\"{cause}\"}}");
        counts(&swarm.gateway, &series, 1).await?;
    }
    assert_eq!(counted(&swarm.gateway, "llama_swarm_spans_exported_total").await?, 0);
    swarm.gateway.stop().await?;
    let log = swarm.gateway.log();
    assert_eq!(log.matches("traces cannot be sent").count(), 1, "{log}");
    Ok(())
}
