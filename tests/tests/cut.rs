//! A path between two nodes that are both alive is cut, and comes back.

use std::time::{Duration, Instant};

use anyhow::Context;
use swarm_proto::wire::{ReplicaState, SwarmStatus};
use swarm_tests::{
    Answer, BOUND, Network, Swarm, SwarmSpec, chat, counted, counts, replica_state, tiny_model,
};

/// README.md says about two seconds; a busy machine has one more.
const LOST_WITHIN: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_cut_off_from_the_gateway_is_offline_there_alone_and_comes_back() -> anyhow::Result<()> {
    let this = "a_worker_cut_off_from_the_gateway_is_offline_there_alone_and_comes_back";
    let Some(network) = Network::of_its_own(this).await? else { return Ok(()) };
    let model = tiny_model(2)?;
    let swarm = Swarm::ready(SwarmSpec { total_shards: 2, ..SwarmSpec::new(model.path()) }).await?;
    let (gateway, cut_off, other) = (&swarm.gateway, &swarm.workers[0], &swarm.workers[1]);
    let before = chat(gateway, "hello", 16).await?;
    let dials = "llama_swarm_dials_failed_total";
    let failed_before = counted(gateway, dials).await?;
    let id = cut_off.peer_id().to_owned();
    let state = |status: &SwarmStatus| replica_state(status, 0, &id);

    network.cut(gateway, cut_off).await?;
    let lost = gateway.sees("it offline", |status| state(status) == Some(ReplicaState::Offline)).await?;
    eprintln!("offline {lost:?} after the cut");
    assert!(lost < LOST_WITHIN, "{lost:?}");
    // By QUIC and by TCP, and again.
    counts(gateway, dials, failed_before + 4).await?;
    assert_eq!(
        state(&gateway.status().await?),
        Some(ReplicaState::Offline),
        "there is no way around the cut"
    );
    for node in [other, &swarm.rendezvous] {
        assert_eq!(state(&node.status().await?), Some(ReplicaState::Loaded), "nobody else has lost it");
    }

    network.mend(gateway, cut_off).await?;
    let back = gateway.sees("it back", |status| state(status) == Some(ReplicaState::Loaded)).await?;
    eprintln!("back {back:?} after the path was");
    assert_eq!(chat(gateway, "hello", 16).await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_lost_a_connection_goes_on_where_it_stood() -> anyhow::Result<()> {
    let this = "a_session_that_lost_a_connection_goes_on_where_it_stood";
    let Some(network) = Network::of_its_own(this).await? else { return Ok(()) };
    let model = tiny_model(3)?;
    // Longer than anything here takes.
    let worker_args = ["--session-lease".into(), "600".into()].into();
    let spec = SwarmSpec { total_shards: 3, worker_args, ..SwarmSpec::new(model.path()) };
    let swarm = Swarm::ready(spec).await?;
    let before = rows(&swarm).await?;
    let undisturbed = Answer::ask(&swarm.gateway, TOKENS).await?.rest().await?;
    assert_eq!(undisturbed.len(), TOKENS as usize);
    nothing_is_kept(&swarm).await?;
    let expected = since(&before, &rows(&swarm).await?);
    assert!(expected.iter().all(|rows| *rows == expected[0]), "every worker computes each row: {expected:?}");

    // The gateway gives tokens to the first and gets them from the last.
    for (round, place) in [(1, 0), (2, 2)] {
        let cut_off = &swarm.workers[place];
        let before = rows(&swarm).await?;
        let mut answer = Answer::ask(&swarm.gateway, TOKENS).await?;
        let mut tokens = answer.next().await?.context("it has begun")?;
        network.cut(&swarm.gateway, cut_off).await?;
        let state = |status: &SwarmStatus| replica_state(status, place, cut_off.peer_id());
        let lost = |status: &SwarmStatus| state(status) == Some(ReplicaState::Offline);
        swarm.gateway.sees("it offline", lost).await?;
        network.mend(&swarm.gateway, cut_off).await?;
        tokens.extend(answer.rest().await?);
        assert_eq!(tokens, undisturbed, "worker {place} was cut off");
        for (hop, worker) in swarm.workers.iter().enumerate() {
            let taken_over = counted(worker, "llama_swarm_sessions_taken_over_total").await?;
            assert_eq!(taken_over, round, "worker {hop} goes on with the cache that it has");
        }
        let computed = since(&before, &rows(&swarm).await?);
        eprintln!("worker {place} was cut off: {computed:?} rows, {} undisturbed", expected[0]);
        assert_eq!(computed, expected, "nothing was computed twice");
        nothing_is_kept(&swarm).await?;
    }
    Ok(())
}

/// A session that came to its end is freed on every worker, and no lease is left of it.
async fn nothing_is_kept(swarm: &Swarm) -> anyhow::Result<()> {
    for worker in &swarm.workers {
        for gauge in ["llama_swarm_kv_cache_bytes", "llama_swarm_sessions_leased", "llama_swarm_sessions"] {
            let (since, mut poll) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
            while counted(worker, &format!("{gauge} ")).await? > 0 {
                anyhow::ensure!(since.elapsed() < BOUND, "{gauge} does not come to 0");
                poll.tick().await;
            }
        }
    }
    Ok(())
}

/// Enough that a generation is far from its end when its first token has come.
const TOKENS: u32 = 400;

/// Rows that each worker has computed.
async fn rows(swarm: &Swarm) -> anyhow::Result<Vec<u64>> {
    let mut rows = vec![];
    for worker in &swarm.workers {
        rows.push(counted(worker, "llama_swarm_rows_total").await?);
    }
    Ok(rows)
}

fn since(before: &[u64], after: &[u64]) -> Vec<u64> {
    before.iter().zip(after).map(|(before, after)| after - before).collect()
}
