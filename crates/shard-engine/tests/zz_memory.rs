mod support;
use candle_core::quantized::GgmlDType;
use gguf::{Dtype, tiny::TinyModel};
use shard_engine::{Engine, EngineConfig};
use swarm_types::Precision;
use crate::support::{Model, PROMPT, Route, params, session, step};
fn rss() -> u64 {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    let l = s.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    l.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
#[test]
fn memory() {
    for (d, g) in [(Dtype::Q4_0, GgmlDType::Q4_0), (Dtype::Q8_0, GgmlDType::Q8_0), (Dtype::Q4K, GgmlDType::Q4K), (Dtype::Q5K, GgmlDType::Q5K), (Dtype::Q6K, GgmlDType::Q6K)] {
        let tiny = TinyModel { layers: 8, hidden: 1024, heads: 16, kv_heads: 8, feed_forward: 4096, ..TinyModel::default() };
        let model = Model::quantised(&tiny, d, g);
        let before = rss();
        let config = EngineConfig { precision: Precision::Fast, ..model.whole() };
        let mut r = Route(vec![Engine::load(config, |_| ()).expect("loaded")]);
        let held = r.0[0].info().weight_bytes >> 20;
        let loaded = rss() - before;
        r.open(&session(1), &params());
        let t = std::time::Instant::now();
        r.run(vec![(session(1), step(0, &PROMPT[..1]))]);
        let one = rss() - before;
        r.run(vec![(session(1), step(1, &PROMPT[1..]))]);
        let many = rss() - before;
        r.run(vec![(session(1), step(13, &[1; 64]))]);
        let more = rss() - before;
        eprintln!("{d:?}: counted {held} MiB, loaded {loaded}, after 1 row {one}, after 12 rows {many}, after 64 rows {more}, {:?}", t.elapsed());
    }
}
