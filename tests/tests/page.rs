//! The gateway's live page in a real browser, over a real swarm whose worker is killed.

use std::{
    path::PathBuf,
    process::Stdio,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use swarm_tests::{BOUND, Swarm, SwarmSpec, chromium, needed, python, python_script, tiny_model};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// The script that drives the browser, told and telling by lines.
struct Script {
    child: Child,
    told: ChildStdin,
    says: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn start(python: PathBuf, chromium: PathBuf, url: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(python)
            .arg(python_script("page.py"))
            .arg(url)
            .env("CHROMIUM", chromium)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let told = child.stdin.take().context("stdin is piped")?;
        let says = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        Ok(Self { child, told, says })
    }

    async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        self.told.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.told.flush().await?)
    }

    /// Waits until it says this word; gives what came with it.
    async fn says(&mut self, word: &str) -> anyhow::Result<String> {
        let said = timeout(BOUND, self.says.next_line()).await;
        match said.with_context(|| format!("waiting for {word:?}"))?? {
            Some(line) if line.starts_with(word) => Ok(line[word.len()..].trim().to_owned()),
            other => {
                let mut trouble = String::new();
                if let Some(mut stderr) = self.child.stderr.take() {
                    timeout(BOUND, stderr.read_to_string(&mut trouble)).await??;
                }
                anyhow::bail!("it said {other:?} for {word:?}\n{trouble}")
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_swarm_as_it_is_and_each_tokens_way() -> anyhow::Result<()> {
    let tools = python().and_then(|python| Ok((python, chromium()?)));
    let Some((python, chromium)) = needed("the live page in a browser", tools)? else { return Ok(()) };
    let model = tiny_model(8)?;
    let mut swarm = Swarm::ready(SwarmSpec::new(model.path())).await?;
    let mut script = Script::start(python, chromium, &swarm.gateway.http_url())?;
    script.says("ready").await?;

    let killed_at = SystemTime::now().duration_since(UNIX_EPOCH)?;
    swarm.workers[3].kill().await?;
    script.tell(&format!("killed {}", killed_at.as_millis())).await?;
    eprintln!("the page showed OFFLINE {} ms after the kill", script.says("offline").await?);

    swarm.workers[3].restart().await?;
    script.tell("restarted").await?;
    script.says("back").await?;
    script.says("ok").await?;
    let ended = timeout(BOUND, script.child.wait()).await??;
    ensure!(ended.success(), "{ended}");
    Ok(())
}
