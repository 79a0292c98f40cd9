//! One worker of a running answer is killed: the one in its place is rebuilt from what the hop above has sent, nobody
//! else computes anything again, and tokens and log-probabilities are those of the undisturbed answer, bit for bit.

use std::path::Path;

use anyhow::{Context, ensure};
use futures::StreamExt;
use gguf::tiny::{TinyModel, cases};
use swarm_proto::wire::{
    self, ReplicaState, generate_request::Input, generate_response::Event,
    inference_service_client::InferenceServiceClient,
};
use swarm_tests::{BOUND, Process, Swarm, SwarmSpec, counted, real_model, replica_state};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

const PROMPT: u32 = 400;
/// Tokens that are there when a worker is killed.
const BEFORE: usize = 8;
/// Rows that were under way when it was, and are computed a second time at most.
const UNDER_WAY: u64 = 2;

/// What is asked of a model.
#[derive(Clone, Copy)]
struct Asked {
    vocabulary: u32,
    /// To be generated: enough that the answer is not at its end when a worker is killed.
    tokens: u32,
}

/// A token and the bits of its log-probability and of those of its alternatives.
type Told = (u32, Option<u32>, Vec<(u32, u32)>);

/// An answer that looks at its history: penalties, a seed, a temperature.
fn request(asked: Asked) -> wire::GenerateRequest {
    let prompt = (0..PROMPT).map(|place| (1000 + place * 37) % asked.vocabulary).collect();
    wire::GenerateRequest {
        input: Some(Input::PromptTokens(wire::TokenIds { ids: prompt })),
        sampling: Some(wire::SamplingParams {
            temperature: Some(0.8),
            seed: 7,
            frequency_penalty: Some(0.3),
            repetition_penalty: Some(1.1),
            top_logprobs: Some(3),
            ..Default::default()
        }),
        max_tokens: Some(asked.tokens),
        ignore_eos: true,
        ..Default::default()
    }
}

/// Asks; the tokens come as they are made.
async fn ask(
    gateway: &Process,
    asked: Asked,
) -> anyhow::Result<(mpsc::Receiver<Told>, JoinHandle<anyhow::Result<()>>)> {
    let mut client = InferenceServiceClient::connect(gateway.grpc_url()).await?;
    let (tell, told) = mpsc::channel(asked.tokens as usize);
    let answer = tokio::spawn(async move {
        let mut events = client.generate(request(asked)).await?.into_inner();
        while let Some(event) = events.next().await {
            let Some(Event::Chunk(chunk)) = event?.event else { continue };
            for token in chunk.tokens {
                let top = token.top.iter().map(|one| (one.token, one.logprob.to_bits())).collect();
                tell.send((token.id, token.logprob.map(f32::to_bits), top)).await?;
            }
        }
        Ok(())
    });
    Ok((told, answer))
}

async fn some(told: &mut mpsc::Receiver<Told>, most: usize) -> anyhow::Result<Vec<Told>> {
    let mut all = vec![];
    while all.len() < most
        && let Some(one) = timeout(BOUND, told.recv()).await.context("no token comes")?
    {
        all.push(one);
    }
    Ok(all)
}

async fn rows(workers: &[Process]) -> anyhow::Result<Vec<u64>> {
    let mut rows = vec![];
    for worker in workers {
        rows.push(counted(worker, "llama_swarm_rows_total").await?);
    }
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_lost_is_computed_again() -> anyhow::Result<()> {
    killed_workers_change_nothing(&real_model().await?, Asked { vocabulary: 40_000, tokens: 40 }).await
}

/// Experts are chosen again as they were, and windows begin where they did.
#[tokio::test(flavor = "multi_thread")]
async fn a_mixture_of_experts_and_a_model_with_windows_go_on_too() -> anyhow::Result<()> {
    for name in ["qwen3moe", "gemma3", "gpt-oss"] {
        let case = cases().into_iter().find(|(case, _)| *case == name).context("there is none")?.1;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("model.gguf");
        TinyModel { layers: 14, context: 4096, ..case }.write(&file)?;
        killed_workers_change_nothing(&file, Asked { vocabulary: 256, tokens: 1000 })
            .await
            .with_context(|| name)?;
    }
    Ok(())
}

async fn killed_workers_change_nothing(model: &Path, asked: Asked) -> anyhow::Result<()> {
    let mut swarm = Swarm::ready(SwarmSpec::new(model.to_owned())).await?;
    let entry = swarm.rendezvous.quic_address()?;
    let undisturbed = {
        let (mut told, answer) = ask(&swarm.gateway, asked).await?;
        let all = some(&mut told, usize::MAX).await?;
        answer.await??;
        all
    };
    ensure!(
        undisturbed.len() == asked.tokens as usize
            && undisturbed.iter().all(|(_, logprob, _)| logprob.is_some())
    );
    // The first has tokens from the gateway, the last samples; the one between has neither.
    for (shard, above) in [(0_usize, None), (4, Some(3)), (7, Some(6))] {
        let before = rows(&swarm.workers).await?;
        let (mut told, answer) = ask(&swarm.gateway, asked).await?;
        let mut all = some(&mut told, BEFORE).await?;
        // It comes after the route was made, so the session goes through the other one.
        let spare = swarm.add_worker(&format!("spare-{shard}"), &shard.to_string(), &entry).await?;
        let id = swarm.workers[spare].peer_id().to_owned();
        let loaded =
            |status: &wire::SwarmStatus| replica_state(status, shard, &id) == Some(ReplicaState::Loaded);
        swarm.gateway.sees("the spare loaded", loaded).await?;
        swarm.workers[shard].kill().await?;
        all.extend(some(&mut told, usize::MAX).await?);
        answer.await??;
        let differs = all.iter().zip(&undisturbed).position(|(one, other)| one != other);
        ensure!(all == undisturbed, "shard {shard}: {} tokens, other ones from {differs:?} on", all.len());

        let mut lost = swarm.workers.swap_remove(shard);
        let after = rows(&swarm.workers).await?;
        let [once, sent] = [u64::from(PROMPT + asked.tokens - 1), u64::from(PROMPT)];
        for (place, (before, after)) in before.iter().zip(&after).enumerate() {
            match place == shard {
                true => ensure!((sent..=once + UNDER_WAY).contains(after), "the spare: {after} rows"),
                false => ensure!(after - before <= once + UNDER_WAY, "hop {place}: {} rows", after - before),
            }
        }
        if let Some(above) = above {
            let replayed = counted(&swarm.workers[above], "llama_swarm_rows_replayed_total").await?;
            ensure!(replayed >= sent, "hop {above} has sent {replayed} rows again");
        }
        ensure!(lost.ended().await.is_ok(), "it was killed");
    }
    Ok(())
}
