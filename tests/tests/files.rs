//! Nodes that have no model's file get what they need of it from the others.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use gguf::{Header, tiny::TinyModel};
use model_torrent::{Metainfo, TORRENT_LIMIT};
use serde_json::json;
use swarm_proto::wire::{self, ReplicaState, SwarmStatus, generate_request::Input};
use swarm_tests::{
    BOUND, Network, Process, SharedModel, Swarm, SwarmSpec, ask, chat, counted, counts, expected_tokens,
    generate, ids, llama_swarm, model_of_many_pieces, oracle, real_model, replica_state, tiny_model,
};
use swarm_types::{ShardId, ShardRange};
use tokio::time::interval;

const RECEIVED: &str = "llama_swarm_pieces_received_bytes_total";
const SENT: &str = "llama_swarm_pieces_sent_bytes_total";
const VERIFIED: &str = "llama_swarm_pieces_verified_total";
/// Pieces that are under way with one peer. If it is late with them at the end of a fetch, they are asked of a second
/// one too, and may come twice.
const UNDER_WAY: u32 = 4;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Numbers that are the same in each run (the linear congruential generator of Knuth's MMIX).
struct Random(u64);

impl Random {
    /// From `least` to `most`.
    fn within(&mut self, least: u64, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        least + (self.0 >> 33) % (most - least + 1)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_workers_without_a_file_get_their_layers_and_answer_as_the_reference() -> anyhow::Result<()> {
    let model = SharedModel::of(real_model().await?).await?;
    let since = Instant::now();
    let mut swarm = Swarm::ready(SwarmSpec::fetching(model.path().to_owned())).await?;
    swarm.gateway.is_ready().await?;
    println!("ready {:?} after the first process was started", since.elapsed());
    answers_equal_the_reference(&swarm.gateway).await?;
    each_got_its_layers(&swarm, &model).await?;
    for worker in &mut swarm.workers {
        worker.kill().await?;
    }
    for shard in 0..8 {
        let kept = model.kept(&swarm.cache(&format!("worker-{shard}")))?;
        let wanted = model.wanted(8, ShardRange::one(ShardId(shard)))?;
        ensure!(kept == wanted, "worker {shard} has {} pieces, needs {}", kept.count(), wanted.count());
    }
    Ok(())
}

/// Where a model's vocabulary is small beside its layers, nearly all of it is needed by one worker alone.
#[tokio::test(flavor = "multi_thread")]
async fn eight_workers_take_little_more_than_the_file_in_all() -> anyhow::Result<()> {
    let dir = tempfile::TempDir::with_prefix("model-")?;
    let path = dir.path().join("long.gguf");
    TinyModel { layers: 48, hidden: 256, feed_forward: 512, ..TinyModel::default() }.write(&path)?;
    let model = SharedModel::of(path).await?;
    let answer = model.says("hello", 16).await?;
    let swarm = Swarm::ready(SwarmSpec::fetching(model.path().to_owned())).await?;
    swarm.gateway.is_ready().await?;
    assert_eq!(chat(&swarm.gateway, "hello", 16).await?, answer);
    each_got_its_layers(&swarm, &model).await?;
    let (mut came, file) = (counted(&swarm.gateway, RECEIVED).await?, model.metainfo.layout().total());
    for worker in &swarm.workers {
        came += counted(worker, RECEIVED).await?;
    }
    println!("{came} bytes came in all of a file of {file}: {:.3} times", came as f64 / file as f64);
    ensure!(came * 5 <= file * 6, "{came} bytes came in all of a file of {file}");
    Ok(())
}

async fn answers_equal_the_reference(gateway: &Process) -> anyhow::Result<()> {
    let oracle = oracle()?;
    for case in oracle["f32"]["cases"].as_array().context("the oracle has cases")?.iter().take(3) {
        let prompt = Input::PromptTokens(wire::TokenIds { ids: ids(&case["prompt_tokens"]) });
        let got: Vec<u32> = generate(gateway, prompt, 48).await?.iter().map(|token| token.id).collect();
        assert_eq!(got, expected_tokens(case), "case {}", case["name"]);
    }
    Ok(())
}

/// By what came: nothing of it twice, but what was under way with a peer that was late.
async fn each_got_its_layers(swarm: &Swarm, model: &SharedModel) -> anyhow::Result<()> {
    let layout = model.metainfo.layout();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let late = u64::from(UNDER_WAY * layout.piece_length());
    let mut all = counted(&swarm.gateway, RECEIVED).await?;
    for (shard, worker) in (0..).zip(&swarm.workers) {
        let needed = model.bytes(&model.wanted(8, ShardRange::one(ShardId(shard)))?);
        let received = counted(worker, RECEIVED).await?;
        println!("worker {shard}: {:.2} MiB came, {:.2} MiB are its pieces", mib(received), mib(needed));
        ensure!(received >= needed, "worker {shard} has something from elsewhere");
        ensure!(received <= needed + late, "worker {shard}: {received} bytes came for {needed}");
        all += received;
    }
    let mut sent = 0;
    for node in swarm.workers.iter().chain([&swarm.gateway]) {
        sent += counted(node, SENT).await?;
    }
    let seeded = counted(&swarm.seeders[0], SENT).await?;
    println!(
        "all: {:.2} MiB came, {:.2} MiB from who has the file of {:.2} MiB, {:.2} MiB from each other",
        mib(all),
        mib(seeded),
        mib(layout.total()),
        mib(sent)
    );
    ensure!(all <= seeded + sent, "{all} bytes came, {seeded} and {sent} were sent");
    Ok(())
}

/// Two nodes with the file give it so slowly that there is time to disturb them.
async fn slow_swarm(model: &SharedModel, limit: &str) -> anyhow::Result<Swarm> {
    let share_args = words(&format!("--upload-limit {limit}"));
    let spec = SwarmSpec { total_shards: 1, share_args, ..SwarmSpec::fetching(model.path().to_owned()) };
    let mut swarm = Swarm::without_workers(spec).await?;
    swarm.add_seeder("seeder-2").await?;
    let entry = swarm.rendezvous.quic_address()?;
    swarm.add_worker("worker", "0", &entry).await?;
    Ok(swarm)
}

/// The worker has come to its model, though with disturbances, and has not fetched again what it had.
async fn comes_to_its_model(
    mut swarm: Swarm,
    model: &SharedModel,
    verified_before: u64,
    answer: &str,
) -> anyhow::Result<()> {
    let fetches_no_more = |status: &wire::SwarmStatus| {
        status.swarm_ready && status.shards[0].replicas.iter().all(|replica| replica.fetching.is_none())
    };
    swarm.gateway.sees("swarm ready, all fetched", fetches_no_more).await?;
    assert_eq!(chat(&swarm.gateway, "hello", 16).await?, answer);
    let verified = verified_before + counted(&swarm.workers[0], VERIFIED).await?;
    let wanted = model.wanted(1, ShardRange::one(ShardId(0)))?;
    println!("{verified} pieces came and were right, {} were wanted", wanted.count());
    // Only what was under way with a peer that was late may have come twice.
    let bound = wanted.count() + UNDER_WAY;
    ensure!(verified <= u64::from(bound), "{verified} pieces came for {}", wanted.count());
    swarm.workers[0].kill().await?;
    let kept = model.kept(&swarm.cache("worker"))?;
    ensure!(kept == wanted, "{} pieces are kept", kept.count());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_of_who_fetches_and_of_those_that_give_cost_no_piece() -> anyhow::Result<()> {
    let file = model_of_many_pieces()?;
    let model = SharedModel::of(file.path()).await?;
    let answer = model.says("hello", 16).await?;
    let mut swarm = slow_swarm(&model, "1MiB").await?;
    let fetches = |status: &wire::SwarmStatus| {
        let replica = status.shards[0].replicas.first();
        replica
            .and_then(|replica| replica.fetching)
            .is_some_and(|told| told.peers > 0 && told.bytes_per_second > 0)
    };
    swarm.gateway.sees("from how many peers the worker fetches, and how fast", fetches).await?;
    let (mut random, mut before) = (Random(1), 0);
    for kill in 1..=20 {
        let now = counted(&swarm.workers[0], VERIFIED).await?;
        counts(&swarm.workers[0], VERIFIED, now + random.within(1, 3)).await?;
        let killed = match random.within(0, 3) {
            // That one is killed twice as often as each of the others.
            0 | 1 => {
                before += counted(&swarm.workers[0], VERIFIED).await?;
                &mut swarm.workers[0]
            }
            number => &mut swarm.seeders[usize::try_from(number)? - 2],
        };
        killed.kill().await?;
        killed.restart().await?;
        println!("kill {kill}: {}, with {before} pieces of its earlier lives", killed.name());
    }
    let log = swarm.workers[0].log();
    let told = log.lines().filter(|line| line.contains("[STATUS]   Shard 0: ★ LOCAL  LOADING "));
    let told = told.filter(|line| line.contains(" % · ") && line.contains(" MB/s"));
    ensure!(told.count() > 0, "nobody is told how far it is:\n{log}");
    comes_to_its_model(swarm, &model, before, &answer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_outlives_the_connections_to_those_that_give() -> anyhow::Result<()> {
    let this = "a_fetch_outlives_the_connections_to_those_that_give";
    let Some(network) = Network::of_its_own(this).await? else { return Ok(()) };
    let file = model_of_many_pieces()?;
    let model = SharedModel::of(file.path()).await?;
    let answer = model.says("hello", 16).await?;
    let swarm = slow_swarm(&model, "1MiB").await?;
    let worker = &swarm.workers[0];
    let mut random = Random(3);
    let mut more = async || {
        let more = counted(worker, VERIFIED).await? + random.within(2, 5);
        counts(worker, VERIFIED, more).await
    };
    for cut_off in [0, 1, 0] {
        more().await?;
        network.cut(worker, &swarm.seeders[cut_off]).await?;
        more().await?;
        network.mend(worker, &swarm.seeders[cut_off]).await?;
    }
    // Now nobody gives anything for a while.
    for seeder in &swarm.seeders {
        network.cut(worker, seeder).await?;
    }
    for seeder in &swarm.seeders {
        let state = |status: &SwarmStatus| replica_state(status, 0, worker.peer_id());
        let lost = |status: &SwarmStatus| state(status) == Some(ReplicaState::Offline);
        seeder.sees("the worker offline", lost).await?;
        network.mend(worker, seeder).await?;
    }
    comes_to_its_model(swarm, &model, 0, &answer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_other_byte_among_the_weights_makes_another_model() -> anyhow::Result<()> {
    let file = tiny_model(2)?;
    let header = Header::read_without_arrays(&file.path())?;
    let weight = header.tensors.get("output_norm.weight").context("a weight")?;
    let mut bytes = std::fs::read(file.path())?;
    bytes[usize::try_from(weight.offset)?] ^= 1;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("other.gguf");
    std::fs::write(&path, bytes)?;
    let one = SharedModel::of(file.path()).await?.metainfo.info_hash();
    let other = SharedModel::of(path.clone()).await?.metainfo.info_hash();
    assert_ne!(one, other);

    let swarm = Swarm::ready(SwarmSpec { total_shards: 2, ..SwarmSpec::new(file.path()) }).await?;
    let gateway = swarm.gateway_of("other", path).await?;
    gateway.sees("the workers", |status| status.swarm_ready).await?;
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4});
    let (status, answer) = ask(&gateway, "/v1/chat/completions", &body).await?;
    assert_eq!(status, 503, "{answer}");
    for named in [one.to_string(), other.to_string(), "start it with the same --model".into()] {
        ensure!(answer.to_string().contains(&named), "{named} is not in {answer}");
    }
    let (status, answer) = ask(&swarm.gateway, "/v1/chat/completions", &body).await?;
    assert_eq!(status, 200, "{answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_torrent_that_is_written_is_the_one_that_workers_announce() -> anyhow::Result<()> {
    let (model, dir) = (tiny_model(2)?, tempfile::tempdir()?);
    let out = dir.path().join("tiny.torrent");
    let mut command = Command::new(llama_swarm());
    command.arg("torrent").arg(model.path()).arg("-o").arg(&out);
    let written = command.arg("--cache-dir").arg(dir.path().join("cache")).output()?;
    ensure!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let metainfo = Metainfo::from_bytes(&std::fs::read(&out)?, TORRENT_LIMIT)?;
    let info_hash = metainfo.info_hash().to_string();
    let printed = String::from_utf8_lossy(&written.stdout);
    ensure!(printed.contains(&info_hash), "{info_hash} is not in {printed}");
    assert_eq!(metainfo.layout().total(), std::fs::metadata(model.path())?.len());

    let swarm = Swarm::ready(SwarmSpec { total_shards: 2, ..SwarmSpec::new(model.path()) }).await?;
    for node in swarm.workers.iter().chain([&swarm.gateway]) {
        logs(node, &format!("[DHT] ✓ Registered torrent tiny-llama ({info_hash})")).await?;
    }
    Ok(())
}

/// Waits until a process has logged these words.
async fn logs(process: &Process, words: &str) -> anyhow::Result<()> {
    let (since, mut look) = (Instant::now(), interval(Duration::from_millis(50)));
    while !process.log().contains(words) {
        ensure!(since.elapsed() < BOUND, "{words:?} is never in the log:\n{}", process.log());
        look.tick().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_what_came_before_is_kept() -> anyhow::Result<()> {
    let this = "a_full_disk_is_told_and_what_came_before_is_kept";
    // A disk of its own, which nobody else sees.
    let Some(_network) = Network::of_its_own(this).await? else { return Ok(()) };
    let file = model_of_many_pieces()?;
    let model = SharedModel::of(file.path()).await?;
    let answer = model.says("hello", 16).await?;
    let spec = SwarmSpec { total_shards: 1, ..SwarmSpec::fetching(model.path().to_owned()) };
    let mut swarm = Swarm::without_workers(spec).await?;
    let cache = swarm.cache("worker");
    let disk = SmallDisk::at(&cache, "8m").await?;
    let entry = swarm.rendezvous.quic_address()?;
    swarm.add_worker("worker", "0", &entry).await?;
    let ended = swarm.workers[0].ended().await?;
    let log = swarm.workers[0].log();
    ensure!(!ended.success() && log.contains("no space left"), "it ended with {ended}:\n{log}");
    disk.grow_to("256m").await?;
    let kept = model.believed(&cache)?;
    ensure!(kept.count() >= 4, "{} pieces were kept", kept.count());
    swarm.workers[0].restart().await?;
    let before = u64::from(kept.count());
    comes_to_its_model(swarm, &model, before, &answer).await
}

/// A disk of so many bytes that can be made larger. It is there for this process and its children alone.
struct SmallDisk(PathBuf);

impl SmallDisk {
    async fn at(folder: &Path, size: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], folder).await?;
        Ok(Self(folder.into()))
    }

    async fn grow_to(&self, size: &str) -> anyhow::Result<()> {
        mount(&["-o", &format!("remount,size={size}")], &self.0).await
    }
}

async fn mount(arguments: &[&str], folder: &Path) -> anyhow::Result<()> {
    let mounted = tokio::process::Command::new("mount").args(arguments).arg(folder).output().await?;
    let said = String::from_utf8_lossy(&mounted.stderr);
    ensure!(mounted.status.success(), "mount says: {}", said.trim());
    Ok(())
}
