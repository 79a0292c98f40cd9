//! Who was not invited: real processes that reach a swarm and do not hold its secret, and what becomes of them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures::future::join_all;
use swarm_net::{Identity, MemberConfig, NetConfig, NetError, Role, Secret, SwarmNet};
use swarm_tests::{BOUND, Process, ProcessSpec, Swarm, SwarmSpec, chat, counted, tiny_model};
use swarm_types::NodeId;
use tokio::time::{interval, timeout};

/// Nothing else of the swarm's has these bytes in its memory.
const PROMPT: &str = "purple elephant rocket window seven";

async fn two_shards(model: &Path) -> anyhow::Result<Swarm> {
    Swarm::ready(SwarmSpec { total_shards: 2, ..SwarmSpec::new(model.to_owned()) }).await
}

/// An unmodified worker that serves everything, and is told where to enter.
async fn outsider(swarm: &Swarm, model: &Path, dir: &Path, flags: &[&str]) -> anyhow::Result<Process> {
    let entry = swarm.rendezvous.quic_address()?;
    let entry = entry.split("/p2p/").next().unwrap_or(&entry);
    let words = "worker --shard-id 0-1 --total-shards 2 --threads 1 --grpc-listen 127.0.0.1:0 \
                 --listen /ip4/127.0.0.1/udp/0/quic-v1,/ip4/127.0.0.1/tcp/0";
    let model = model.display().to_string();
    let more = ["--rendezvous", entry, "--model", &model];
    let args = words.split_whitespace().chain(more).chain(flags.iter().copied()).map(str::to_owned).collect();
    Process::start(ProcessSpec { name: "outsider".into(), args, environment: vec![], dir: dir.into() }).await
}

/// How many were kept out by a node, for whatever cause.
async fn kept_out(node: &Process) -> anyhow::Result<u64> {
    let mut all = 0;
    for cause in ["wrong_secret", "secret_refused", "left"] {
        let series = format!("llama_swarm_announcements_refused_total{{cause=\"{cause}\"}}");
        all += counted(node, &series).await.unwrap_or(0);
    }
    Ok(all)
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let mut look = interval(Duration::from_millis(100));
    let found = async {
        while !so().await? {
            look.tick().await;
        }
        Ok(())
    };
    timeout(BOUND, found).await.unwrap_or_else(|_| Err(anyhow::anyhow!("never: {what}")))
}

/// All that a process can read and write of its own, searched for some bytes.
fn memory_has(pid: u32, wanted: &[u8]) -> anyhow::Result<bool> {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|may| may.starts_with("rw"))) {
        let range = line.split(' ').next().unwrap_or_default();
        let Some((start, end)) = range.split_once('-') else { continue };
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        let mut bytes = vec![0; usize::try_from(end - start)?];
        // What the kernel keeps for itself cannot be read.
        if memory.read_exact_at(&mut bytes, start).is_ok()
            && bytes.windows(wanted.len()).any(|window| window == wanted)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// It has tried to get in, and nothing came of it; the swarm has not changed.
async fn is_kept_out(swarm: &Swarm, outsider: &Process, before: u64) -> anyhow::Result<()> {
    until("the outsider was refused", async || Ok(kept_out(&swarm.rendezvous).await? > before)).await?;
    outsider.sees("its own shards", |status| status.discovered_shards == 2).await?;
    let answer = chat(&swarm.gateway, PROMPT, 8).await?;
    for _ in 0..5 {
        ensure!(chat(&swarm.gateway, PROMPT, 8).await? == answer);
    }
    let theirs = outsider.status().await?;
    let seen = theirs.shards.iter().flat_map(|shard| &shard.replicas);
    ensure!(seen.clone().all(|replica| replica.worker == outsider.peer_id()), "it sees others: {theirs:?}");
    for series in ["llama_swarm_stream_received_bytes_total", "llama_swarm_stream_sent_bytes_total"] {
        ensure!(counted(outsider, series).await? == 0, "{series}: it had a stream");
    }
    for node in swarm.nodes() {
        let status = node.status().await?;
        ensure!(
            status.swarm_ready && status.shards.iter().all(|shard| shard.replicas.len() == 1),
            "{status:?}"
        );
        ensure!(!node.log().contains(outsider.peer_id()), "the outsider is known:\n{}", node.log());
    }
    ensure!(memory_has(swarm.gateway.pid(), PROMPT.as_bytes())?, "the search finds nothing anywhere");
    ensure!(!memory_has(outsider.pid(), PROMPT.as_bytes())?, "it has read the prompt");
    let log = outsider.log();
    ensure!(log.contains("--secret-file"), "it is not told what to do:\n{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_the_secret_is_not_seen_not_used_and_told_why() -> anyhow::Result<()> {
    let model = tiny_model(2)?;
    let swarm = two_shards(&model.path()).await?;
    let dir = tempfile::tempdir()?;
    let wrong = dir.path().join("wrong.secret");
    Secret::generate().create(&wrong)?;
    for flags in [vec![], vec!["--secret-file", wrong.to_str().expect("text")]] {
        let before = kept_out(&swarm.rendezvous).await?;
        let mut outsider = outsider(&swarm, &model.path(), dir.path(), &flags).await?;
        is_kept_out(&swarm, &outsider, before).await?;
        // The next has the same key.
        outsider.kill().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_uses_the_model_past_the_gateway() -> anyhow::Result<()> {
    let model = tiny_model(2)?;
    let swarm = two_shards(&model.path()).await?;
    let dir = tempfile::tempdir()?;
    let wrong = dir.path().join("wrong.secret");
    Secret::generate().create(&wrong)?;
    for secret_file in [None, Some(wrong)] {
        for entry in swarm.nodes() {
            let before = kept_out(entry).await?;
            let config = NetConfig {
                listen: vec!["/ip4/127.0.0.1/tcp/0".into(), "/ip4/127.0.0.1/udp/0/quic-v1".into()],
                rendezvous: vec![entry.quic_address()?],
                members: MemberConfig { secret_file: secret_file.clone(), ..MemberConfig::default() },
                total_shards: 2,
                ..NetConfig::default()
            };
            let (net, _listener) = SwarmNet::bind(config, Role::Gateway, Identity::ephemeral()).await?;
            until("it was refused", async || Ok(kept_out(entry).await? > before)).await?;
            let ids: Vec<NodeId> =
                swarm.nodes().map(|node| node.peer_id().parse()).collect::<Result<_, _>>()?;
            // Each waits whether the peer comes yet.
            for channel in join_all(ids.iter().map(|id| net.channel(id))).await {
                ensure!(matches!(channel, Err(NetError::NotConnected(_))), "{channel:?}");
            }
            ensure!(net.status().borrow().discovered_shards == 0 && net.round_trips().is_empty());
        }
    }
    ensure!(!chat(&swarm.gateway, PROMPT, 8).await?.is_empty());
    Ok(())
}

/// Asks without a pause until it is told to stop; every answer must be the same.
async fn keep_asking(gateway: &Process, stop: &tokio_util::sync::CancellationToken) -> anyhow::Result<usize> {
    let (first, mut asked) = (chat(gateway, PROMPT, 24).await?, 1);
    while !stop.is_cancelled() {
        ensure!(chat(gateway, PROMPT, 24).await? == first, "another answer");
        asked += 1;
    }
    Ok(asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_under_load_loses_nothing_and_shuts_the_old_secret_out() -> anyhow::Result<()> {
    let model = tiny_model(2)?;
    let swarm = two_shards(&model.path()).await?;
    let dir = tempfile::tempdir()?;
    let old_file = dir.path().join("old.secret");
    std::fs::copy(swarm.secret(), &old_file)?;
    let (old, new) = (std::fs::read_to_string(swarm.secret())?, Secret::generate().reveal());
    let rotate = async {
        let start = Instant::now();
        let steps = [format!("{old}{new}\n"), format!("{new}\n{old}"), format!("{new}\n")];
        for (step, text) in steps.iter().enumerate() {
            std::fs::write(swarm.secret(), text)?;
            let changed = |node: &Process| node.log().matches("the swarm's secrets have changed").count();
            until("all have read it", async || Ok(swarm.nodes().all(|node| changed(node) > step))).await?;
        }
        until("all have proven the new one", async || {
            let mut left = 0;
            for node in swarm.nodes() {
                left += counted(node, "llama_swarm_members_to_prove_again").await?;
            }
            Ok(left == 0)
        })
        .await?;
        println!("rotated in {:?}", start.elapsed());
        Ok::<_, anyhow::Error>(())
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let asking = keep_asking(&swarm.gateway, &stop);
    let rotating = async {
        let rotated = rotate.await;
        stop.cancel();
        rotated
    };
    let (asked, rotated) = tokio::join!(asking, rotating);
    rotated?;
    println!("{} answers meanwhile, all the same", asked?);
    for node in swarm.nodes() {
        ensure!(!node.log().contains("sent away"), "{}", node.log());
    }
    ensure!(swarm.nodes().any(|node| node.log().contains("has proven itself again")));
    let recovered = "llama_swarm_generation_recoveries_total";
    println!("recoveries: {:?}", counted(&swarm.gateway, recovered).await.ok());
    let before = kept_out(&swarm.rendezvous).await?;
    let flags = ["--secret-file", old_file.to_str().expect("text")];
    let late = outsider(&swarm, &model.path(), dir.path(), &flags).await?;
    is_kept_out(&swarm, &late, before).await
}
