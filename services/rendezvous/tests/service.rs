//! The service on free ports of this machine.

// What fails here fails a test.
#![allow(clippy::unwrap_used)]

#[cfg(unix)]
use std::{fs, net::SocketAddr, path::Path, process::Stdio};
use std::{io, time::Duration};

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

    let answer = metrics(TcpStream::connect(grpc).await.unwrap()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("llama_swarm_dials_failed"), "{answer}");

    stop.send(()).unwrap();
    timeout(Duration::from_secs(10), running).await.expect("it ends").unwrap().unwrap();
}

#[test]
fn what_keeps_it_from_starting_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let identity = folder.path().join("identity");
    std::fs::write(&identity, "no key").unwrap();
    let mut rendezvous = std::process::Command::new(env!("CARGO_BIN_EXE_rendezvous"));
    rendezvous.args(["--grpc-listen", "127.0.0.1:0", "--identity"]).arg(&identity).env("RUST_BACKTRACE", "1");
    let output = rendezvous.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.starts_with("error: identity file"), "{told}");
}

/// Asks for the counters.
async fn metrics(mut http: TcpStream) -> io::Result<String> {
    http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    http.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Where a rendezvous listens that was started with this address file.
#[cfg(unix)]
async fn grpc_address(file: &Path) -> SocketAddr {
    let mut poll = tokio::time::interval(Duration::from_millis(10));
    loop {
        poll.tick().await;
        if let Some(addresses) = swarm_process::address_file::Addresses::read(file).unwrap() {
            return addresses.grpc;
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn connections_that_take_all_file_descriptors_do_not_end_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let [identity, addresses, log] =
        ["identity", "addresses.json", "log"].map(|name| folder.path().join(name));
    let mut process = tokio::process::Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_rendezvous")])
        .args([
            "--listen",
            "/ip4/127.0.0.1/udp/0/quic-v1",
            "--grpc-listen",
            "127.0.0.1:0",
            "--total-shards",
            "1",
        ])
        .arg("--identity")
        .arg(identity)
        .arg("--address-file")
        .arg(&addresses)
        .stderr(Stdio::from(fs::File::create(&log).unwrap()))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let address = timeout(Duration::from_secs(20), grpc_address(&addresses)).await.expect("it starts");
    let mut silent = vec![];
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let asked = metrics(TcpStream::connect(address).await.unwrap());
    let answer = timeout(Duration::from_secs(20), asked).await.expect("it has its turn").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("a connection could not be accepted"), "there were too few connections: {log}");
    assert_eq!(process.try_wait().unwrap(), None, "it goes on");
}
