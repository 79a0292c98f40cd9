//! The operator's `up`: a whole swarm from one command, and nothing left of it afterwards.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use swarm_proto::wire::{WatchStatusRequest, swarm_service_client::SwarmServiceClient};
use swarm_tests::{BOUND, llama_swarm, tiny_model};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

/// A running `up` and its standard error.
struct Up {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

fn command(model: &Path, dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(llama_swarm());
    command.args(["up", "--workers", "2", "--total-shards", "4", "--http-port", "0", "--grpc-port", "0"]);
    command.arg("--model").arg(model).arg("--dir").arg(dir).args(args);
    // An operator's environment may be that of a gateway for others. This swarm is for this machine alone.
    for variable in ["LLAMA_SWARM_API_KEYS_FILE", "LLAMA_SWARM_TLS_CERT", "LLAMA_SWARM_TLS_KEY"] {
        command.env(variable, "/not/there");
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl Up {
    async fn start(model: &Path, dir: &Path) -> Result<Self> {
        let mut up = Self::spawn(command(model, dir, &[]))?;
        up.says("Ctrl-C ends everything").await?;
        Ok(up)
    }

    fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
        Ok(Self { child, lines })
    }

    /// Waits until it prints a line with this in it.
    async fn says(&mut self, text: &str) -> Result<()> {
        let mut said = String::new();
        let found = async {
            while let Some(line) = self.lines.next_line().await? {
                if line.contains(text) {
                    return Ok(());
                }
                said.push_str(&line);
                said.push('\n');
            }
            anyhow::bail!("it ended")
        };
        let found = tokio::time::timeout(BOUND, found).await.unwrap_or_else(|late| Err(late.into()));
        found.with_context(|| format!("it never said {text:?}, but:\n{said}"))
    }
}

/// The gRPC port of every process of the swarm in `dir`.
fn ports(dir: &Path) -> Result<Vec<SocketAddr>> {
    let mut ports = vec![];
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let addresses: serde_json::Value = serde_json::from_slice(&std::fs::read(path)?)?;
            ports.push(addresses["grpc"].as_str().context("a gRPC address")?.parse()?);
        }
    }
    Ok(ports)
}

/// Waits until nobody listens on these ports any more.
async fn all_gone(ports: &[SocketAddr]) -> Result<()> {
    let since = Instant::now();
    let mut look = tokio::time::interval(Duration::from_millis(20));
    while let Some(left) = ports.iter().find(|port| TcpStream::connect(port).is_ok()) {
        ensure!(since.elapsed() < BOUND, "somebody still listens on {left}");
        look.tick().await;
    }
    Ok(())
}

/// Waits until the gateway sees the swarm whole: that it was not may be over before anybody saw it.
async fn ready_again(dir: &Path) -> Result<()> {
    let addresses: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("gateway.json"))?)?;
    let url = format!("http://{}", addresses["grpc"].as_str().context("a gRPC address")?);
    let mut client = SwarmServiceClient::connect(url).await?;
    let mut changes = client.watch_status(WatchStatusRequest {}).await?.into_inner();
    let ready = async {
        while let Some(status) = changes.message().await? {
            if status.swarm_ready && status.shards.iter().all(|shard| shard.replicas.len() == 1) {
                return Ok(());
            }
        }
        anyhow::bail!("the gateway ended")
    };
    tokio::time::timeout(BOUND, ready).await?
}

/// The process whose command line has this in it, as Linux lists it.
fn pid_of(argument: &str) -> Result<u32> {
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command_line.split(|byte| *byte == 0).any(|each| each == argument.as_bytes()) {
            return Ok(pid);
        }
    }
    anyhow::bail!("no process with the argument {argument}")
}

async fn signal(signal: &str, pid: u32) -> Result<()> {
    let sent = Command::new("kill").args([signal, &pid.to_string()]).status().await?;
    ensure!(sent.success(), "cannot signal {pid}");
    Ok(())
}

#[tokio::test]
async fn a_prompt_is_answered_on_standard_output_and_everything_ends() -> Result<()> {
    let (model, dir) = (tiny_model(8)?, TempDir::new()?);
    let mut command =
        command(model.path().as_ref(), dir.path(), &["--prompt", "hello", "--max-tokens", "12"]);
    let output = tokio::time::timeout(BOUND, command.output()).await??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    assert!(said.contains("swarm ready after") && said.contains("prompt tokens"), "{said}");
    // The answer's line is all there is; its text is a random model's.
    assert!(output.stdout.ends_with(b"\n") && output.stdout.len() > 1, "{:?}", output.stdout);
    let ports = ports(dir.path())?;
    assert_eq!(ports.len(), 4);
    all_gone(&ports).await
}

#[tokio::test]
async fn beyond_this_machine_clients_show_a_key() -> Result<()> {
    let (model, dir) = (tiny_model(8)?, TempDir::new()?);
    let mut command = command(model.path().as_ref(), dir.path(), &["--host", "0.0.0.0"]);
    command.env("LLAMA_SWARM_API_KEY", "the-key");
    let mut up = Up::spawn(command)?;
    up.says("key         the-key").await?;
    up.says("Ctrl-C ends everything").await?;

    let addresses: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("gateway.json"))?)?;
    let http: SocketAddr = addresses["http"].as_str().context("an HTTP address")?.parse()?;
    assert!(http.ip().is_unspecified(), "{http}");
    let asked = reqwest::Client::new().get(format!("http://127.0.0.1:{}/v1/models", http.port()));
    let asked_with_key = asked.try_clone().context("no body")?.bearer_auth("the-key");
    assert_eq!(asked.send().await?.status(), 401);
    assert_eq!(asked_with_key.send().await?.status(), 200);
    // Only HTTP was opened.
    assert!(ports(dir.path())?.iter().all(|grpc| grpc.ip().is_loopback()));
    Ok(())
}

#[tokio::test]
async fn a_prompt_is_answered_also_where_clients_show_a_key() -> Result<()> {
    let (model, dir) = (tiny_model(8)?, TempDir::new()?);
    let args = ["--host", "0.0.0.0", "--prompt", "hello", "--max-tokens", "3"];
    let output =
        tokio::time::timeout(BOUND, command(model.path().as_ref(), dir.path(), &args).output()).await??;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("prompt tokens"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_worker_that_dies_is_started_again_with_its_identity() -> Result<()> {
    let (model, dir) = (tiny_model(8)?, TempDir::new()?);
    let mut up = Up::start(model.path().as_ref(), dir.path()).await?;
    let identity = dir.path().canonicalize()?.join("worker-1.key");
    let key = std::fs::read(&identity)?;
    signal("-KILL", pid_of(&identity.display().to_string())?).await?;
    up.says("worker-1 ended").await?;
    up.says("worker-1 is running again").await?;
    ready_again(dir.path()).await?;
    assert_eq!(std::fs::read(&identity)?, key);

    let ports = ports(dir.path())?;
    signal("-TERM", up.child.id().context("running")?).await?;
    let ended = tokio::time::timeout(BOUND, up.child.wait()).await??;
    ensure!(ended.success(), "{ended}");
    all_gone(&ports).await
}

#[tokio::test]
async fn the_processes_do_not_outlive_an_up_that_is_killed() -> Result<()> {
    let (model, dir) = (tiny_model(8)?, TempDir::new()?);
    let mut up = Up::start(model.path().as_ref(), dir.path()).await?;
    let ports = ports(dir.path())?;
    assert_eq!(ports.len(), 4);
    up.child.kill().await?;
    all_gone(&ports).await
}

#[tokio::test]
async fn more_shards_than_layers_are_told() -> Result<()> {
    let (model, dir) = (tiny_model(2)?, TempDir::new()?);
    let args = ["--prompt", "hello", "--max-tokens", "1"];
    let output =
        tokio::time::timeout(BOUND, command(model.path().as_ref(), dir.path(), &args).output()).await??;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("4 shards for 2 layers: 2 have none and only pass on"), "{said}");
    assert!(output.status.success(), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_process_that_cannot_start_ends_the_swarm_with_its_own_words() -> Result<()> {
    let (model, dir) = (tiny_model(8)?, TempDir::new()?);
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let mut command = Command::new(llama_swarm());
    command.args(["up", "--total-shards", "4", "--grpc-port", "0", "--http-port", &port]).arg("--model");
    command.arg(model.path()).arg("--dir").arg(dir.path()).kill_on_drop(true);
    let output = tokio::time::timeout(BOUND, command.output()).await??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("gateway ended") && said.contains(&port), "{said}");
    drop(taken);
    all_gone(&ports(dir.path())?).await
}
