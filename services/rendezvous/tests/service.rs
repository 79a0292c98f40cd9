//! The service on free ports of this machine.

// What fails here fails a test.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use clap::Parser;
use rendezvous::{Config, Rendezvous};
use swarm_proto::wire::{GetStatusRequest, swarm_service_client::SwarmServiceClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

#[tokio::test]
async fn it_tells_its_status_and_counters_and_ends_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let identity = folder.path().join("identity");
    let flags = ["rendezvous", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1,/ip4/127.0.0.1/tcp/0"];
    let more =
        ["--grpc-listen", "127.0.0.1:0", "--total-shards", "3", "--identity", identity.to_str().unwrap()];
    let config = Cli::parse_from(flags.into_iter().chain(more)).config;
    let service = Rendezvous::bind(config).await.unwrap();
    let (id, grpc) = (service.id().clone(), service.grpc_addr());
    assert!(service.addresses().iter().any(|address| address.contains("quic-v1/p2p/")));
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(service.run(async { drop(stopped.await) }));

    let mut client = SwarmServiceClient::connect(format!("http://{grpc}")).await.unwrap();
    let status = client.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.node, status.total_shards), (id.to_string(), 3));

    let mut http = TcpStream::connect(grpc).await.unwrap();
    http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("llama_swarm_dials_failed"), "{answer}");

    stop.send(()).unwrap();
    timeout(Duration::from_secs(10), running).await.expect("it ends").unwrap().unwrap();
}
