//! A worker that is lost is missed until somebody takes it out of service, and one that was ended in order is not.

use std::process::{Output, Stdio};

use anyhow::Context;
use swarm_proto::wire::{ReplicaState, SwarmStatus};
use swarm_tests::{Process, Swarm, SwarmSpec, chat, counted, llama_swarm, replica_state, tiny_model};
use tokio::process::Command;

/// Runs a sub-command that asks a node, to its end.
async fn ask(node: &Process, sub_command: &[&str]) -> anyhow::Result<Output> {
    let address = node.grpc_url().replace("http://", "");
    let mut command = Command::new(llama_swarm());
    command.args(sub_command).args(["--addr", &address]).stdin(Stdio::null()).kill_on_drop(true);
    Ok(command.output().await?)
}

/// What it has said, of a command that must end so.
fn said(output: &Output, success: bool) -> anyhow::Result<String> {
    let all = String::from_utf8([&output.stdout[..], &output.stderr[..]].concat())?;
    anyhow::ensure!(output.status.success() == success, "it ended with {}: {all}", output.status);
    Ok(all)
}

/// Waits until all other nodes see the spare of shard 1 lost, or not, and show it as a metric.
async fn all_see(swarm: &Swarm, spare: &str, lost: bool) -> anyhow::Result<()> {
    let is_lost = |status: &SwarmStatus| {
        let replica = status.shards[1].replicas.iter().find(|replica| replica.worker == spare);
        replica.is_some_and(|replica| replica.lost && replica.state() == ReplicaState::Offline)
    };
    for node in swarm.nodes().filter(|node| node.peer_id() != spare) {
        node.sees("the spare lost or not", |status| is_lost(status) == lost).await?;
        assert_eq!(counted(node, "llama_swarm_workers_lost{shard=\"0\"}").await?, 0);
        let metric = counted(node, "llama_swarm_workers_lost{shard=\"1\"}").await?;
        assert_eq!(metric, u64::from(lost), "{}", node.name());
    }
    Ok(())
}

/// Waits until all nodes see the spare as they should.
async fn all_see_it(swarm: &Swarm, spare: &str, state: ReplicaState) -> anyhow::Result<()> {
    for node in swarm.nodes().filter(|node| state == ReplicaState::Loaded || node.peer_id() != spare) {
        let so = |status: &SwarmStatus| replica_state(status, 1, spare) == Some(state);
        node.sees(&format!("the spare {state:?}"), so).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_spare_is_missed_everywhere_until_it_is_forgotten_and_is_welcome_again() -> anyhow::Result<()>
{
    let model = tiny_model(2)?;
    let spec = SwarmSpec { total_shards: 2, ..SwarmSpec::new(model.path()) };
    let mut swarm = Swarm::ready(spec).await?;
    let entry = swarm.rendezvous.quic_address()?;
    let place = swarm.add_worker("spare", "1", &entry).await?;
    let spare = swarm.workers[place].peer_id().to_owned();
    all_see_it(&swarm, &spare, ReplicaState::Loaded).await?;
    for node in swarm.nodes() {
        node.sees("swarm ready", |status| status.swarm_ready).await?;
    }
    let answer = chat(&swarm.gateway, "hello", 8).await?;
    let present = said(&ask(&swarm.gateway, &["forget", &spare]).await?, false)?;
    assert!(present.contains("only lost ones are forgotten"), "{present}");

    swarm.workers[place].kill().await?;
    all_see(&swarm, &spare, true).await?;
    let status = said(&ask(&swarm.gateway, &["status"]).await?, true)?;
    assert!(status.contains("OFFLINE (lost)"), "{status}");
    let cure = status.lines().find_map(|line| line.split_once("llama-swarm forget "));
    assert_eq!(cure.with_context(|| status.clone())?.1, spare);

    let beginning = &spare[..spare.len() - 8];
    let forgotten = said(&ask(&swarm.workers[0], &["forget", beginning]).await?, true)?;
    assert_eq!(forgotten.trim(), format!("4 nodes have forgotten {spare}"));
    all_see(&swarm, &spare, false).await?;
    let again = said(&ask(&swarm.gateway, &["forget", &spare]).await?, false)?;
    assert!(again.contains("not known as lost"), "{again}");

    // It is counted as usual: lost again when it is killed, back when it is started again.
    for _ in 0..2 {
        swarm.workers[place].restart().await?;
        assert_eq!(swarm.workers[place].peer_id(), spare);
        all_see_it(&swarm, &spare, ReplicaState::Loaded).await?;
        all_see(&swarm, &spare, false).await?;
        swarm.workers[place].kill().await?;
        all_see(&swarm, &spare, true).await?;
    }
    swarm.workers[place].restart().await?;
    all_see_it(&swarm, &spare, ReplicaState::Loaded).await?;
    assert_eq!(chat(&swarm.gateway, "hello", 8).await?, answer);

    swarm.workers[place].stop().await?;
    all_see_it(&swarm, &spare, ReplicaState::Offline).await?;
    all_see(&swarm, &spare, false).await
}
