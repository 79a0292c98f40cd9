//! What a worker in the middle of a route holds of a prompt: none of its tokens, anywhere in its memory.
#![cfg(target_os = "linux")]

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
};

use anyhow::Context;
use swarm_proto::wire::{
    GenerateRequest, GenerateResponse, SamplingParams, TokenIds, generate_request::Input,
    generate_response::Event, inference_service_client::InferenceServiceClient,
};
use swarm_tests::{Process, Swarm, SwarmSpec, tiny_model};
use tonic::Streaming;

/// Far from its end when the memories are looked at.
const TOKENS: u32 = 400;
/// Of memory that was freed, an allocator writes over the beginning.
const SPOILED: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_in_the_middle_never_has_a_prompts_tokens() -> anyhow::Result<()> {
    let model = tiny_model(3)?;
    let swarm = Swarm::ready(SwarmSpec { total_shards: 3, ..SwarmSpec::new(model.path()) }).await?;
    // No two prompts have the same tokens, and none of these lists is anywhere by chance.
    let plain: Vec<u32> = (0..24).map(|place| 130 + place * 37 % 120).collect();
    let penalised: Vec<u32> = (0..24).map(|place| 131 + place * 41 % 119).collect();
    let penalty = SamplingParams { frequency_penalty: Some(0.2), seed: 7, ..SamplingParams::default() };
    let (first, middle, last) = (&swarm.workers[0], &swarm.workers[1], &swarm.workers[2]);

    let mut running = generate(&swarm.gateway, &plain, SamplingParams::default()).await?;
    running.message().await?.context("it has begun")?;
    let mut scored = generate(&swarm.gateway, &penalised, penalty).await?;
    scored.message().await?.context("it has begun")?;
    let mut found = vec![];
    for worker in [first, middle, last] {
        found.push([hits(worker, &plain)?, hits(worker, &penalised)?]);
    }
    eprintln!("the prompts' tokens in the memories along the route: {found:?}");
    assert!(found[0].iter().all(|hits| *hits > 0), "the search finds what is there: {found:?}");
    assert_eq!(found[1], [0, 0], "the middle has activations alone");
    assert_eq!(found[2][0], 0, "the last needs no prompt to sample from its logits");
    assert!(found[2][1] > 0, "only penalties look at it: {found:?}");
    for mut stream in [running, scored] {
        anyhow::ensure!(rest(&mut stream).await? > 1, "it was still running");
    }
    Ok(())
}

async fn generate(
    gateway: &Process,
    prompt: &[u32],
    sampling: SamplingParams,
) -> anyhow::Result<Streaming<GenerateResponse>> {
    let request = GenerateRequest {
        input: Some(Input::PromptTokens(TokenIds { ids: prompt.to_vec() })),
        sampling: Some(sampling),
        max_tokens: Some(TOKENS),
        ignore_eos: true,
        ..GenerateRequest::default()
    };
    let mut client = InferenceServiceClient::connect(gateway.grpc_url()).await?;
    Ok(client.generate(request).await?.into_inner())
}

/// How many tokens come until the end.
async fn rest(stream: &mut Streaming<GenerateResponse>) -> anyhow::Result<usize> {
    let mut tokens = 0;
    while let Some(response) = stream.message().await? {
        if let Some(Event::Chunk(chunk)) = response.event {
            tokens += chunk.tokens.len();
        }
    }
    Ok(tokens)
}

/// How often the tokens lie in a process's memory, as numbers or as they are on the wire.
fn hits(process: &Process, tokens: &[u32]) -> anyhow::Result<usize> {
    let tokens = &tokens[SPOILED..];
    let numbers: Vec<u8> = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
    // Each is above 127 and below 16,384: two bytes (https://protobuf.dev/programming-guides/encoding/#varints).
    let wire: Vec<u8> = tokens.iter().flat_map(|id| [(id & 0x7f) as u8 | 0x80, (id >> 7) as u8]).collect();
    let pid = process.pid();
    let maps = BufReader::new(File::open(format!("/proc/{pid}/maps"))?);
    let mut memory = File::open(format!("/proc/{pid}/mem"))?;
    let (mut found, mut read) = (0, 0);
    for line in maps.lines() {
        let line = line?;
        let Some((start, end)) = writable(&line) else { continue };
        let mut bytes = vec![0; (end - start) as usize];
        // What was given back to the system meanwhile cannot be read.
        if memory.seek(SeekFrom::Start(start)).and_then(|_| memory.read_exact(&mut bytes)).is_ok() {
            read += bytes.len();
            found += [&numbers, &wire].map(|wanted| count(&bytes, wanted)).iter().sum::<usize>();
        }
    }
    anyhow::ensure!(read > 1 << 20, "only {read} bytes of the memory were read");
    Ok(found)
}

/// Where a line of `/proc/PID/maps` says that a process keeps what it writes (`man 5 proc_pid_maps`).
fn writable(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(start)?, number(end)?)).filter(|_| rights.starts_with("rw"))
}

fn count(bytes: &[u8], wanted: &[u8]) -> usize {
    let mut places = bytes.iter().enumerate().filter(|(_, byte)| **byte == wanted[0]);
    places.by_ref().filter(|(place, _)| bytes[*place..].starts_with(wanted)).count()
}
