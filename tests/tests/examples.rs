//! What stands in `examples/` runs, against one swarm.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use swarm_tests::{BOUND, Swarm, SwarmSpec, needed, program, python, tiny_model};
use tokio::{process::Command, time::timeout};

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
    let (http, grpc) = (swarm.gateway.http_url(), swarm.gateway.grpc_url());

    let printed = run(Command::new(program("grpc-client")).args([&grpc, "Hello!"])).await?;
    assert!(printed.contains(" tokens]"), "{printed}");

    let Some(python) = needed("the examples in Python", python())? else { return Ok(()) };
    let printed = run(Command::new(&python).arg(python_example("chat.py")).args([&http, "Hello!"])).await?;
    assert!(printed.contains("the same seed: the same text"), "{printed}");

    let address = grpc.trim_start_matches("http://");
    let printed =
        run(Command::new(&python).arg(python_example("generate.py")).args([address, "The sky is"])).await?;
    assert!(printed.starts_with("The sky is") && printed.contains("ended by"), "{printed}");
    Ok(())
}
