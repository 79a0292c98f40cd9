//! Plain HTTP calls, as a client makes them.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::{BOUND, Process};

/// Posts JSON to a gateway; gives the status and the answer.
///
/// # Errors
/// When there is no answer, or not JSON.
pub async fn ask(gateway: &Process, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
    let url = format!("{}{path}", gateway.http_url());
    let answer = reqwest::Client::new().post(url).json(body).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

/// The text that the model answers to one user message, greedily.
///
/// # Errors
/// When the gateway refuses, with its answer.
pub async fn chat(gateway: &Process, message: &str, max_tokens: u32) -> anyhow::Result<String> {
    let body = json!({
        "messages": [{"role": "user", "content": message}], "max_tokens": max_tokens, "temperature": 0,
    });
    let (status, answer) = ask(gateway, "/v1/chat/completions", &body).await?;
    anyhow::ensure!(status == 200, "{status}: {answer}");
    let text = answer["choices"][0]["message"]["content"].as_str().context("an answer has text")?;
    Ok(text.to_owned())
}

/// Streams a chat completion; calls `on_event` with each event's JSON until it says `false` or the stream ends.
/// Gives whether the stream ended with `[DONE]`.
///
/// # Errors
/// When the gateway refuses or an event is not JSON.
pub async fn stream_chat(
    gateway: &Process,
    mut body: Value,
    mut on_event: impl FnMut(Value) -> bool,
) -> anyhow::Result<bool> {
    body["stream"] = true.into();
    let url = format!("{}/v1/chat/completions", gateway.http_url());
    let answer = reqwest::Client::new().post(url).json(&body).send().await?;
    anyhow::ensure!(answer.status() == 200, "{}: {}", answer.status(), answer.text().await?);
    let (mut bytes, mut waiting) = (answer.bytes_stream(), Vec::new());
    while let Some(chunk) = bytes.next().await {
        waiting.extend_from_slice(&chunk?);
        while let Some(end) = waiting.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = waiting.drain(..end + 2).collect();
            let Some(data) = event.strip_prefix(b"data: ") else { continue };
            if data.starts_with(b"[DONE]") {
                return Ok(true);
            }
            if !on_event(serde_json::from_slice(data)?) {
                return Ok(false);
            }
        }
    }
    Ok(false)
}

/// The value of a counter of a process; `series` is its name with its labels.
///
/// # Errors
/// When the process does not show it.
pub async fn counted(process: &Process, series: &str) -> anyhow::Result<u64> {
    counted_at(&process.grpc_url(), series).await
}

/// The value of a series at a process' port.
///
/// # Errors
/// When it is not there.
pub async fn counted_at(url: &str, series: &str) -> anyhow::Result<u64> {
    let metrics = reqwest::get(format!("{url}/metrics")).await?.text().await?;
    let metrics = without_cluster(&metrics);
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    value.with_context(|| format!("no {series} in\n{metrics}"))
}

/// The same metrics without the label that all of them have.
fn without_cluster(metrics: &str) -> String {
    const LABEL: &str = "cluster=\"";
    let without = |line: &str| {
        let cut = line.split_once(LABEL).and_then(|(before, rest)| Some((before, rest.split_once('"')?.1)));
        let Some((before, rest)) = cut else { return line.to_owned() };
        match (before.strip_suffix('{'), rest.strip_prefix('}')) {
            (Some(name), Some(value)) => format!("{name}{value}"),
            _ => format!("{before}{}", rest.trim_start_matches(',')),
        }
    };
    metrics.lines().map(|line| without(line) + "\n").collect()
}

/// Waits until a counter of a process has come to so much.
///
/// # Errors
/// When it has not within the bound.
pub async fn counts(process: &Process, series: &str, at_least: u64) -> anyhow::Result<()> {
    let (since, mut poll) = (Instant::now(), tokio::time::interval(Duration::from_millis(50)));
    while counted(process, series).await? < at_least {
        anyhow::ensure!(since.elapsed() < BOUND, "{series} does not come to {at_least}");
        poll.tick().await;
    }
    Ok(())
}
