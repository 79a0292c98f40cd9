//! Nodes that were told to have their model from a hub: it gives the whole file once, and parts to whoever lacks them.

use anyhow::{Context, ensure};
use model_torrent::PieceSet;
use swarm_proto::wire::{self, generate_request::Input};
use swarm_tests::{
    Hub, Process, SharedModel, Swarm, SwarmSpec, chat, counted, expected_tokens, generate, ids,
    model_of_many_pieces, oracle, real_model,
};
use swarm_types::{ShardId, ShardRange};

const FROM_HUB: &str = "llama_swarm_origin_received_bytes_total";
/// What the node says that fetches for all.
const FETCHES: &str = "this one fetches all of it";

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_gives_a_file_once_to_a_swarm_and_later_only_what_nobody_has() -> anyhow::Result<()> {
    let file = model_of_many_pieces()?;
    let model = SharedModel::of(file.path()).await?;
    let answer = model.says("hello", 16).await?;
    let hub = Hub::of(model.path()).await?;
    let mut swarm = started(&hub, 3).await?;
    assert_eq!(chat(&swarm.gateway, "hello", 16).await?, answer);
    gave_the_file_once(&hub, &model, &swarm)?;

    // What the branch is by then does not matter: the swarm has decided.
    hub.moves_on();
    a_newcomer_takes_its_part_from_the_hub(&hub, &model, &mut swarm).await
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_workers_and_a_gateway_take_the_real_model_from_a_hub_once() -> anyhow::Result<()> {
    let model = SharedModel::of(real_model().await?).await?;
    let hub = Hub::of(model.path()).await?;
    let mut swarm = started(&hub, 8).await?;
    answers_equal_the_reference(&swarm.gateway).await?;
    gave_the_file_once(&hub, &model, &swarm)?;
    a_newcomer_takes_its_part_from_the_hub(&hub, &model, &mut swarm).await
}

/// Workers and gateway with empty caches, all at the same moment.
async fn started(hub: &Hub, total_shards: u32) -> anyhow::Result<Swarm> {
    let spec = SwarmSpec { total_shards, environment: hub.environment(), ..SwarmSpec::new(hub.model()) };
    let swarm = Swarm::at_once(spec).await?;
    swarm.gateway.sees("swarm ready", |status| status.swarm_ready).await?;
    swarm.gateway.is_ready().await?;
    Ok(swarm)
}

fn gave_the_file_once(hub: &Hub, model: &SharedModel, swarm: &Swarm) -> anyhow::Result<()> {
    let (sent, bytes) = (hub.sent(), model.metainfo.layout().total());
    println!("the hub sent {sent} bytes of a file of {bytes}");
    ensure!(sent >= bytes && sent * 10 <= bytes * 11, "the hub sent {sent} bytes of a file of {bytes}");
    let members = swarm.workers.iter().chain([&swarm.gateway]);
    let fetched = members.filter(|node| node.log().contains(FETCHES)).count();
    assert_eq!(fetched, 1, "so many nodes fetched the whole file");
    Ok(())
}

/// Who of a swarm has the whole file; nobody for the gateway.
fn who_has_all(swarm: &Swarm) -> Option<usize> {
    swarm.workers.iter().position(|worker| worker.log().contains(FETCHES))
}

/// Ends the node that has the whole file, and makes sure that nobody is left with what one worker's shard alone needs;
/// then a worker comes for that shard, and takes from the hub what nobody has. That may be nothing: the last shard of a
/// model whose embedding is its head too can be the head alone, which the first worker has.
async fn a_newcomer_takes_its_part_from_the_hub(
    hub: &Hub,
    model: &SharedModel,
    swarm: &mut Swarm,
) -> anyhow::Result<()> {
    let (shards, whole) = (swarm.workers.len(), who_has_all(swarm));
    let answer = chat(&swarm.gateway, "hello", 16).await?;
    // A worker in the middle: the ends have the embedding both.
    let shard = whole.unwrap_or(shards / 2);
    swarm.workers[shard].kill().await?;
    std::fs::remove_dir_all(swarm.cache(&format!("worker-{shard}")))?;
    if whole.is_none() {
        swarm.gateway.kill().await?;
        std::fs::remove_dir_all(swarm.cache("gateway"))?;
    }
    let (sent, entry) = (hub.sent(), swarm.rendezvous.quic_address()?);
    let place = swarm.add_worker("newcomer", &shard.to_string(), &entry).await?;
    if whole.is_none() {
        swarm.gateway.restart().await?;
    }
    swarm.gateway.sees("swarm ready", |status| status.swarm_ready).await?;
    swarm.gateway.is_ready().await?;
    assert_eq!(chat(&swarm.gateway, "hello", 16).await?, answer);

    let newcomer = &swarm.workers[place];
    let (wanted, alone) = wanted_of(model, shards, shard)?;
    let (sent, came) = (hub.sent() - sent, counted(newcomer, FROM_HUB).await?);
    let (least, pieces) = (model.bytes(&alone), model.bytes(&wanted));
    let most = pieces + 2 * u64::from(model.metainfo.layout().piece_length());
    println!(
        "shard {shard}: the hub sent {sent} bytes, {came} came, {pieces} are its pieces, {least} its alone"
    );
    ensure!(sent >= least && sent <= most, "the hub sent {sent} bytes, not {least} to {most}");
    ensure!((came > 0) == (sent > 0), "the hub sent {sent} bytes, and {came} came");
    ensure!(
        newcomer.log().contains(&"a".repeat(40)),
        "which commit it is, is not in the log:\n{}",
        newcomer.log()
    );
    swarm.workers[place].kill().await?;
    let kept = model.kept(&swarm.cache("newcomer"))?;
    ensure!(kept == wanted, "{} pieces are kept", kept.count());
    Ok(())
}

/// The pieces that a shard needs, and those of them that no other shard needs.
fn wanted_of(model: &SharedModel, shards: usize, shard: usize) -> anyhow::Result<(PieceSet, PieceSet)> {
    let total = u32::try_from(shards)?;
    let of = |shard: u32| model.wanted(total, ShardRange::one(ShardId(shard)));
    let shard = u32::try_from(shard)?;
    let wanted = of(shard)?;
    let mut alone = wanted.clone();
    for other in (0..total).filter(|other| *other != shard) {
        alone = alone.without(&of(other)?);
    }
    Ok((wanted, alone))
}

async fn answers_equal_the_reference(gateway: &Process) -> anyhow::Result<()> {
    let oracle = oracle()?;
    for case in oracle["f32"]["cases"].as_array().context("the oracle has cases")?.iter().take(2) {
        let prompt = Input::PromptTokens(wire::TokenIds { ids: ids(&case["prompt_tokens"]) });
        let got: Vec<u32> = generate(gateway, prompt, 48).await?.iter().map(|token| token.id).collect();
        assert_eq!(got, expected_tokens(case), "case {}", case["name"]);
    }
    Ok(())
}
