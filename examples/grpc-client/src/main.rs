//! Asks a gateway by gRPC and prints the answer as it comes:
//!
//! ```sh
//! cargo run --release -p grpc-client -- http://127.0.0.1:50050 "Why is the sky blue?"
//! ```
//!
//! `swarm-proto` brings the generated client and messages; what each field means is in
//! `proto/swarm/v1/inference.proto`.

use std::{
    error::Error,
    io::{Write, stdout},
};

use swarm_proto::wire::{
    Chat, ChatMessage, GenerateRequest, SamplingParams, generate_request::Input, generate_response::Event,
    inference_service_client::InferenceServiceClient,
};

use tonic::{Request, Status, transport::Endpoint};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(gateway), Some(question)) = (arguments.next(), arguments.next()) else {
        return Err("usage: grpc-client http://HOST:PORT QUESTION".into());
    };
    let channel = Endpoint::from_shared(gateway)?.connect().await?;
    let key = std::env::var("LLAMA_SWARM_API_KEY").ok();
    // Shows the key with every call, where the gateway asks for one.
    let mut client = InferenceServiceClient::with_interceptor(channel, move |mut call: Request<()>| {
        if let Some(key) = &key {
            let bearer =
                format!("Bearer {key}").parse().map_err(|_| Status::invalid_argument("no such key"))?;
            call.metadata_mut().insert("authorization", bearer);
        }
        Ok(call)
    });
    let mut events = client.generate(ask(question)).await?.into_inner();
    // Each event is a piece of text with its tokens; the last says why the answer ended.
    while let Some(response) = events.message().await? {
        match response.event {
            Some(Event::Chunk(chunk)) => {
                print!("{}", chunk.text);
                stdout().flush()?;
            }
            Some(Event::Finished(end)) => {
                println!("\n[{}, {} tokens]", end.finish_reason, end.completion_tokens)
            }
            None => {}
        }
    }
    Ok(())
}

/// One question to the model, in its own chat template. The same seed gives the same answer.
fn ask(question: String) -> GenerateRequest {
    let message = ChatMessage { role: "user".into(), content: question };
    GenerateRequest {
        input: Some(Input::Chat(Chat { messages: vec![message] })),
        sampling: Some(SamplingParams { temperature: Some(0.7), seed: 7, ..Default::default() }),
        max_tokens: Some(48),
        ..Default::default()
    }
}
