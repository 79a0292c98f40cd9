//! What another engine said of the real model (`data/oracle.json`), and how a swarm is asked for the same.

use std::path::Path;

use futures::StreamExt;
use serde_json::Value;
use swarm_proto::wire::{self, generate_request::Input, inference_service_client::InferenceServiceClient};

use crate::Process;

/// All that the other engine said.
///
/// # Errors
/// When its file is not there, or is no JSON.
pub fn oracle() -> anyhow::Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/oracle.json");
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// A list of token ids, or of other small numbers.
#[must_use]
pub fn ids(list: &Value) -> Vec<u32> {
    list.as_array().into_iter().flatten().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

/// The tokens of a case's answer as a gateway gives them: without the one that ends it.
#[must_use]
pub fn expected_tokens(case: &Value) -> Vec<u32> {
    let mut tokens = ids(&case["tokens"]);
    if case["stop"] == "eos" {
        tokens.pop();
    }
    tokens
}

/// Greedy tokens and log-probabilities over the gateway's gRPC.
///
/// # Errors
/// When the gateway does not answer.
pub async fn generate(
    gateway: &Process,
    prompt: Input,
    max_tokens: u32,
) -> anyhow::Result<Vec<wire::ChunkToken>> {
    let request = wire::GenerateRequest {
        input: Some(prompt),
        sampling: Some(wire::SamplingParams {
            temperature: Some(0.0),
            top_logprobs: Some(5),
            ..Default::default()
        }),
        max_tokens: Some(max_tokens),
        ..Default::default()
    };
    let mut client = InferenceServiceClient::connect(gateway.grpc_url()).await?;
    let mut events = client.generate(request).await?.into_inner();
    let mut tokens = vec![];
    while let Some(event) = events.next().await {
        if let Some(wire::generate_response::Event::Chunk(chunk)) = event?.event {
            tokens.extend(chunk.tokens);
        }
    }
    Ok(tokens)
}
