//! Measures what traces cost: two swarms of the same kind, one of which sends the traces of all requests to this
//! process. They decode in turns, so that whatever else the machine does hits both.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    codegen::{Body, BoxFuture, Service, StdError, http},
    server::{Grpc, NamedService, UnaryService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use super::{
    Config,
    figures::{decode_rate, median},
    load::Load,
    table::{number, table},
};
use crate::{
    node::{self, Channel},
    up::{End, with_swarm},
};

/// Decoding is measured after a prompt so short that it does not count.
const SHORT_PROMPT: u32 = 16;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    kind: &'static str,
    version: &'static str,
    max_tokens: u32,
    rounds: u32,
    batches_received: u64,
    results: Vec<Line>,
}

/// At one number of requests at once. Rates are medians of the rounds, all requests together.
#[derive(Debug, Serialize)]
struct Line {
    requests: usize,
    decode_tokens_per_second_without: Option<f64>,
    decode_tokens_per_second_with: Option<f64>,
    /// Median of the rounds' ratios, with traces to without.
    ratio: Option<f64>,
    /// Of the rounds.
    lowest_ratio: Option<f64>,
    /// Of the rounds.
    highest_ratio: Option<f64>,
}

/// Starts both swarms, measures, ends them.
///
/// # Errors
/// When a swarm does not come up or refuses a request, or no traces come.
pub(crate) async fn measure(config: &Config) -> Result<Report> {
    let sink = Sink::default();
    let endpoint = sink.serve().await?;
    let off = config.swarm.beside("without", vec![("OTEL_SDK_DISABLED", "true".into())]);
    let on = config.swarm.beside(
        "with",
        vec![
            ("OTEL_SDK_DISABLED", "false".into()),
            ("OTEL_TRACES_EXPORTER", "otlp".into()),
            ("OTEL_TRACES_SAMPLER", "always_on".into()),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint),
        ],
    );
    let mut results = vec![];
    let end = with_swarm(off, async |without| {
        let without = node::connect(&without.gateway()?.grpc.to_string()).await?;
        let end = with_swarm(on, async |with| {
            let with = node::connect(&with.gateway()?.grpc.to_string()).await?;
            results = Pair { without, with, config }.lines().await?;
            Ok(())
        });
        match end.await? {
            End::Done => Ok(()),
            End::Interrupted => bail!("interrupted"),
        }
    });
    if matches!(end.await?, End::Interrupted) {
        bail!("interrupted");
    }
    let batches_received = sink.batches.load(Ordering::Relaxed);
    ensure!(batches_received > 0, "no traces came, so nothing was compared");
    Ok(Report {
        kind: "tracing overhead",
        version: env!("CARGO_PKG_VERSION"),
        max_tokens: config.max_tokens,
        rounds: config.rounds,
        batches_received,
        results,
    })
}

/// The gateways of both swarms.
struct Pair<'a> {
    without: Channel,
    with: Channel,
    config: &'a Config,
}

impl Pair<'_> {
    async fn lines(&self) -> Result<Vec<Line>> {
        for channel in [&self.without, &self.with] {
            self.decode(channel, 1, 0).await?;
        }
        let mut lines = vec![];
        for requests in self.config.concurrency.iter().copied() {
            lines.push(self.line(requests).await?);
        }
        Ok(lines)
    }

    async fn line(&self, requests: usize) -> Result<Line> {
        let (mut without, mut with, mut ratios) = (vec![], vec![], vec![]);
        for round in 1..=self.config.rounds {
            // Who goes first changes, so that a drift favours nobody.
            let (off, on) = match round % 2 {
                0 => {
                    let on = self.decode(&self.with, requests, round).await?;
                    (self.decode(&self.without, requests, round).await?, on)
                }
                _ => {
                    let off = self.decode(&self.without, requests, round).await?;
                    (off, self.decode(&self.with, requests, round).await?)
                }
            };
            without.extend(off);
            with.extend(on);
            ratios.extend(off.zip(on).map(|(off, on)| on / off));
        }
        Ok(Line {
            requests,
            decode_tokens_per_second_without: median(&without),
            decode_tokens_per_second_with: median(&with),
            ratio: median(&ratios),
            lowest_ratio: ratios.iter().copied().min_by(f64::total_cmp),
            highest_ratio: ratios.iter().copied().max_by(f64::total_cmp),
        })
    }

    /// Both swarms get the same prompts in a round.
    async fn decode(&self, channel: &Channel, requests: usize, round: u32) -> Result<Option<f64>> {
        let load = Load {
            requests,
            prompt_tokens: SHORT_PROMPT,
            max_tokens: self.config.max_tokens,
            seed: round.into(),
            timeout: Duration::from_secs(self.config.timeout),
        };
        let answers = load.run(channel).await?;
        Ok(decode_rate(&answers.into_iter().map(|answer| answer.timeline).collect::<Vec<_>>()))
    }
}

/// Takes traces and forgets them.
#[derive(Clone, Default)]
struct Sink {
    batches: Arc<AtomicU64>,
}

impl Sink {
    /// Serves until the process ends; gives the endpoint.
    async fn serve(&self) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let server = Server::builder().add_service(self.clone());
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Ok(endpoint)
    }
}

impl NamedService for Sink {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl UnaryService<()> for Sink {
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.batches.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Response::new(())))
    }
}

/// As generated code does it, but for messages of which nothing is read.
impl<B> Service<http::Request<B>> for Sink
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let sink = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::<(), ()>::default()).unary(sink, request).await) })
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let heads =
            ["requests", "decode tok/s without", "with traces", "ratio (median)", "lowest", "highest"];
        let row = |line: &Line| {
            let rates = [line.decode_tokens_per_second_without, line.decode_tokens_per_second_with];
            let ratios = [line.ratio, line.lowest_ratio, line.highest_ratio];
            let ratio = |ratio: Option<f64>| ratio.map_or("–".into(), |ratio| format!("{ratio:.3}"));
            let cells = rates.map(number).into_iter().chain(ratios.map(ratio));
            [line.requests.to_string()].into_iter().chain(cells).collect()
        };
        let rows: Vec<_> = self.results.iter().map(row).collect();
        writeln!(
            f,
            "two swarms in turns, {} rounds of {} tokens each; {} batches of spans received",
            self.rounds, self.max_tokens, self.batches_received
        )?;
        f.write_str(&table(&heads, &rows))
    }
}
