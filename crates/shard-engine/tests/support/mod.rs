//! Tiny models, engines that together hold one, and files that are not quite what they should be.

// Each test file uses its own part of this.
#![allow(dead_code)]

use std::path::PathBuf;

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor},
};
use gguf::{Dtype, Header, TensorInfo, tiny::TinyModel, write::Writer};
use shard_engine::{DeviceChoice, Engine, EngineConfig, SessionOptions, StepResult};
use swarm_types::{HopTiming, Precision, SamplingParams, SessionId, ShardRange, Step, StepOutput, TokenId};
use tempfile::TempDir;

pub(crate) const PROMPT: [u32; 13] = [5, 9, 200, 31, 77, 5, 5, 120, 64, 33, 250, 17, 8];

/// A model's file.
pub(crate) struct Model {
    pub(crate) dir: TempDir,
}

impl Model {
    pub(crate) fn new(tiny: &TinyModel) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        tiny.write(&dir.path().join("tiny.gguf")).expect("written");
        Self { dir }
    }

    /// The same with every matrix quantised, as candle does it.
    pub(crate) fn quantised(tiny: &TinyModel, to: Dtype, ggml: GgmlDType) -> Self {
        Self::new(tiny).rewritten(|_, tensor, bytes| match tensor.shape.len() {
            2 => Some((to, quantise(&bytes, tensor, ggml))),
            _ => Some((tensor.dtype, bytes)),
        })
    }

    /// The same with every tensor as `change` gives it back, or without it.
    pub(crate) fn rewritten(
        self,
        mut change: impl FnMut(&str, &TensorInfo, Vec<u8>) -> Option<(Dtype, Vec<u8>)>,
    ) -> Self {
        let header = Header::read(&self.path()).expect("valid");
        let file = std::fs::read(self.path()).expect("read");
        let mut writer = Writer::default();
        header.metadata.iter().for_each(|(key, value)| writer.metadata(key, value.clone()));
        for (name, tensor) in &header.tensors {
            let start = (header.data_offset + tensor.offset) as usize;
            let bytes = file[start..start + tensor.bytes as usize].to_vec();
            if let Some((dtype, bytes)) = change(name, tensor, bytes) {
                writer.tensor(name, dtype, &tensor.shape, bytes);
            }
        }
        writer.write(&self.path()).expect("written");
        self
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("tiny.gguf")
    }

    pub(crate) fn config(&self, shards: ShardRange, total_shards: u32) -> EngineConfig {
        EngineConfig {
            model: self.path(),
            shards,
            total_shards,
            precision: Precision::Exact,
            device: DeviceChoice::Cpu,
            kv_bytes: 64 << 20,
            threads: 1,
        }
    }

    /// The whole model in one engine.
    pub(crate) fn whole(&self) -> EngineConfig {
        self.config(ShardRange::new(0, 1).expect("valid"), 1)
    }

    /// Why the whole model is refused.
    pub(crate) fn refusal(&self) -> String {
        Engine::load(self.whole(), |_| ()).expect_err("refused").to_string()
    }

    /// One engine for each shard.
    pub(crate) fn shards(&self, total: u32) -> Route {
        let load = |shard| {
            let shards = ShardRange::new(shard, shard + 1).expect("valid");
            Engine::load(self.config(shards, total), |_| ()).expect("loaded")
        };
        Route((0..total).map(load).collect())
    }
}

/// Engines that together hold a model.
pub(crate) struct Route(pub(crate) Vec<Engine>);

impl Route {
    pub(crate) fn open(&mut self, id: &SessionId, params: &SamplingParams) {
        for engine in &mut self.0 {
            let options = SessionOptions {
                shards: engine.info().shards,
                prompt_tokens: PROMPT.len() as u32,
                max_positions: 100,
                sampling: Some(params.clone()),
            };
            engine.open(id.clone(), options).expect("opened");
        }
    }

    /// Sends steps of several sessions through all shards as one batch.
    pub(crate) fn run(&mut self, mut steps: Vec<(SessionId, Step)>) -> Vec<StepOutput> {
        let last = self.0.len() - 1;
        for engine in &mut self.0[..last] {
            let results = engine.run(steps.clone());
            for ((_, step), result) in steps.iter_mut().zip(results) {
                match result.expect("computed") {
                    StepResult::Activations(x) => step.activations = x,
                    StepResult::Output(_) => panic!("only the last shard has outputs"),
                }
            }
        }
        let outputs = self.0[last].run(steps).into_iter().map(|result| match result.expect("computed") {
            StepResult::Output(output) => output,
            StepResult::Activations(_) => panic!("the last shard has outputs"),
        });
        outputs.collect()
    }

    /// Prompt in chunks, then generated tokens; with the bits of their log-probabilities.
    pub(crate) fn generate(
        &mut self,
        id: &SessionId,
        params: &SamplingParams,
        chunk: usize,
    ) -> Vec<(u32, u32)> {
        self.open(id, params);
        let mut seen = vec![];
        let mut position = 0;
        let mut output = None;
        for tokens in PROMPT.chunks(chunk) {
            output = self.run(vec![(id.clone(), step(position, tokens))]).pop();
            position += tokens.len() as u32;
        }
        for _ in 0..12 {
            let sampled = output.expect("an output");
            let token = sampled.token.expect("sampled");
            seen.push((token.0, sampled.logprob.expect("asked for").to_bits()));
            output = self.run(vec![(id.clone(), step(position, &[token.0]))]).pop();
            position += 1;
        }
        self.0.iter_mut().for_each(|engine| engine.close(id));
        seen
    }
}

pub(crate) fn step(position: u32, tokens: &[u32]) -> Step {
    let tokens = tokens.iter().map(|id| TokenId(*id)).collect();
    Step { position, tokens, sample: true, timings: Vec::<HopTiming>::new(), ..Step::default() }
}

pub(crate) fn session(number: u32) -> SessionId {
    format!("00000000-0000-4000-8000-{number:012}").parse().expect("a UUID")
}

pub(crate) fn params() -> SamplingParams {
    SamplingParams { seed: 3, frequency_penalty: 0.2, top_logprobs: Some(2), ..SamplingParams::default() }
}

fn quantise(bytes: &[u8], tensor: &TensorInfo, dtype: GgmlDType) -> Vec<u8> {
    let values: Vec<f32> =
        bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
    let shape = (tensor.shape[1] as usize, tensor.shape[0] as usize);
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu).expect("as many numbers as the shape has");
    QTensor::quantize(&tensor, dtype).and_then(|q| Ok(q.data()?.into_owned())).expect("quantised")
}
