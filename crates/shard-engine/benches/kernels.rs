//! The innermost loops at the sizes of SmolLM2 135M, on one thread.
//!
//! ```sh
//! cargo bench -p shard-engine --bench kernels -- product/576x576
//! ```

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use gguf::Dtype;
use shard_engine::{
    KvType,
    bench::{Attention, AttentionSize, Matrix, Norm, Rotation, numbers},
};

const HIDDEN: usize = 576;
const FEED_FORWARD: usize = 1536;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD: usize = 64;
const VOCABULARY: usize = 49152;

/// Of one token, of some sessions' tokens, and of chunks of a prompt.
const ROWS: [usize; 4] = [1, 4, 16, 128];

/// Outputs and inputs of the matrices of a layer.
const MATRICES: [(usize, usize); 3] = [(HIDDEN, HIDDEN), (FEED_FORWARD, HIDDEN), (HIDDEN, FEED_FORWARD)];

/// Positions in the cache, and the rows at its end that look at them.
const CONTEXTS: [(usize, usize); 6] = [(64, 1), (512, 1), (1024, 1), (4096, 1), (1024, 64), (4096, 64)];

/// Throughput is in multiplications.
fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("product");
    for ((outputs, inputs), exact) in MATRICES.into_iter().flat_map(|size| [(size, false), (size, true)]) {
        let matrix = Matrix::new(Dtype::Q4_1, outputs, inputs, exact);
        for rows in ROWS {
            let x = numbers(rows * inputs);
            group.throughput(Throughput::Elements((rows * outputs * inputs) as u64));
            let rule = if exact { "exact" } else { "standard" };
            let id = BenchmarkId::new(format!("{rule}/{outputs}x{inputs}"), rows);
            group.bench_function(id, |bencher| bencher.iter(|| matrix.multiply(black_box(&x))));
        }
    }
    group.finish();
}

/// Throughput is in multiplications.
fn attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    for ((positions, rows), kv_type) in
        CONTEXTS.into_iter().flat_map(|context| [KvType::F16, KvType::F32].map(|kv_type| (context, kv_type)))
    {
        let size = AttentionSize { rows, positions, heads: HEADS, kv_heads: KV_HEADS, head: HEAD, kv_type };
        let attention = Attention::new(size);
        group.throughput(Throughput::Elements((2 * rows * positions * HEADS * HEAD) as u64));
        let id = BenchmarkId::new(format!("{kv_type}/{positions}"), rows);
        group.bench_function(id, |bencher| bencher.iter(|| black_box(&attention).run()));
    }
    group.finish();
}

fn rope(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rope");
    let rope = Rotation::new(HEAD);
    for rows in ROWS {
        let (queries, positions) = (numbers(rows * HIDDEN), (0..rows as u32).collect::<Vec<_>>());
        group.throughput(Throughput::Elements((rows * HIDDEN) as u64));
        group.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
            let rotate = |mut queries: Vec<f32>| {
                rope.run(&mut queries, &positions);
                queries
            };
            bencher.iter_batched(|| queries.clone(), rotate, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn norm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("norm");
    let norm = Norm::new(HIDDEN);
    for rows in ROWS {
        let x = numbers(rows * HIDDEN);
        group.throughput(Throughput::Elements((rows * HIDDEN) as u64));
        group.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
            bencher.iter(|| norm.run(black_box(&x)));
        });
    }
    group.finish();
}

/// Norm and product, of the rows that are sampled.
fn head(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    let (norm, matrix) = (Norm::new(HIDDEN), Matrix::new(Dtype::Q8_0, VOCABULARY, HIDDEN, false));
    for rows in [1, 4, 16] {
        let x = numbers(rows * HIDDEN);
        group.throughput(Throughput::Elements((rows * VOCABULARY * HIDDEN) as u64));
        group.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
            bencher.iter(|| matrix.multiply(&norm.run(black_box(&x))));
        });
    }
    group.finish();
}

fn main() {
    // Short: a row of figures for all of them within a minute.
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    products(&mut criterion);
    attention(&mut criterion);
    rope(&mut criterion);
    norm(&mut criterion);
    head(&mut criterion);
    criterion.final_summary();
}
