//! Nodes come and go: who sees what, and when.

use std::time::{Duration, Instant};

use anyhow::Context;
use swarm_proto::wire::{ReplicaState, SwarmStatus};
use swarm_tests::{BOUND, Process, Swarm, SwarmSpec, chat, counted, replica_state, tiny_model};

fn has_line(log: &str, line: &str) -> anyhow::Result<()> {
    anyhow::ensure!(log.contains(line), "no line {line:?} in the log:\n{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_join_are_discovered_connected_and_ready_everywhere() -> anyhow::Result<()> {
    let model = tiny_model(8)?;
    let swarm = Swarm::start(SwarmSpec::new(model.path())).await?;
    let last_start = swarm.workers.last().context("eight workers")?.started();
    for node in swarm.nodes() {
        node.sees("swarm ready", |status| status.swarm_ready && status.discovered_shards == 8).await?;
    }
    eprintln!("ready everywhere {:?} after the last start", last_start.elapsed());
    assert!(last_start.elapsed() < Duration::from_secs(25));

    let worker = &swarm.workers[0];
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    // It may be ready before the DHT has answered.
    let recorded = async {
        while !worker.log().contains("✓ Record found in DHT for shard ") {
            looks.tick().await;
        }
    };
    tokio::time::timeout(swarm_tests::BOUND, recorded).await.context("no record of the DHT in the log")?;
    let log = worker.log();
    let peer = swarm.workers[1].peer_id();
    has_line(&log, &format!("[DHT] ✓ Discovered shard 1 from peer: {peer}"))?;
    has_line(&log, "[CONNECT] ✓✓✓ CONNECTED TO PEER ✓✓✓")?;
    has_line(&log, &format!("[CONNECT]   Peer ID: {peer}"))?;
    has_line(&log, "[CONNECT]   Transport: QUIC")?;
    has_line(&log, "[STATUS]   Shard 0: ★ LOCAL")?;
    has_line(&log, "[STATUS]   Shard 1: ✓ ONLINE")?;
    has_line(&log, "[STATUS] Pipeline Complete: ✗ NO → ✓ YES")?;
    has_line(&log, "[STATUS] Swarm Ready: ✗ NO → ✓ YES")?;
    let measured = |status: &SwarmStatus| {
        status.shards.windows(2).all(|pair| {
            let next = &pair[1].replicas[0].worker;
            pair[0].replicas[0].round_trips_us.get(next).is_some_and(|micros| *micros > 0)
        })
    };
    swarm.gateway.sees("how far each worker is from the next", measured).await?;
    has_line(&log, "[SHARD_LOADED] ✓✓✓ All required shards are now LOADED - swarm ready for inference ✓✓✓")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_rendezvous_newcomers_are_found_and_answers_go_on() -> anyhow::Result<()> {
    let model = tiny_model(8)?;
    let mut swarm = Swarm::ready(SwarmSpec::new(model.path())).await?;
    let before = chat(&swarm.gateway, "hello", 16).await?;
    swarm.rendezvous.stop().await?;

    let entry = swarm.workers[0].quic_address()?;
    let spare = swarm.add_worker("spare-5", "5", &entry).await?;
    let spare = swarm.workers[spare].peer_id().to_owned();
    for node in swarm.workers.iter().chain([&swarm.gateway]) {
        let loaded = |status: &SwarmStatus| replica_state(status, 5, &spare) == Some(ReplicaState::Loaded);
        node.sees("the spare of shard 5 loaded", loaded).await?;
    }
    assert_eq!(chat(&swarm.gateway, "hello", 16).await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_offline_everywhere_and_back_as_the_same_one() -> anyhow::Result<()> {
    let model = tiny_model(8)?;
    let mut swarm = Swarm::ready(SwarmSpec::new(model.path())).await?;
    let before = chat(&swarm.gateway, "hello", 16).await?;
    all_have_life_lines(&swarm).await?;
    let gone = gone_before(&swarm).await;
    let gone_at = swarm.workers[3].kill().await?;
    worker_3_is_offline_and_comes_back(&mut swarm, gone_at, "closed", (gone, &before)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_is_offline_everywhere_and_back_as_the_same_one() -> anyhow::Result<()> {
    let model = tiny_model(8)?;
    let mut swarm = Swarm::ready(SwarmSpec::new(model.path())).await?;
    let before = chat(&swarm.gateway, "hello", 16).await?;
    all_have_life_lines(&swarm).await?;
    let gone = gone_before(&swarm).await;
    swarm.workers[3].stop().await?;
    worker_3_is_offline_and_comes_back(&mut swarm, Instant::now(), "left", (gone, &before)).await
}

/// Waits until each node has a life line to each other.
async fn all_have_life_lines(swarm: &Swarm) -> anyhow::Result<()> {
    let others = swarm.nodes().count() - 1;
    let (since, mut poll) = (Instant::now(), tokio::time::interval(Duration::from_millis(50)));
    for node in swarm.nodes() {
        // The series is there after the first of them.
        while counted(node, "llama_swarm_connections{transport=\"TCP\"}").await.unwrap_or(0) < others as u64 {
            anyhow::ensure!(since.elapsed() < BOUND, "{} has no life lines:\n{}", node.name(), node.log());
            poll.tick().await;
        }
    }
    Ok(())
}

/// How many peers a node has noticed as gone: because they were closed, silent, or left.
async fn gone(node: &Process) -> [u64; 3] {
    let mut gone = [0; 3];
    for (count, cause) in gone.iter_mut().zip(["closed", "silent", "left"]) {
        let series = format!("llama_swarm_peers_gone_total{{cause=\"{cause}\"}}");
        *count = counted(node, &series).await.unwrap_or(0);
    }
    gone
}

/// The same of all nodes: two that meet may lose a connection of several.
async fn gone_before(swarm: &Swarm) -> Vec<[u64; 3]> {
    let mut all = vec![];
    for node in swarm.nodes() {
        all.push(gone(node).await);
    }
    all
}

/// It has ended, which the others noticed by this cause, and nobody by its silence. `before`: how many were gone
/// before, at each node; `answer`: what the model said.
async fn worker_3_is_offline_and_comes_back(
    swarm: &mut Swarm,
    gone_at: Instant,
    cause: &str,
    (before, answer): (Vec<[u64; 3]>, &str),
) -> anyhow::Result<()> {
    let (lost, mut by_cause) = (swarm.workers[3].peer_id().to_owned(), 0);
    for (place, node) in swarm.nodes().enumerate().filter(|(place, _)| *place != 5) {
        let offline = |status: &SwarmStatus| replica_state(status, 3, &lost) == Some(ReplicaState::Offline);
        node.sees("worker 3 offline", offline).await.with_context(|| format!("node {place}"))?;
        let [closed, silent, left] = gone(node).await;
        let before = before[place];
        let causes = [closed > before[0], silent > before[1], left > before[2]];
        // Of a pair that is connected by TCP alone, a goodbye and the end of a process look the same.
        assert!(causes[0] != causes[2] && !causes[1], "node {place}: {causes:?}\n{}", node.log());
        by_cause += usize::from(causes[if cause == "closed" { 0 } else { 2 }]);
    }
    assert!(by_cause + 1 >= swarm.nodes().count() - 1, "{by_cause} nodes noticed it as {cause}");
    eprintln!("offline everywhere {:?} after its end", gone_at.elapsed());
    swarm.workers[3].restart().await?;
    assert_eq!(swarm.workers[3].peer_id(), lost, "the identity file keeps the peer id");
    for node in swarm.nodes() {
        let back = |status: &SwarmStatus| {
            status.swarm_ready
                && replica_state(status, 3, &lost) == Some(ReplicaState::Loaded)
                && status.shards.iter().all(|shard| shard.replicas.len() == 1)
        };
        node.sees("worker 3 back and nothing else listed", back).await?;
    }
    assert_eq!(chat(&swarm.gateway, "hello", 16).await?, answer);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_machines_make_eight_shards_and_give_the_same_text() -> anyhow::Result<()> {
    let model = tiny_model(8)?;
    let eight = Swarm::ready(SwarmSpec::new(model.path())).await?;
    let expected = chat(&eight.gateway, "hello", 16).await?;
    drop(eight);

    let mut swarm = Swarm::without_workers(SwarmSpec::new(model.path())).await?;
    let entry = swarm.rendezvous.quic_address()?;
    for (name, shards) in [("first", "0-2"), ("second", "3,4,5"), ("third", "6-7")] {
        swarm.add_worker(name, shards, &entry).await?;
    }
    let seen = swarm.gateway.sees("swarm ready", |status| status.swarm_ready).await?;
    eprintln!("three workers ready after {seen:?}");
    assert_eq!(chat(&swarm.gateway, "hello", 16).await?, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_rendezvous_restarted_workers_come_back_on_other_ports() -> anyhow::Result<()> {
    let model = tiny_model(8)?;
    let mut swarm = Swarm::ready(SwarmSpec::new(model.path())).await?;
    let before = chat(&swarm.gateway, "hello", 16).await?;
    for worker in &swarm.workers {
        worker.has_noted(&swarm.gateway).await?;
    }
    swarm.rendezvous.kill().await?;
    for number in 0..swarm.workers.len() {
        let worker = &mut swarm.workers[number];
        let address = worker.quic_address()?;
        worker.kill().await?;
        worker.restart().await?;
        anyhow::ensure!(worker.quic_address()? != address, "it has the same port");
        let (started, peer) = (worker.started(), worker.peer_id().to_owned());
        let back = |status: &SwarmStatus| replica_state(status, number, &peer) == Some(ReplicaState::Loaded);
        swarm.gateway.sees("the worker is back", back).await?;
        let took = started.elapsed();
        eprintln!("shard {number} is back {took:?} after its start");
        anyhow::ensure!(took < Duration::from_secs(10), "{took:?}");
    }
    assert_eq!(chat(&swarm.gateway, "hello", 16).await?, before);
    Ok(())
}
