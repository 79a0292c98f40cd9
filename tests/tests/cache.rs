//! Models that are kept on a machine, and nodes that wait for one.

use std::{path::Path, process::Output};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use swarm_proto::wire::{ListModelsRequest, inference_service_client::InferenceServiceClient};
use swarm_tests::{
    SharedModel, Swarm, SwarmSpec, chat, counted, llama_swarm, model_of_many_pieces, tiny_model,
};
use tokio::process::Command;

const RECEIVED: &str = "llama_swarm_pieces_received_bytes_total";

/// Runs a command on a cache. No other cache of this machine is looked at.
async fn on_cache(cache: &Path, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(llama_swarm());
    command.args(args).arg("--cache-dir").arg(cache).env("HF_HOME", cache.join("hf"));
    Ok(command.output().await?)
}

async fn listed(cache: &Path) -> anyhow::Result<Vec<Value>> {
    let output = on_cache(cache, &["list", "--json"]).await?;
    ensure!(output.status.success(), "{}", text(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_pulled_listed_kept_while_it_is_used_and_removed() -> anyhow::Result<()> {
    let file = model_of_many_pieces()?;
    let model = SharedModel::of(file.path()).await?;
    let (info_hash, total) = (model.metainfo.info_hash().to_string(), model.metainfo.layout().total());
    let spec = SwarmSpec { total_shards: 1, ..SwarmSpec::fetching(model.path().to_owned()) };
    let mut swarm = Swarm::without_workers(spec).await?;
    let pulled = swarm.pull("worker", &format!("swarm:{info_hash}")).await?;
    ensure!(pulled.status.success(), "{}", text(&pulled.stderr));
    let printed = text(&pulled.stdout);
    let path = printed.lines().find_map(|line| line.strip_prefix("path ")).context(printed.clone())?.trim();
    ensure!(printed.contains(&info_hash) && printed.contains(&total.to_string()), "{printed}");
    ensure!(std::fs::read(path)? == std::fs::read(model.path())?, "{path} is not the file");

    let cache = swarm.cache("worker");
    let list = listed(&cache).await?;
    let pieces = model.metainfo.layout().pieces();
    for (field, value) in [
        ("model", json!(format!("swarm:{info_hash}"))),
        ("info_hash", json!(info_hash)),
        ("path", json!(path)),
        ("bytes", json!(total)),
        ("pieces_here", json!(pieces)),
        ("pieces", json!(pieces)),
        ("in_use", json!(false)),
    ] {
        assert_eq!(list[0][field], value, "{field} in {list:?}");
    }
    ensure!(list.len() == 1 && list[0]["bytes_on_disk"].as_u64() >= Some(total), "{list:?}");

    let entry = swarm.rendezvous.quic_address()?;
    swarm.add_worker("worker", "0", &entry).await?;
    swarm.gateway.is_ready().await?;
    assert_eq!(counted(&swarm.workers[0], RECEIVED).await?, 0, "all was here");
    chat(&swarm.gateway, "hello", 4).await?;
    let refused = on_cache(&cache, &["rm", &info_hash[..8]]).await?;
    assert_eq!(refused.status.code(), Some(1));
    ensure!(text(&refused.stderr).contains("a process uses"), "{}", text(&refused.stderr));
    ensure!(listed(&cache).await?[0]["in_use"] == true);
    let table = on_cache(&cache, &["list"]).await?;
    println!("{}", text(&table.stdout));
    ensure!(text(&table.stdout).contains("in use"), "{}", text(&table.stdout));

    swarm.workers[0].kill().await?;
    let removed = on_cache(&cache, &["rm", &info_hash[..8]]).await?;
    println!("{}", text(&removed.stdout));
    ensure!(removed.status.success() && text(&removed.stdout).contains("freed"), "{}", text(&removed.stderr));
    ensure!(listed(&cache).await?.is_empty() && !Path::new(path).exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_waits_for_its_model_says_so_and_answers_when_somebody_has_it() -> anyhow::Result<()> {
    let file = tiny_model(2)?;
    let mut swarm =
        Swarm::without_workers(SwarmSpec { total_shards: 1, ..SwarmSpec::new("swarm:".into()) }).await?;
    let entry = swarm.rendezvous.quic_address()?;
    swarm.add_worker("worker", "0", &entry).await?;
    let (gateway, http) = (&swarm.gateway, reqwest::Client::new());
    let at = |path: &str| format!("{}{path}", gateway.http_url());
    let on_its_way = "the model's header is still on its way from the swarm";

    let health = http.get(at("/health")).send().await?;
    assert_eq!(health.status(), 503);
    let health: Value = health.json().await?;
    assert_eq!(health["reason"], format!("waiting for the model: {on_its_way}"));
    assert_eq!(http.get(at("/healthz")).send().await?.status(), 200);
    assert_eq!(counted(gateway, "llama_swarm_swarm_ready").await?, 0);
    let question = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4});
    let refused = http.post(at("/v1/chat/completions")).json(&question).send().await?;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    let refused: Value = refused.json().await?;
    ensure!(refused["error"]["message"].as_str().is_some_and(|why| why.contains(on_its_way)), "{refused}");
    let mut client = InferenceServiceClient::connect(gateway.grpc_url()).await?;
    let refused = client.list_models(ListModelsRequest {}).await.expect_err("there is no model");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    ensure!(refused.message().contains(on_its_way), "{refused}");
    // It is a member meanwhile.
    gateway.sees("nobody", |status| status.total_shards == 1).await?;

    swarm.add_seeder_of("seeder", file.path()).await?;
    swarm.gateway.is_ready().await?;
    chat(&swarm.gateway, "hello", 4).await?;
    Ok(())
}
