//! A path between two nodes that are both alive is cut, and comes back.

use std::time::Duration;

use swarm_proto::wire::{ReplicaState, SwarmStatus};
use swarm_tests::{Network, Swarm, SwarmSpec, chat, counted, counts, replica_state, tiny_model};

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
