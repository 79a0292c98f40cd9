//! What comes in wrong is refused by name, and nobody else notices.

use std::process::Stdio;

use serde_json::{Value, json};
use swarm_tests::{Swarm, SwarmSpec, ask, chat, llama_swarm, tiny_model};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

/// Path, body, expected status, and what the error must name.
fn refusals() -> Vec<(&'static str, Value, u16, &'static str)> {
    let user = json!([{"role": "user", "content": "hi"}]);
    let chat = |extra: Value| {
        let mut body = json!({"messages": user});
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        body
    };
    vec![
        ("/v1/chat/completions", chat(json!({"temperature": 3})), 400, "temperature"),
        ("/v1/chat/completions", chat(json!({"top_p": -1})), 400, "top_p"),
        ("/v1/chat/completions", chat(json!({"n": 1000})), 400, "n"),
        ("/v1/chat/completions", chat(json!({"max_tokens": -2})), 400, "max_tokens"),
        ("/v1/chat/completions", chat(json!({"stop": ["a", 1]})), 400, "stop"),
        ("/v1/chat/completions", chat(json!({"logit_bias": {"x": 1}})), 400, "logit_bias"),
        ("/v1/chat/completions", chat(json!({"tools": [{}]})), 400, "tools[0].function"),
        ("/v1/chat/completions", chat(json!({"response_format": {"type": "xml"}})), 400, "response_format"),
        ("/v1/chat/completions", chat(json!({"model": "other"})), 404, "model"),
        ("/v1/chat/completions", json!({"messages": []}), 400, "messages"),
        ("/v1/chat/completions", json!({"messages": [{"role": "robot", "content": "hi"}]}), 400, "messages"),
        ("/v1/completions", json!({"prompt": "word ".repeat(5000)}), 400, "context"),
        ("/v1/completions", json!({"prompt": [99_999_999]}), 400, "prompt"),
        ("/v1/completions", json!({}), 400, "prompt"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused_by_name_and_others_go_on() -> anyhow::Result<()> {
    let model = tiny_model(8)?;
    let swarm = Swarm::ready(SwarmSpec::new(model.path())).await?;
    let before = chat(&swarm.gateway, "hello", 12).await?;
    for (path, body, expected, named) in refusals() {
        let (status, answer) = ask(&swarm.gateway, path, &body).await?;
        assert_eq!(status, expected, "{body}: {answer}");
        let error = &answer["error"];
        assert!(error["type"].is_string() && error["message"].is_string(), "{answer}");
        assert!(error.to_string().contains(named), "{named} is not named: {answer}");
    }
    let raw = reqwest::Client::new();
    let url = format!("{}/v1/chat/completions", swarm.gateway.http_url());
    // One byte too many: of a larger body the client may still be sending the rest when the connection is closed.
    let too_large = vec![b' '; (4 << 20) + 1];
    for (body, expected) in [(b"{\"messages\":".to_vec(), 400), (too_large, 413)] {
        let post = raw.post(&url).header("content-type", "application/json").body(body);
        let answer = post.send().await?;
        assert_eq!(answer.status().as_u16(), expected);
        assert!(answer.json::<Value>().await?["error"]["message"].is_string());
    }
    garbage_on_every_tcp_port(&swarm).await?;
    assert_eq!(chat(&swarm.gateway, "hello", 12).await?, before);
    for node in swarm.nodes() {
        assert!(node.status().await?.swarm_ready);
    }
    Ok(())
}

async fn garbage_on_every_tcp_port(swarm: &Swarm) -> anyhow::Result<()> {
    let ports = swarm.nodes().map(swarm_tests::Process::grpc_url).chain([swarm.gateway.http_url()]);
    for url in ports {
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
        let garbage: Vec<u8> = (0..65_536u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        // The other side may close in the middle of it, which is its right.
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_model_file_ends_the_worker_with_an_error_that_says_so() -> anyhow::Result<()> {
    let model = tiny_model(8)?;
    let whole = std::fs::read(model.path())?;
    let dir = tempfile::tempdir()?;
    let cases = [
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("empty", vec![]),
        ("text", b"this is not a model".to_vec()),
        ("counts", [b"GGUF\x03\0\0\0".as_slice(), &[0xff; 16]].concat()),
    ];
    for (name, bytes) in cases {
        let path = dir.path().join(format!("{name}.gguf"));
        std::fs::write(&path, bytes)?;
        let output = Command::new(llama_swarm())
            .args(["worker", "--shard-id", "0", "--grpc-listen", "127.0.0.1:0"])
            .args(["--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--model"])
            .arg(&path)
            .arg("--identity")
            .arg(dir.path().join("key"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(swarm_tests::BOUND, output).await??;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name}: {said}");
        assert!(said.contains(&format!("{name}.gguf")) && !said.contains("panicked"), "{name}: {said}");
    }
    Ok(())
}
