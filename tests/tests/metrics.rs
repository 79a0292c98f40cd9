//! Metrics as Prometheus reads them, and what is built on them: the dashboard, the alerts, the page that lists them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use swarm_tests::{BOUND, Process, Swarm, SwarmSpec, chat, needed, python_script, python_with, tiny_model};
use tempfile::TempDir;
use tokio::process::Child;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Whether the tests of Prometheus can run.
fn has_prometheus(test: &str) -> anyhow::Result<bool> {
    let runs =
        |program| Command::new(program).arg("--version").output().is_ok_and(|run| run.status.success());
    let there = runs("prometheus") && runs("promtool");
    let missing = "no prometheus or promtool on the path: install them (Debian: apt-get install prometheus)";
    Ok(needed(test, there.then_some(()).context(missing))?.is_some())
}

/// A program that judges finds nothing to say against it.
fn approved(output: &Output, what: &str) -> anyhow::Result<()> {
    let said =
        [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned()).concat();
    ensure!(output.status.success(), "{what}: {said}");
    Ok(())
}

async fn scrape(url: &str) -> anyhow::Result<String> {
    let answer = reqwest::get(format!("{url}/metrics")).await?;
    ensure!(
        answer.headers()["content-type"].to_str()?.starts_with("text/plain; version=0.0.4"),
        "{answer:?}"
    );
    Ok(answer.text().await?)
}

/// Name and type of each family.
fn families(scraped: &str) -> BTreeMap<String, String> {
    let pairs = scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    pairs.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// Whether a name is of the swarm's own metrics, of OpenTelemetry's for generative AI, or of those that all processes
/// have.
fn is_metric(name: &str) -> bool {
    ["llama_swarm_", "gen_ai_", "process_"].iter().any(|first| name.starts_with(first))
}

/// A label that is called as metrics are.
const TOKEN_TYPE: &str = "gen_ai_token_type";

/// The metrics that a text names.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| is_metric(word) && *word != TOKEN_TYPE).map(str::to_owned).collect()
}

/// The name of a family's samples: a histogram has three.
fn family_of<'a>(name: &'a str, families: &BTreeMap<String, String>) -> Option<&'a str> {
    let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
    let histogram = histogram.filter(|name| families.get(*name).is_some_and(|kind| kind == "histogram"));
    histogram.or_else(|| families.get(name).is_some_and(|kind| kind != "histogram").then_some(name))
}

/// Counters by the names of keys, which this gateway has none of.
const OF_KEYS: [&str; 3] = [
    "llama_swarm_gateway_client_generated_tokens_total",
    "llama_swarm_gateway_client_prompt_tokens_total",
    "llama_swarm_gateway_client_requests_total",
];

/// Name and type of families, and the services that show them.
type Families = BTreeMap<(String, String), BTreeSet<&'static str>>;

/// What the first have and the others do not.
fn beyond(some: &Families, others: &Families) -> Vec<String> {
    let has = |family, on: &BTreeSet<_>| others.get(family).is_some_and(|others| on.is_subset(others));
    let beyond = some.iter().filter(|(family, on)| !has(*family, on));
    beyond.map(|((name, kind), on)| format!("{name} ({kind}) on {on:?}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_lists_exactly_what_each_service_shows() -> anyhow::Result<()> {
    let model = tiny_model(1)?;
    let swarm = Swarm::ready(SwarmSpec { total_shards: 1, ..SwarmSpec::new(model.path()) }).await?;
    chat(&swarm.gateway, "hello", 2).await?;
    let mut shown = Families::new();
    let services = [
        ("gateway", swarm.gateway.http_url()),
        ("worker", swarm.workers[0].grpc_url()),
        ("rendezvous", swarm.rendezvous.grpc_url()),
    ];
    for (service, url) in &services {
        for family in families(&scrape(url).await?) {
            shown.entry(family).or_default().insert(*service);
        }
    }
    let on_its_grpc_port = families(&scrape(&swarm.gateway.grpc_url()).await?);
    assert_eq!(on_its_grpc_port, families(&scrape(&swarm.gateway.http_url()).await?));

    let page = std::fs::read_to_string(repository("docs/observability.md"))?;
    let mut listed = Families::new();
    for line in page.lines().filter(|line| line.strip_prefix("| `").is_some_and(is_metric)) {
        let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [_, name, kind, _, on, ..] = cells[..] else { bail!("a line without its cells: {line}") };
        let lists = |service: &&str| on == "all" || on.split(", ").any(|named| named == *service);
        let on = services.iter().map(|(service, _)| *service).filter(lists);
        listed.insert((name.to_owned(), kind.to_owned()), on.collect());
    }
    let unlisted = beyond(&shown, &listed);
    assert!(unlisted.is_empty(), "not in docs/observability.md: {unlisted:#?}");
    listed.retain(|(name, _), _| !OF_KEYS.contains(&name.as_str()));
    let not_shown = beyond(&listed, &shown);
    assert!(not_shown.is_empty(), "only in docs/observability.md: {not_shown:#?}");
    Ok(())
}

#[test]
fn the_alerts_are_rules_that_fire_when_they_should() -> anyhow::Result<()> {
    if !has_prometheus("the alerts")? {
        return Ok(());
    }
    for (what, file) in [("check", "docs/alerts.yaml"), ("test", "tests/data/alerts-test.yaml")] {
        let output = Command::new("promtool").args([what, "rules"]).arg(repository(file)).output()?;
        approved(&output, file)?;
    }
    Ok(())
}

#[test]
fn grafanas_own_models_know_all_that_the_dashboard_says() -> anyhow::Result<()> {
    let python = python_with("dashboard-requirements.txt", "grafana");
    let Some(python) = needed("the dashboard in Grafana's models", python)? else {
        return Ok(());
    };
    let mut check = Command::new(python);
    check.arg(python_script("dashboard.py")).arg(repository("docs/grafana-dashboard.json"));
    approved(&check.output()?, "docs/grafana-dashboard.json")
}

/// A running Prometheus; ended when dropped.
struct Prometheus {
    url: String,
    _dir: TempDir,
    _child: Child,
}

impl Prometheus {
    /// Starts it on these targets, once a second.
    async fn start(targets: &[String]) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("prometheus-")?;
        let rules = repository("docs/alerts.yaml").canonicalize()?;
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{"job_name": "llama-swarm", "static_configs": [{"targets": targets}]}],
        });
        // JSON is YAML.
        std::fs::write(dir.path().join("prometheus.yml"), config.to_string())?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let child = tokio::process::Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { url: format!("http://{address}"), _dir: dir, _child: child })
    }

    async fn query(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        let url = format!("{}/api/v1/query", self.url);
        let answer = reqwest::Client::new().get(url).query(&[("query", expression)]).send().await?;
        let answer: Value = answer.json().await?;
        ensure!(answer["status"] == "success", "{expression}: {answer}");
        Ok(answer["data"]["result"].as_array().context("a list")?.clone())
    }

    /// The one number that the expression gives; none while it gives nothing.
    async fn number(&self, expression: &str) -> anyhow::Result<Option<f64>> {
        let result = self.query(expression).await?;
        ensure!(result.len() < 2, "{expression}: {result:?}");
        Ok(result.first().and_then(|sample| sample["value"][1].as_str()?.parse().ok()))
    }

    /// Waits until the expression gives a number that is so.
    async fn sees(&self, expression: &str, so: impl Fn(f64) -> bool) -> anyhow::Result<()> {
        let (since, mut poll) = (Instant::now(), tokio::time::interval(Duration::from_millis(100)));
        let mut last = None;
        while since.elapsed() < BOUND {
            poll.tick().await;
            // It takes a moment until it answers at all.
            last = self.number(expression).await.ok().flatten();
            if last.is_some_and(&so) {
                return Ok(());
            }
        }
        bail!("{expression} stays at {last:?}")
    }
}

fn host_and_port(url: String) -> String {
    url.replace("http://", "")
}

/// What a reader of the dashboard chooses by, where all are chosen.
const VARIABLES: [&str; 5] = ["$namespace", "$swarm", "$cluster", "$pod", "$instance"];

/// Every expression of the dashboard.
fn dashboard() -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(repository("docs/grafana-dashboard.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    Ok(targets.filter_map(|target| target["expr"].as_str()).map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_all_ten_processes_and_what_is_built_on_them_fits() -> anyhow::Result<()> {
    if !has_prometheus("metrics in Prometheus")? {
        return Ok(());
    }
    let model = tiny_model(8)?;
    let swarm = Swarm::ready(SwarmSpec::new(model.path())).await?;
    let others = swarm.workers.iter().chain([&swarm.rendezvous]).map(Process::grpc_url);
    let urls: Vec<_> = others.chain([swarm.gateway.http_url()]).collect();
    let targets: Vec<_> = urls.iter().cloned().map(host_and_port).collect();
    let prometheus = Prometheus::start(&targets).await?;
    prometheus.sees("sum(up)", |up| up == 10.0).await?;
    prometheus.sees("min(llama_swarm_swarm_ready)", |ready| ready == 1.0).await?;
    let replicas = "sum(max by (shard) (llama_swarm_shard_replicas{state=\"loaded\"}))";
    prometheus.sees(replicas, |replicas| replicas == 8.0).await?;
    an_answer_is_counted(&swarm.gateway, &prometheus).await?;
    what_is_built_on_them_fits(&approved_families(&urls).await?, &prometheus).await
}

async fn an_answer_is_counted(gateway: &Process, prometheus: &Prometheus) -> anyhow::Result<()> {
    let series = [
        ("sum(llama_swarm_gateway_generated_tokens_total)", 16.0),
        ("sum(llama_swarm_gateway_time_between_tokens_seconds_count)", 15.0),
        (
            "sum(llama_swarm_http_requests_total{code=\"200\",route=\"/v1/chat/completions\"}) or vector(0)",
            1.0,
        ),
        // A prompt of some tokens and 15 decode steps on each worker.
        ("min(llama_swarm_rows_total)", 16.0),
        ("min(llama_swarm_step_compute_seconds_count)", 16.0),
    ];
    let mut before = vec![];
    for (expression, _) in series {
        before.push(prometheus.number(expression).await?.context(expression)?);
    }
    chat(gateway, "hello", 16).await?;
    // One sees which hop is slow.
    let of_hops = "count(llama_swarm_gateway_hop_compute_seconds_count{cluster!=\"\"} > 0)";
    prometheus.sees(of_hops, |shards| shards == 8.0).await?;
    prometheus.sees("count(llama_swarm_model_info == 1)", |nodes| nodes == 10.0).await?;
    for ((expression, at_least), before) in series.into_iter().zip(before) {
        prometheus.sees(expression, |now| now >= before + at_least).await?;
    }
    Ok(())
}

/// The families of all processes, with which Prometheus' own tool finds nothing wrong.
async fn approved_families(urls: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut shown: BTreeMap<_, _> = OF_KEYS.map(|name| (name.to_owned(), "counter".to_owned())).into();
    for url in urls {
        let scraped = scrape(url).await?;
        shown.extend(families(&scraped));
        let mut check = Command::new("promtool");
        check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut check = check.spawn()?;
        std::io::Write::write_all(&mut check.stdin.take().context("a pipe")?, scraped.as_bytes())?;
        approved(&check.wait_with_output()?, url)?;
    }
    Ok(shown)
}

async fn what_is_built_on_them_fits(
    shown: &BTreeMap<String, String>,
    prometheus: &Prometheus,
) -> anyhow::Result<()> {
    let alerts = std::fs::read_to_string(repository("docs/alerts.yaml"))?;
    let dashboard = dashboard()?;
    assert!(dashboard.len() > 30, "the dashboard has its panels");
    for name in names(&alerts).into_iter().chain(dashboard.iter().flat_map(|text| names(text))) {
        assert!(family_of(&name, shown).is_some(), "{name} is used, but no service shows it");
    }
    for expression in dashboard {
        let expression = expression.replace("$__rate_interval", "10s");
        let expression = VARIABLES.iter().fold(expression, |text, name| text.replace(name, ".*"));
        prometheus.query(&expression).await?;
    }
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}").await?;
    assert!(firing.is_empty(), "nothing is wrong with this swarm: {firing:?}");
    Ok(())
}
