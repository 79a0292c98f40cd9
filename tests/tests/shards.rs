//! How the model is cut over real processes: unequal shards, nodes that do not agree, and what workers take in memory.

use std::{process::Command, time::Instant};

use anyhow::Context;
use serde_json::{Value, json};
use swarm_tests::{BOUND, Process, Swarm, SwarmSpec, ask, chat, llama_swarm, real_model, tiny_model};

/// How far what is resident may be from what was planned: a tenth, and what comes and goes in any process.
const COMES_AND_GOES: u64 = 8 * MIB;
const MIB: u64 = 1 << 20;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The first layer of each shard as a worker announces it, and one past the last layer of all.
async fn cut(node: &Process) -> anyhow::Result<Vec<u32>> {
    let status = node.status().await?;
    let replicas: Vec<_> = status.shards.iter().filter_map(|shard| shard.replicas.first()).collect();
    let end = replicas.last().context("there are shards")?.end_layer;
    Ok(replicas.iter().map(|replica| replica.first_layer).chain([end]).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_uses_no_workers_that_cut_the_model_differently() -> anyhow::Result<()> {
    let model = tiny_model(4)?;
    let even = Swarm::ready(SwarmSpec { total_shards: 2, ..SwarmSpec::new(model.path()) }).await?;
    assert_eq!(cut(&even.gateway).await?, [0, 2, 4]);
    let expected = chat(&even.gateway, "hello", 16).await?;
    drop(even);

    let worker_args = words("--shard-weights 1,3");
    let spec = SwarmSpec { total_shards: 2, worker_args, ..SwarmSpec::new(model.path()) };
    let swarm = Swarm::ready(spec).await?;
    assert_eq!(cut(&swarm.gateway).await?, [0, 1, 4]);
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4});
    let (status, answer) = ask(&swarm.gateway, "/v1/chat/completions", &body).await?;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.to_string().contains("cut the model differently"), "{answer}");
    assert!(swarm.gateway.log().contains("it cuts the model differently"), "{}", swarm.gateway.log());

    let agrees = swarm.another_gateway("agrees", &["--shard-weights", "1,3"]).await?;
    agrees.is_ready().await?;
    assert_eq!(chat(&agrees, "hello", 16).await?, expected, "the answer does not depend on the cut");
    Ok(())
}

/// The command's plan of the model in eight shards, each with one session of so many positions.
fn plan(model: &str, positions: u32) -> anyhow::Result<Value> {
    let flags = words(&format!("--total-shards 8 --max-sessions 1 --context {positions} --json"));
    let planned = Command::new(llama_swarm()).args(["plan", model]).args(flags).output()?;
    anyhow::ensure!(planned.status.success(), "{}", String::from_utf8_lossy(&planned.stderr));
    Ok(serde_json::from_slice(&planned.stdout)?)
}

/// Bytes of a process that are in memory now, or were at most.
#[cfg(target_os = "linux")]
fn resident(process: &Process, key: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).context("Linux tells it")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn workers_take_the_memory_that_was_planned_for_them() -> anyhow::Result<()> {
    const POSITIONS: u32 = 1024;
    let tiny = tiny_model(1)?;
    let alone = Swarm::ready(SwarmSpec { total_shards: 1, ..SwarmSpec::new(tiny.path()) }).await?;
    let base = resident(&alone.workers[0], "VmRSS:")?;
    drop(alone);

    let model = real_model().await?;
    let planned = plan(&model.display().to_string(), POSITIONS)?;
    let shards = planned["shards"].as_array().context("a list")?;
    let swarm = Swarm::ready(SwarmSpec::new(model)).await?;
    let starts: Vec<_> = shards.iter().map(|shard| shard["first_layer"].clone()).chain([30.into()]).collect();
    assert_eq!(json!(cut(&swarm.gateway).await?), json!(starts), "workers cut as the plan says");

    let number = |shard: &Value, key: &str| shard[key].as_u64().context(key.to_owned());
    for (worker, shard) in swarm.workers.iter().zip(shards) {
        let weights = number(shard, "weight_bytes")?;
        // What loading took is given back after a moment.
        let (since, mut poll) = (Instant::now(), tokio::time::interval(std::time::Duration::from_millis(50)));
        loop {
            let own = resident(worker, "VmRSS:")?.saturating_sub(base);
            if own.abs_diff(weights) <= weights / 10 + COMES_AND_GOES {
                eprintln!(
                    "shard {}: weights {} KiB, {} KiB resident",
                    shard["shard"],
                    weights >> 10,
                    own >> 10
                );
                break;
            }
            anyhow::ensure!(since.elapsed() < BOUND, "{shard}: {own} bytes over the {base} of any worker");
            poll.tick().await;
        }
    }

    let prompt: Vec<u32> = (0..POSITIONS - 8).map(|place| 1000 + place % 20_000).collect();
    let body = json!({"prompt": prompt, "max_tokens": 8, "temperature": 0});
    let (status, answer) = ask(&swarm.gateway, "/v1/completions", &body).await?;
    anyhow::ensure!(status == 200, "{answer}");
    for (worker, shard) in swarm.workers.iter().zip(shards) {
        let (all, own) = (number(shard, "total_bytes")?, resident(worker, "VmHWM:")?.saturating_sub(base));
        eprintln!("shard {}: planned {} KiB, at most {} KiB resident", shard["shard"], all >> 10, own >> 10);
        assert!(own <= all + all / 10 + COMES_AND_GOES, "{shard}: {own} bytes over the {base} of any worker");
    }
    Ok(())
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_that_does_not_fit_says_what_it_needs_before_it_loads() -> anyhow::Result<()> {
    let model = tiny_model(2)?;
    let flags = "worker --shard-id 0 --total-shards 1 --batch-tokens 4000000000 --model";
    let refused = Command::new(llama_swarm()).args(words(flags)).arg(model.path()).output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for named in ["the shards need", "MiB of memory are available", "--ignore-memory"] {
        assert!(said.contains(named), "{named} is not in: {said}");
    }
    Ok(())
}
