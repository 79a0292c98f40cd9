//! An answer over gRPC, token by token, with the bits of its log-probabilities.

use swarm_proto::wire::{
    GenerateRequest, GenerateResponse, SamplingParams, generate_request::Input, generate_response::Event,
    inference_service_client::InferenceServiceClient,
};
use tonic::Streaming;

use crate::Process;

/// A token and the bits of its log-probability.
pub type Scored = (u32, Option<u32>);

/// An answer under way.
pub struct Answer(Streaming<GenerateResponse>);

impl Answer {
    /// Asks for so many tokens, each of which depends on all before it.
    ///
    /// # Errors
    /// When the gateway refuses.
    pub async fn ask(gateway: &Process, tokens: u32) -> anyhow::Result<Self> {
        let sampling = SamplingParams {
            temperature: Some(1.0),
            seed: 7,
            frequency_penalty: Some(0.2),
            top_logprobs: Some(0),
            ..SamplingParams::default()
        };
        let request = GenerateRequest {
            input: Some(Input::Prompt("hello".into())),
            sampling: Some(sampling),
            max_tokens: Some(tokens),
            ignore_eos: true,
            ..GenerateRequest::default()
        };
        let mut client = InferenceServiceClient::connect(gateway.grpc_url()).await?;
        Ok(Self(client.generate(request).await?.into_inner()))
    }

    /// The next tokens; none at the end.
    ///
    /// # Errors
    /// When the answer breaks off.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<Scored>>> {
        let Some(Event::Chunk(chunk)) = self.0.message().await?.and_then(|response| response.event) else {
            return Ok(None);
        };
        Ok(Some(chunk.tokens.into_iter().map(|token| (token.id, token.logprob.map(f32::to_bits))).collect()))
    }

    /// All tokens that are still to come.
    ///
    /// # Errors
    /// When the answer breaks off.
    pub async fn rest(mut self) -> anyhow::Result<Vec<Scored>> {
        let mut tokens = vec![];
        while let Some(more) = self.next().await? {
            tokens.extend(more);
        }
        Ok(tokens)
    }
}
