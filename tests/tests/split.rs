//! A model that is split into several files is one model, whichever way a node comes to it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::ensure;
use gguf::{Header, write::split};
use model_torrent::{Metainfo, TORRENT_LIMIT};
use swarm_proto::wire::{self, generate_request::Input};
use swarm_tests::{
    Hub, Process, SharedModel, Swarm, SwarmSpec, counted, generate, ids, llama_swarm, oracle, real_model,
    tiny_model,
};
use swarm_types::{ShardId, ShardRange};
use tempfile::TempDir;

const SHARDS: u32 = 3;

/// A model in three files, of which the first has the metadata alone.
fn split_in_three(model: &Path) -> anyhow::Result<(TempDir, PathBuf)> {
    let dir = TempDir::with_prefix("split-")?;
    let first = dir.path().join("model-00001-of-00003.gguf");
    let tensors = Header::read_without_arrays(model)?.tensors.len();
    split(model, &first, &[0, tensors / 2, 0])?;
    Ok((dir, first))
}

/// Tokens, and the bits of their log-probabilities.
type Answer = Vec<(u32, Option<u32>)>;

/// Some answers at temperature 0.
async fn answers(gateway: &Process) -> anyhow::Result<Vec<Answer>> {
    let (oracle, mut answers) = (oracle()?, vec![]);
    for case in oracle["f32"]["cases"].as_array().into_iter().flatten().take(3) {
        let prompt = Input::PromptTokens(wire::TokenIds { ids: ids(&case["prompt_tokens"]) });
        let tokens = generate(gateway, prompt, 32).await?;
        answers.push(tokens.iter().map(|token| (token.id, token.logprob.map(f32::to_bits))).collect());
    }
    ensure!(answers.len() == 3 && answers.iter().all(|answer: &Answer| !answer.is_empty()), "{answers:?}");
    Ok(answers)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_model_in_three_files_answers_by_path_and_by_swarm_as_in_one() -> anyhow::Result<()> {
    let one = real_model().await?;
    let (_dir, first) = split_in_three(&one)?;
    let of = |model: PathBuf| SwarmSpec { total_shards: SHARDS, ..SwarmSpec::new(model) };
    let expected = answers(&Swarm::ready(of(one)).await?.gateway).await?;

    let by_path = Swarm::ready(of(first.clone())).await?;
    assert_eq!(answers(&by_path.gateway).await?, expected, "by path");
    drop(by_path);

    let model = SharedModel::of(first.clone()).await?;
    assert_eq!(model.metainfo.layout().files(), 3);
    let fetching = SwarmSpec { total_shards: SHARDS, ..SwarmSpec::fetching(first) };
    let mut by_swarm = Swarm::ready(fetching).await?;
    assert_eq!(answers(&by_swarm.gateway).await?, expected, "by swarm");
    for (shard, worker) in (0..).zip(&mut by_swarm.workers) {
        println!(
            "worker {shard} received {} bytes",
            counted(worker, "llama_swarm_pieces_received_bytes_total").await?
        );
        worker.kill().await?;
    }
    for shard in 0..SHARDS {
        let kept = model.kept(&by_swarm.cache(&format!("worker-{shard}")))?;
        let wanted = model.wanted(SHARDS, ShardRange::one(ShardId(shard)))?;
        println!("worker {shard} keeps {} bytes of {}", model.bytes(&kept), model.metainfo.layout().total());
        ensure!(kept == wanted, "worker {shard} has {} pieces, needs {}", kept.count(), wanted.count());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_gives_each_of_the_three_files_once() -> anyhow::Result<()> {
    let one = real_model().await?;
    let (_dir, first) = split_in_three(&one)?;
    let of = |model: PathBuf| SwarmSpec { total_shards: SHARDS, ..SwarmSpec::new(model) };
    let expected = answers(&Swarm::ready(of(one)).await?.gateway).await?;

    let (hub, model) = (Hub::of(&first).await?, SharedModel::of(first).await?);
    let swarm = Swarm::at_once(SwarmSpec { environment: hub.environment(), ..of(hub.model()) }).await?;
    swarm.gateway.sees("swarm ready", |status| status.swarm_ready).await?;
    swarm.gateway.is_ready().await?;
    assert_eq!(answers(&swarm.gateway).await?, expected, "by hub");
    let (sent, bytes) = (hub.sent(), model.metainfo.layout().total());
    println!("the hub sent {sent} bytes of files of {bytes}");
    ensure!(sent >= bytes && sent * 10 <= bytes * 11, "the hub sent {sent} bytes of files of {bytes}");
    Ok(())
}

/// One of the operator's commands.
fn run(dir: &Path, command: &str, model: &Path, more: &[&str]) -> anyhow::Result<Output> {
    let mut process = Command::new(llama_swarm());
    process.arg(command).arg(model).args(more);
    Ok(process.arg("--cache-dir").arg(dir.join("cache")).current_dir(dir).output()?)
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

#[tokio::test]
async fn commands_take_any_file_for_the_model_and_name_the_one_that_is_missing() -> anyhow::Result<()> {
    let whole = tiny_model(4)?;
    let (dir, first) = split_in_three(&whole.path())?;
    let last = first.with_file_name("model-00003-of-00003.gguf");
    let (one, split) =
        (run(dir.path(), "plan", &whole.path(), &["--json"])?, run(dir.path(), "plan", &last, &["--json"])?);
    ensure!(split.status.success() && one.stdout == split.stdout, "{}", said(&split));
    let written = run(dir.path(), "torrent", &first, &[])?;
    ensure!(written.status.success(), "{}", said(&written));
    let metainfo = Metainfo::from_bytes(&std::fs::read(dir.path().join("model.torrent"))?, TORRENT_LIMIT)?;
    assert_eq!(metainfo.info_hash(), SharedModel::of(last).await?.metainfo.info_hash());
    let named = "its 3 files are called model/model-00001-of-00003.gguf and so on";
    ensure!(said(&written).contains(named), "{}", said(&written));

    let second = first.with_file_name("model-00002-of-00003.gguf");
    std::fs::remove_file(&second)?;
    let refused = run(dir.path(), "plan", &first, &[])?;
    let missing = format!("the model is in 3 files, and {} is not there", second.display());
    ensure!(!refused.status.success() && said(&refused).contains(&missing), "{}", said(&refused));
    Ok(())
}
