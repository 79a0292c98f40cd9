//! Structured answers and calls of the real model, judged by a validator that we did not write, also while workers are
//! killed.

use std::process::Stdio;

use anyhow::{Context, ensure};
use swarm_tests::{BOUND, Swarm, SwarmSpec, needed, python, python_script, real_model};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Command,
    time::timeout,
};

/// Each worker is the only one of its shard, so the session needs the one that is killed.
const SHARDS: u32 = 3;

async fn swarm() -> anyhow::Result<Swarm> {
    let gateway_args = vec!["--allow-any-model".to_owned()];
    Swarm::ready(SwarmSpec { total_shards: SHARDS, gateway_args, ..SwarmSpec::new(real_model().await?) })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_must_be_always_parse_and_streams_say_what_plain_answers_say() -> anyhow::Result<()> {
    let Some(python) = needed("calls of functions", python())? else { return Ok(()) };
    let swarm = swarm().await?;
    let script = Command::new(python).arg(python_script("tools.py")).arg(swarm.gateway.http_url()).output();
    let output = timeout(4 * BOUND, script).await.context("the script ends")??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_validates_and_killed_workers_change_none() -> anyhow::Result<()> {
    let Some(python) = needed("structured answers", python())? else { return Ok(()) };
    let mut swarm = swarm().await?;
    let mut script = Command::new(python)
        .arg(python_script("structured.py"))
        .arg(swarm.gateway.http_url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut told = script.stdin.take().context("stdin is piped")?;
    let mut says = BufReader::new(script.stdout.take().context("stdout is piped")?).lines();
    let (mut killed, mut last) = (0, String::new());
    while let Some(line) = timeout(4 * BOUND, says.next_line()).await.context("the script goes on")?? {
        if let Some(worker) = line.strip_prefix("kill ") {
            let worker = swarm.workers.get_mut(worker.parse::<usize>()?).context("a worker")?;
            worker.kill().await?;
            worker.restart().await?;
            told.write_all(b"killed\n").await?;
            killed += 1;
        } else {
            eprintln!("{line}");
            last = line;
        }
    }
    let mut trouble = String::new();
    if let Some(mut stderr) = script.stderr.take() {
        timeout(BOUND, stderr.read_to_string(&mut trouble)).await??;
    }
    ensure!(timeout(BOUND, script.wait()).await??.success() && last == "ok", "{trouble}");
    ensure!(killed == 24, "{killed} workers were killed");
    Ok(())
}
