//! Structured answers and calls of the real model, judged by a validator that we did not write, also while workers are
//! killed.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, ensure};
use swarm_tests::{BOUND, Swarm, SwarmSpec, needed, python, python_script, real_model};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
    time::timeout,
};

/// Each worker is the only one of its shard, so the session needs the one that is killed.
const SHARDS: u32 = 3;

/// Prompts that must call something. Each has all tools in it, so old processors take seconds for one.
const CALLS: &str = "12";

/// Two swarms at once would only wait for each other.
static TURNS: Mutex<()> = Mutex::const_new(());

async fn swarm() -> anyhow::Result<Swarm> {
    let gateway_args = vec!["--allow-any-model".to_owned()];
    Swarm::ready(SwarmSpec { total_shards: SHARDS, gateway_args, ..SwarmSpec::new(real_model().await?) })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_must_be_always_parse_and_streams_say_what_plain_answers_say() -> anyhow::Result<()> {
    let Some(python) = needed("calls of functions", python())? else { return Ok(()) };
    let _turn = TURNS.lock().await;
    let swarm = swarm().await?;
    let mut script = Script::start(python, "tools.py", &[CALLS], &swarm)?;
    while script.says().await?.is_some() {}
    script.ends_well().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_validates_and_killed_workers_change_none() -> anyhow::Result<()> {
    let Some(python) = needed("structured answers", python())? else { return Ok(()) };
    let _turn = TURNS.lock().await;
    let mut swarm = swarm().await?;
    let mut script = Script::start(python, "structured.py", &[], &swarm)?;
    let mut killed = 0;
    while let Some(line) = script.says().await? {
        if let Some(worker) = line.strip_prefix("kill ") {
            let worker = swarm.workers.get_mut(worker.parse::<usize>()?).context("a worker")?;
            worker.kill().await?;
            worker.restart().await?;
            script.told.write_all(b"killed\n").await?;
            killed += 1;
        }
    }
    script.ends_well().await?;
    ensure!(killed == 24, "{killed} workers were killed");
    Ok(())
}

/// A script that says how far it is, a line at a time, and "ok" at the end.
struct Script {
    process: Child,
    told: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    last: String,
}

impl Script {
    fn start(python: PathBuf, name: &str, more: &[&str], swarm: &Swarm) -> anyhow::Result<Self> {
        let mut process = Command::new(python)
            .arg(python_script(name))
            .arg(swarm.gateway.http_url())
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let told = process.stdin.take().context("stdin is piped")?;
        let lines = BufReader::new(process.stdout.take().context("stdout is piped")?).lines();
        Ok(Self { process, told, lines, last: String::new() })
    }

    /// The next line, however slow the machine is; nothing at the end.
    async fn says(&mut self) -> anyhow::Result<Option<String>> {
        let line = timeout(4 * BOUND, self.lines.next_line()).await.context("the script goes on")??;
        if let Some(line) = &line {
            self.last.clone_from(line);
        }
        Ok(line)
    }

    async fn ends_well(mut self) -> anyhow::Result<()> {
        let mut trouble = String::new();
        if let Some(mut stderr) = self.process.stderr.take() {
            timeout(BOUND, stderr.read_to_string(&mut trouble)).await??;
        }
        let ended = timeout(BOUND, self.process.wait()).await??;
        ensure!(ended.success() && self.last == "ok", "{trouble}");
        Ok(())
    }
}
