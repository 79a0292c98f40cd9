//! What one step costs on the wire: from the vocabulary to bytes, and back with all checks.
//!
//! ```sh
//! cargo bench -p swarm-proto
//! ```

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use prost::Message;
use swarm_proto::{ToHop, activations_to_bytes, wire};

/// Rows and width of the activations: a token of a small model, a chunk of its prompt, and a chunk of a large one's.
const SIZES: [(usize, usize); 3] = [(1, 576), (128, 576), (256, 4096)];

/// A step between two hops, as it comes from the stream.
fn step(rows: usize, width: usize) -> Bytes {
    let values: Vec<f32> = (0..rows * width).map(|n| (n as f32).sin()).collect();
    let step = wire::Step {
        kind: wire::StepKind::Prefill.into(),
        rows: rows as u32,
        activations: activations_to_bytes(&values),
        ..wire::Step::default()
    };
    let message = Some(wire::forward_request::Message::Step(step));
    wire::ForwardRequest { message }.encode_to_vec().into()
}

fn decode(bytes: Bytes) -> ToHop {
    let request = wire::ForwardRequest::decode(bytes).expect("a message");
    ToHop::try_from(request).expect("a step that is in order")
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("step");
    for (rows, width) in SIZES {
        let (size, bytes) = (format!("{rows}x{width}"), step(rows, width));
        let message = decode(bytes.clone());
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("encode", &size), |bencher| {
            let encode = |message| wire::ForwardRequest::from(message).encode_to_vec();
            bencher.iter_batched(|| message.clone(), encode, BatchSize::LargeInput);
        });
        group.bench_function(BenchmarkId::new("decode", &size), |bencher| {
            bencher.iter_batched(|| bytes.clone(), decode, BatchSize::LargeInput);
        });
    }
    group.finish();
    criterion.final_summary();
}
