//! Messages between nodes, and the swarm's status.

use std::fmt::Debug;

use prost::Message;
use swarm_proto::{CollectSession, FromBelow, FromHop, ToHop, wire};
use swarm_types::{Attempt, HeldTorrent, SamplingParams, SwarmStatus, WantedSource};

/// What is taken goes back onto the wire and is taken again, the same.
pub fn check(bytes: &[u8]) {
    let _ = is_taken(bytes);
}

/// Whether it is a message in order. The first byte says which message the others are.
pub fn is_taken(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    match kind % 8 {
        0 => same_again::<wire::ForwardRequest, _, _>(bytes, ToHop::try_from, Into::into),
        1 => {
            same_again(bytes, <(Attempt, FromHop)>::try_from, |(attempt, message)| message.into_wire(attempt))
        }
        2 => same_again::<wire::ForwardResponse, _, _>(bytes, FromBelow::try_from, Into::into),
        3 => same_again::<wire::CollectRequest, _, _>(bytes, CollectSession::try_from, Into::into),
        4 => same_again::<wire::SamplingParams, _, _>(bytes, SamplingParams::try_from, Into::into),
        5 => same_again(bytes, SwarmStatus::try_from, |status| wire::SwarmStatus::from(&status)),
        6 => same_again::<wire::HeldTorrent, _, _>(bytes, HeldTorrent::try_from, Into::into),
        _ => same_again::<wire::WantedSource, _, _>(bytes, WantedSource::try_from, Into::into),
    }
}

/// Whether it is taken. Then nothing is lost and nothing added on the way back.
fn same_again<Wire, Ours, Refusal>(
    bytes: &[u8],
    take: impl Fn(Wire) -> Result<Ours, Refusal>,
    give: impl Fn(Ours) -> Wire,
) -> bool
where
    Wire: Message + Default + Clone + PartialEq + Debug,
    Refusal: Debug,
{
    let Ok(message) = Wire::decode(bytes) else { return false };
    let Ok(ours) = take(message) else { return false };
    let given = give(ours);
    let again = take(given.clone()).expect("what we send is what we take");
    assert_eq!(give(again), given);
    true
}

/// One of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    use wire::{
        collect_response::Message as Down, forward_request::Message as Up, forward_response::Message as Back,
    };
    let (worker, digest) = ("12D3KooWGzBvZVkz".to_owned(), "07".repeat(32));
    let session_id = "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned();
    let sampling =
        wire::SamplingParams { temperature: Some(0.5), logit_bias: [(7, -1.0)].into(), ..Default::default() };
    let open = open(session_id.clone(), worker.clone(), digest.clone());
    let step = wire::Step {
        kind: wire::StepKind::Prefill.into(),
        samples: 1,
        scores: 1,
        tokens: vec![1, 2],
        timings: vec![wire::HopTiming { queue_us: 1, compute_us: 2, batch_rows: 3 }],
        ..Default::default()
    };
    let step_below = wire::Step { tokens: vec![], rows: 2, activations: vec![0; 16].into(), ..step.clone() };
    let output = output();
    let failed = wire::HopFailed {
        worker: worker.clone(),
        code: 14,
        cause: "hop_failed".into(),
        ..Default::default()
    };
    let kind = wire::grammar::Kind::JsonSchema(r#"{"type": "object"}"#.into());
    let grammar = wire::Grammar { kind: Some(kind) };
    let collect = wire::CollectRequest {
        protocol_version: swarm_types::PROTOCOL_VERSION,
        session_id,
        attempt: 2,
        sampling: Some(sampling.clone()),
        tokens: vec![1, 2, 300],
        grammar: Some(grammar),
    };
    let forward = |message| wire::ForwardRequest { message: Some(message) }.encode_to_vec();
    let back = |message| wire::ForwardResponse { message: Some(message) }.encode_to_vec();
    let messages = [
        (0, forward(Up::Open(open))),
        (0, forward(Up::Step(step))),
        (0, forward(Up::Step(step_below))),
        (0, forward(Up::End(wire::EndSession {}))),
        (1, wire::CollectResponse { attempt: 2, message: Some(Down::Output(output)) }.encode_to_vec()),
        (2, back(Back::Failed(failed))),
        (2, back(Back::Opened(wire::Opened { positions: 2, below: 3, replays: 1 }))),
        (3, collect.encode_to_vec()),
        (4, sampling.encode_to_vec()),
        (5, status(worker, digest.clone()).encode_to_vec()),
        (6, held_torrent(digest).encode_to_vec()),
        (7, wire::WantedSource { source: "hf:owner/repo/tiny.gguf".into(), fetching: true }.encode_to_vec()),
    ];
    messages.into_iter().map(|(kind, message)| [vec![kind], message].concat()).collect()
}

fn open(session_id: String, worker: String, model_digest: String) -> wire::OpenSession {
    wire::OpenSession {
        protocol_version: swarm_types::PROTOCOL_VERSION,
        session_id,
        attempt: 2,
        gateway: worker.clone(),
        model_digest,
        precision: "exact".into(),
        total_shards: 8,
        hops: vec![wire::Hop { worker, first_shard: 0, end_shard: 8 }],
        prompt_tokens: 5,
        max_positions: 100,
        layer_ends: (1..=8).collect(),
    }
}

fn held_torrent(info_hash: String) -> wire::HeldTorrent {
    let source = "hf:owner/repo/tiny.gguf@v1".into();
    wire::HeldTorrent { info_hash, name: "tiny".into(), bytes: 1 << 20, pieces: 4, pieces_held: 3, source }
}

fn output() -> wire::Output {
    let likely = wire::TokenLogprob { token: 7, logprob: -0.5 };
    let sampled = wire::SampledToken { token: 7, logprob: Some(-0.5), top: vec![likely] };
    wire::Output { position: 2, tokens: vec![sampled], ..Default::default() }
}

fn status(worker: String, digest: String) -> wire::SwarmStatus {
    let replica = wire::Replica {
        worker: worker.clone(),
        state: wire::ReplicaState::Loaded.into(),
        loaded_percent: 100,
        transport: "QUIC".into(),
        model: Some(wire::ModelInfo { name: "tiny".into(), digest, precision: "exact".into() }),
        end_layer: 4,
        round_trips_us: [(worker.clone(), 250)].into(),
        fetching: Some(wire::Fetching { peers: 3, bytes_per_second: 41_000_000 }),
        ..Default::default()
    };
    wire::SwarmStatus {
        cluster: "c".into(),
        node: worker,
        admission: "secret".into(),
        shards: vec![wire::ShardStatus { shard_id: 0, replicas: vec![replica] }],
        ..Default::default()
    }
}
