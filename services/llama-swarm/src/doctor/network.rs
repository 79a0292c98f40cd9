//! Whether the swarm's nodes answer.

use std::time::{Duration, SystemTime};

use swarm_types::SwarmStatus;
use tokio::{net::TcpStream, time::timeout};

use super::{finding::Finding, machine::clock_against, reach::ways};
use crate::{
    credentials::{Credentials, KEY_FIX},
    node,
};

/// A gateway answers these questions from memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the rendezvous node can be reached by the name that workers are given.
pub(crate) async fn rendezvous(name: &str) -> Finding {
    let ways = match ways(name) {
        Ok(ways) => ways,
        Err(error) => return Finding::bad(format!("rendezvous: {error}"), "correct --rendezvous"),
    };
    let mut failures = vec![];
    for way in ways {
        match way.knock().await {
            Ok(()) if failures.is_empty() && way.is_quic() => {
                return Finding::good(format!("a node answers QUIC at {name}"));
            }
            Ok(()) => {
                let fix = "works, but QUIC is better: let UDP through to the same port";
                return Finding::warning(format!("a node answers TCP at {name}"), fix);
            }
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    Finding::bad(
        format!("rendezvous {name}: {}", failures.join("; ")),
        "start it there (llama-swarm rendezvous), and let UDP and TCP through to its port",
    )
}

/// Whether a node answers on its gRPC port, as is `expected` or only possible, and how it sees the swarm.
pub(crate) async fn grpc_node(
    address: &str,
    expected: bool,
    credentials: &Credentials,
) -> (Finding, Option<SwarmStatus>) {
    let status = async { node::status(node::connect_with(address, credentials).await?).await };
    let error = match status.await {
        Ok(status) => {
            let found = Finding::good(format!("node {} answers on gRPC at {address}", status.node));
            return (found, Some(status));
        }
        Err(error) => error,
    };
    if error.downcast_ref().map(tonic::Status::code) == Some(tonic::Code::Unauthenticated) {
        return (Finding::bad(format!("the node at {address} asks for a key"), KEY_FIX), None);
    }
    let bare = address.split_once("://").map_or(address, |(_, bare)| bare).trim_end_matches('/');
    let taken = matches!(timeout(ANSWER_TIMEOUT, TcpStream::connect(bare)).await, Ok(Ok(_)));
    let finding = match taken {
        true => Finding::bad(
            format!("{address} is open, but no node of a swarm answers there: {error:#}"),
            "does it speak TLS? then say https:// and --tls-ca. Or another program has the port: end it, or give the node \
             another with --grpc-listen",
        ),
        false if !expected => Finding::warning(
            format!("no node answers on gRPC at {address}, in this container"),
            "name the port of one with --addr, as in --addr gateway:50050",
        ),
        false => Finding::bad(
            format!("no node answers on gRPC at {address}"),
            "start a swarm (llama-swarm up) or a gateway (llama-swarm gateway), or name a node's port with --addr",
        ),
    };
    (finding, None)
}

/// Whether the gateway answers HTTP, as is `expected` or only possible, is ready, and has the same time.
pub(crate) async fn gateway(url: &str, expected: bool, credentials: &Credentials) -> Vec<Finding> {
    let url = url.trim_end_matches('/');
    let client = credentials.http().and_then(|client| Ok(client.timeout(ANSWER_TIMEOUT).build()?));
    let client = match client {
        Ok(client) => client,
        Err(error) => return vec![Finding::bad(format!("{error:#}"), "correct --api-key or --tls-ca")],
    };
    let answer = match client.get(format!("{url}/readyz")).send().await {
        Ok(answer) => answer,
        Err(error) if error.is_builder() => {
            return vec![Finding::bad(
                format!("{url:?} is not a URL"),
                "correct --url, as in http://127.0.0.1:8080",
            )];
        }
        Err(_) if !expected => {
            let fix =
                "no fault of a worker's container; to ask one, name it with --url, as in http://gateway:8080";
            return vec![Finding::warning(format!("no gateway answers at {url}, in this container"), fix)];
        }
        Err(_) => {
            let fix = "start one (llama-swarm gateway, or llama-swarm up), or name it with --url";
            return vec![Finding::bad(format!("no gateway answers at {url}"), fix)];
        }
    };
    let clock = date(&answer).map(clock_against);
    [readiness(url, &answer)].into_iter().chain(clock).collect()
}

fn readiness(url: &str, answer: &reqwest::Response) -> Finding {
    match answer.status().as_u16() {
        200 => Finding::good(format!("the gateway at {url} is ready")),
        503 => Finding::warning(
            format!("the gateway at {url} answers, but is not ready"),
            "it will be when every shard is loaded: see the shards below",
        ),
        status => Finding::bad(
            format!("{url} answers {status} to /readyz, so it is no gateway"),
            "another program has the port: end it, or give the gateway another with --http-listen",
        ),
    }
}

fn date(answer: &reqwest::Response) -> Option<SystemTime> {
    httpdate::parse_http_date(answer.headers().get("date")?.to_str().ok()?).ok()
}
