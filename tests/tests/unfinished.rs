//! Messages that are never whole: a peer that sends many makes a worker hold little, and nobody else notices.
#![cfg(target_os = "linux")]

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use anyhow::Context as _;
use futures::{StreamExt, stream::FuturesUnordered};
use http_body::{Body as _, Frame};
use prost::Message;
use swarm_net::{Identity, MemberConfig, NetConfig, Role, SwarmNet};
use swarm_proto::{CollectSession, OpenSession, wire};
use swarm_tests::{BOUND, Process, Swarm, SwarmSpec, chat, tiny_model};
use swarm_types::{Attempt, Cut, Hop, Precision, Replica, ReplicaState, SamplingParams, ShardRange};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Bytes, Service, http},
    transport::Channel,
};

/// Calls of each kind.
const CALLS: usize = 50;
/// The largest there may be.
const STEP: usize = 16 << 20;
const WISH: usize = 2 << 20;
/// What a worker may grow by, with the memory of those it serves at the side.
const GROWTH: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_never_whole_takes_little_memory_and_ends() -> anyhow::Result<()> {
    let model = tiny_model(2)?;
    let swarm = Swarm::ready(SwarmSpec { total_shards: 1, ..SwarmSpec::new(model.path()) }).await?;
    let (gateway, worker) = (&swarm.gateway, &swarm.workers[0]);
    let expected = chat(gateway, "hello", 12).await?;
    let (peer, replica) = peer(&swarm).await?;
    let channel = peer.channel(&replica.worker).await?;

    let before = memory(worker, "VmRSS")?;
    let zeros = Bytes::from(vec![0; STEP]);
    let (mut calls, mut steps, mut collecting) = (FuturesUnordered::new(), vec![], vec![]);
    for number in 0..CALLS {
        let open = opening(number, &peer, &replica);
        let (session, attempt) = (open.session.clone(), open.attempt);
        let sampling = SamplingParams::greedy();
        let collect = CollectSession { session, attempt, sampling, grammar: None, tokens: vec![] };
        collecting.push(shard_client::collect(channel.clone(), collect).await?);
        calls.push(call(channel.clone(), "Collect", vec![head(WISH).into(), zeros.slice(..WISH - 1)]));
        let open = wire::forward_request::Message::Open(open.into());
        let open = wire::ForwardRequest { message: Some(open) }.encode_to_vec();
        let opened = [head(open.len()), open].concat().into();
        let step = vec![opened, head(STEP).into(), zeros.slice(1..)];
        steps.push(call(channel.clone(), "Forward", step));
    }
    // Behind the wishes, of which some are read at the same time.
    calls.extend(steps);
    let others = async {
        for _ in 0..20 {
            anyhow::ensure!(chat(gateway, "hello", 12).await? == expected, "nobody else notices");
        }
        Ok(())
    };
    let all_end = async {
        let mut late = 0;
        while let Some(status) = calls.next().await {
            late += usize::from(status?.code() == Code::DeadlineExceeded);
            if late == 2 {
                break;
            }
        }
        anyhow::Ok(late)
    };
    let (others, late) = tokio::time::timeout(BOUND, async { tokio::join!(others, all_end) }).await?;
    others?;
    assert_eq!(late?, 2, "they are not waited for without end");
    let grown = memory(worker, "VmHWM")?.saturating_sub(before);
    eprintln!("{CALLS} unfinished steps and as many wishes: {} MiB at most", grown >> 20);
    assert!(grown < GROWTH, "{grown} bytes");
    Ok(())
}

/// A member of the swarm that plays a gateway, and the worker as it sees it.
async fn peer(swarm: &Swarm) -> anyhow::Result<(SwarmNet, Replica)> {
    let secret_file = Some(swarm.secret().to_owned());
    let config = NetConfig {
        members: MemberConfig { secret_file, ..MemberConfig::default() },
        listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()],
        rendezvous: vec![swarm.rendezvous.quic_address()?],
        total_shards: 1,
        ..NetConfig::default()
    };
    let (net, _) = SwarmNet::bind(config, Role::Gateway, Identity::ephemeral()).await?;
    let mut status = net.status();
    let loaded = |replica: &Replica| replica.state == ReplicaState::Loaded;
    let seen = status.wait_for(|status| status.shards[0].replicas.iter().any(loaded));
    let seen = tokio::time::timeout(BOUND, seen).await??;
    let replica = seen.shards[0].replicas.iter().find(|replica| loaded(replica)).cloned();
    drop(seen);
    Ok((net, replica.context("it was seen")?))
}

fn opening(number: usize, peer: &SwarmNet, replica: &Replica) -> OpenSession {
    OpenSession {
        session: format!("00000000-0000-4000-8000-{number:012}").parse().expect("a UUID"),
        attempt: Attempt::FIRST,
        gateway: peer.id().clone(),
        model_digest: replica.model.digest,
        precision: Precision::default(),
        cut: Cut::from_ends(vec![replica.capabilities.layers.end()]).expect("layers"),
        hop: Hop { worker: replica.worker.clone(), shards: ShardRange::new(0, 1).expect("valid") },
        below: vec![],
        prompt_tokens: 2,
        max_positions: 16,
    }
}

/// What a message of this size begins with.
fn head(size: usize) -> Vec<u8> {
    let size = u32::try_from(size).expect("no message is so large").to_be_bytes();
    [&[0][..], &size].concat()
}

/// How a call ends whose body never does.
async fn call(mut channel: Channel, method: &str, pieces: Vec<Bytes>) -> anyhow::Result<Status> {
    let request = http::Request::post(format!("http://peer.invalid/swarm.v1.ShardService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Endless(pieces.into_iter())))?;
    poll_fn(|cx| channel.poll_ready(cx)).await?;
    let (head, mut body) = channel.call(request).await?.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return Ok(status);
    }
    // A stream tells its end behind its messages.
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_trailers() {
            Ok(trailers) => return Status::from_header_map(&trailers).context("trailers tell the status"),
            Err(_) => continue,
        }
    }
    anyhow::bail!("the call ended without a status")
}

/// Some pieces, and nothing after them.
struct Endless(std::vec::IntoIter<Bytes>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.0.next() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None => Poll::Pending,
        }
    }
}

/// Bytes that a process has in memory, or had at most (`man 5 proc_pid_status`).
fn memory(process: &Process, line: &str) -> anyhow::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let kibibytes = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':')?.trim().strip_suffix(" kB"));
    Ok(kibibytes.context("the system tells it")?.trim().parse::<usize>()? << 10)
}
