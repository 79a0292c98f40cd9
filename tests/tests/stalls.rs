//! A worker's engine hangs while the worker answers: its shard is suspect, what it was computing goes on elsewhere with
//! the same tokens, and it is used again when it computes again.
#![cfg(target_os = "linux")]

use std::process::Stdio;

use anyhow::{Context, ensure};
use swarm_proto::wire::{ReplicaState, SwarmStatus};
use swarm_tests::{
    Answer, BOUND, Process, Scored, Swarm, SwarmSpec, counted, needed, python_script, tiny_model,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// Enough that an answer is far from its end when a thread is held.
const TOKENS: u32 = 500;
/// Of the answer, when it is.
const BEFORE: u64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_is_gone_around_and_used_again_when_it_computes() -> anyhow::Result<()> {
    let this = "an_engine_that_hangs_is_gone_around_and_used_again_when_it_computes";
    let Some(mut hand) = needed(this, Hand::able().await)? else { return Ok(()) };
    let model = tiny_model(2)?;
    let mut swarm = Swarm::ready(SwarmSpec { total_shards: 2, ..SwarmSpec::new(model.path()) }).await?;
    let entry = swarm.rendezvous.quic_address()?;
    let spare = swarm.add_worker("spare", "1", &entry).await?;
    let both = |status: &SwarmStatus| {
        let replicas = status.shards.get(1).map_or(&[][..], |shard| &shard.replicas);
        replicas.iter().filter(|replica| replica.state() == ReplicaState::Loaded).count() == 2
    };
    swarm.gateway.sees("both", both).await?;
    let undisturbed = generate(&swarm.gateway).await?;
    ensure!(undisturbed.len() == TOKENS as usize, "{} tokens", undisturbed.len());

    let candidates = [&swarm.workers[1], &swarm.workers[spare]];
    let mut before = [0; 2];
    for (candidate, before) in candidates.into_iter().zip(&mut before) {
        *before = counted(candidate, "llama_swarm_rows_total").await?;
    }
    let disturbed = async {
        let hanging = serving(candidates, before).await?;
        hand.hold(hanging, "engine").await?;
        let is_suspect = |status: &SwarmStatus| {
            let replicas = status.shards.get(1).map_or(&[][..], |shard| &shard.replicas);
            let hangs =
                replicas.iter().find(|replica| replica.worker == hanging.peer_id() && replica.stalled);
            hangs.is_some_and(|replica| replica.state() == ReplicaState::Suspect)
        };
        let after = swarm.gateway.sees("it suspect", is_suspect).await?;
        eprintln!("suspect {after:?} after its engine was held");
        anyhow::Ok(hanging)
    };
    let (answer, hanging) = tokio::try_join!(generate(&swarm.gateway), disturbed)?;
    assert_eq!(answer, undisturbed);
    assert_eq!(counted(hanging, "llama_swarm_engine_stalled").await?, 1);
    assert_eq!(generate(&swarm.gateway).await?, undisturbed, "the other replica alone");

    hand.release().await?;
    swarm.gateway.sees("both again", both).await?;
    assert_eq!(counted(hanging, "llama_swarm_engine_stalled").await?, 0);
    assert_eq!(generate(&swarm.gateway).await?, undisturbed);
    Ok(())
}

/// Which of the two computes the answer, once it has computed some rows more than before.
async fn serving(candidates: [&Process; 2], before: [u64; 2]) -> anyhow::Result<&Process> {
    let found = async {
        loop {
            for (candidate, before) in candidates.into_iter().zip(before) {
                if counted(candidate, "llama_swarm_rows_total").await? >= before + BEFORE {
                    return anyhow::Ok(candidate);
                }
            }
        }
    };
    timeout(BOUND, found).await.context("nobody computes the answer")?
}

async fn generate(gateway: &Process) -> anyhow::Result<Vec<Scored>> {
    Answer::ask(gateway, TOKENS).await?.rest().await
}

/// Holds a thread of another process.
struct Hand {
    _process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Hand {
    /// One that was seen to hold another process of this user.
    async fn able() -> anyhow::Result<Self> {
        let mut hand = Self::start()?;
        let other = Command::new("sleep").arg("60").kill_on_drop(true).spawn().context("starting sleep")?;
        let pid = other.id().context("it runs")?;
        let held = hand.order(&format!("hold {pid} sleep\n"), "held").await;
        held.context("a thread of another process cannot be held: it needs ptrace, as root has it")?;
        hand.release().await?;
        Ok(hand)
    }

    fn start() -> anyhow::Result<Self> {
        let mut process = Command::new("python3")
            .arg(python_script("hold_thread.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting Python")?;
        let orders = process.stdin.take().context("it reads")?;
        let answers = BufReader::new(process.stdout.take().context("it writes")?).lines();
        Ok(Self { _process: process, orders, answers })
    }

    async fn hold(&mut self, process: &Process, thread: &str) -> anyhow::Result<()> {
        self.order(&format!("hold {} {thread}\n", process.pid()), "held").await
    }

    async fn release(&mut self) -> anyhow::Result<()> {
        self.order("release\n", "released").await
    }

    async fn order(&mut self, order: &str, answer: &str) -> anyhow::Result<()> {
        self.orders.write_all(order.as_bytes()).await?;
        let said = timeout(BOUND, self.answers.next_line()).await.context("no answer")??;
        ensure!(said.as_deref() == Some(answer), "{order:?}: {said:?}");
        Ok(())
    }
}
