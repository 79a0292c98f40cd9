//! What stands in `examples/` runs, against one swarm.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use gateway::clients::{Entry, Key, Limits};
use swarm_tests::{BOUND, Process, Swarm, SwarmSpec, needed, program, python, tiny_model};
use tokio::{process::Command, time::timeout};

/// Where the examples have a key from.
const VARIABLE: &str = "LLAMA_SWARM_API_KEY";

fn python_example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python").join(name)
}

/// What it prints.
async fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = timeout(BOUND, command.kill_on_drop(true).output()).await.context("it takes too long")??;
    let printed = String::from_utf8(output.stdout)?;
    let trouble = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {printed}\n{trouble}");
    Ok(printed)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_runs() -> anyhow::Result<()> {
    let model = tiny_model(4)?;
    let swarm = Swarm::ready(SwarmSpec { total_shards: 2, ..SwarmSpec::new(model.path()) }).await?;
    let (key, entry) = Entry::new("examples", Limits::default()).map_err(anyhow::Error::msg)?;
    let keys = tempfile::NamedTempFile::new()?;
    std::fs::write(keys.path(), entry.to_string())?;
    let flags = ["--api-keys-file", keys.path().to_str().context("a path in UTF-8")?];
    let keyed = swarm.another_gateway("keyed", &flags).await?;
    keyed.is_ready().await?;
    every_example_answers(&swarm.gateway, None).await?;
    every_example_answers(&keyed, Some(&key)).await
}

async fn every_example_answers(gateway: &Process, key: Option<&Key>) -> anyhow::Result<()> {
    let (http, grpc) = (gateway.http_url(), gateway.grpc_url());
    let with_key = |program: PathBuf| {
        let mut command = Command::new(program);
        command.env_remove(VARIABLE).envs(key.map(|key| (VARIABLE, key.as_str())));
        command
    };
    let printed = run(with_key(program("grpc-client")).args([&grpc, "Hello!"])).await?;
    assert!(printed.contains(" tokens]"), "{printed}");

    let Some(python) = needed("the examples in Python", python())? else { return Ok(()) };
    let example = |name: &str| {
        let mut command = with_key(python.clone());
        command.arg(python_example(name));
        command
    };
    let printed = run(example("chat.py").args([&http, "Hello!"])).await?;
    assert!(printed.contains("the same seed: the same text"), "{printed}");

    let address = grpc.trim_start_matches("http://");
    let printed = run(example("generate.py").args([address, "The sky is"])).await?;
    assert!(printed.starts_with("The sky is") && printed.contains("ended by"), "{printed}");
    Ok(())
}
