//! Tiny models, engines that together hold one, and files that are not quite what they should be.

// Each test file uses its own part of this.
#![allow(dead_code)]

use std::{collections::BTreeMap, path::PathBuf};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor},
};
use gguf::{Dtype, Header, TensorInfo, tiny::TinyModel, write::Writer};
use shard_engine::{
    BackendChoice, DeviceChoice, Engine, EngineConfig, KvType, Slot, SlotOptions, StepResult,
};
use swarm_types::{Precision, SamplingParams, ShardRange, Step, StepInput, StepOutput, TokenId};
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
        Self::new(tiny).rewritten(|name, tensor, bytes| match tensor.shape.len() {
            // What scores experts is stored as it is, as those who convert models do it.
            2 | 3 if !name.contains("ffn_gate_inp") => Some((to, quantise(&bytes, tensor, ggml))),
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
            let start = tensor.offset as usize;
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
            shard_weights: None,
            precision: Precision::Exact,
            backend: BackendChoice::Native,
            device: DeviceChoice::Cpu,
            kv_bytes: 64 << 20,
            kv_type: KvType::F32,
            threads: 1,
            threads_batch: 1,
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
        self.shards_by(BackendChoice::Native, total)
    }

    /// The same, computed by this backend.
    pub(crate) fn shards_by(&self, backend: BackendChoice, total: u32) -> Route {
        let load = |shard| {
            let shards = ShardRange::new(shard, shard + 1).expect("valid");
            let config = EngineConfig { backend, ..self.config(shards, total) };
            Engine::load(config, |_| ()).expect("loaded")
        };
        Route::new((0..total).map(load).collect())
    }
}

/// Engines that together hold a model, and the slots on each of them by the number of their session.
pub(crate) struct Route {
    pub(crate) engines: Vec<Engine>,
    slots: BTreeMap<u32, Vec<Slot>>,
}

impl Route {
    pub(crate) fn new(engines: Vec<Engine>) -> Self {
        Self { engines, slots: BTreeMap::new() }
    }

    /// Opens a session; the last shard is told its prompt.
    pub(crate) fn open(&mut self, session: u32, params: &SamplingParams) {
        self.open_with(session, params, 100, &PROMPT);
    }

    /// Opens a session for so many positions with this prompt.
    pub(crate) fn open_with(
        &mut self,
        session: u32,
        params: &SamplingParams,
        max_positions: u32,
        prompt: &[u32],
    ) {
        let open = |engine: &mut Engine| {
            let options = SlotOptions {
                shards: engine.info().shards,
                prompt_tokens: prompt.len() as u32,
                max_positions,
                sampling: Some(params.clone()),
                grammar: None,
            };
            engine.open(options).expect("opened")
        };
        let slots = self.engines.iter_mut().map(open).collect();
        assert!(self.slots.insert(session, slots).is_none(), "session {session} is open already");
        self.tell(session, prompt);
    }

    /// Tells the last shard a session's tokens.
    pub(crate) fn tell(&mut self, session: u32, tokens: &[u32]) {
        let last = self.engines.len() - 1;
        let slot = self.slot(last, session);
        self.engines[last].tell(slot, ids(tokens)).expect("told");
    }

    pub(crate) fn close(&mut self, session: u32) {
        let slots = self.slots.remove(&session).expect("open");
        self.engines.iter_mut().zip(slots).for_each(|(engine, slot)| engine.close(slot));
    }

    /// A session's slot on one of the engines.
    pub(crate) fn slot(&self, engine: usize, session: u32) -> Slot {
        self.slots[&session][engine]
    }

    /// Sends steps of several sessions through all shards as one batch.
    pub(crate) fn run(&mut self, steps: Vec<(u32, Step)>) -> Vec<StepOutput> {
        let (sessions, mut steps): (Vec<u32>, Vec<Step>) = steps.into_iter().unzip();
        let mut outputs = vec![];
        for hop in 0..self.engines.len() {
            let slots = sessions.iter().map(|session| self.slot(hop, *session));
            let batch: Vec<(Slot, Step)> = slots.zip(steps.iter().cloned()).collect();
            for (step, result) in steps.iter_mut().zip(self.engines[hop].run(&batch)) {
                match result.expect("computed") {
                    StepResult::Activations(values) => step.input = activations(step.rows(), values),
                    StepResult::Output(output) => outputs.push(output),
                }
            }
        }
        assert_eq!(outputs.len(), steps.len(), "the last shard has outputs, and no other");
        outputs
    }

    /// Prompt in chunks, then generated tokens; with the bits of their log-probabilities.
    pub(crate) fn generate(
        &mut self,
        session: u32,
        params: &SamplingParams,
        chunk: usize,
    ) -> Vec<(u32, u32)> {
        self.open(session, params);
        let mut seen = vec![];
        let mut position = 0;
        let mut output = None;
        for tokens in PROMPT.chunks(chunk) {
            output = self.run(vec![(session, step(position, tokens))]).pop();
            position += tokens.len() as u32;
        }
        for _ in 0..12 {
            let (token, bits) = sampled(&output.expect("an output")).pop().expect("sampled");
            seen.push((token, bits));
            output = self.run(vec![(session, step(position, &[token]))]).pop();
            position += 1;
        }
        self.close(session);
        seen
    }
}

/// The sampled tokens with the bits of their log-probabilities.
pub(crate) fn sampled(output: &StepOutput) -> Vec<(u32, u32)> {
    output.tokens.iter().map(|s| (s.token.0, s.logprob.expect("asked for").to_bits())).collect()
}

/// A step that samples from its last row.
pub(crate) fn step(position: u32, tokens: &[u32]) -> Step {
    Step { position, input: ids(tokens).into(), samples: 1, ..Step::default() }
}

/// The same for a shard that is not the first.
pub(crate) fn step_below(position: u32, rows: usize, values: Vec<f32>) -> Step {
    Step { position, input: activations(rows, values), samples: 1, ..Step::default() }
}

/// Whether its architecture is computed on devices too.
pub(crate) fn runs_on_devices(tiny: &TinyModel) -> bool {
    !["gpt-oss", "command-r", "cohere2"].contains(&tiny.architecture)
}

pub(crate) fn activations(rows: usize, values: Vec<f32>) -> StepInput {
    StepInput::Activations { rows: rows as u32, values }
}

pub(crate) fn ids(tokens: &[u32]) -> Vec<TokenId> {
    tokens.iter().map(|id| TokenId(*id)).collect()
}

pub(crate) fn params() -> SamplingParams {
    SamplingParams { seed: 3, frequency_penalty: 0.2, top_logprobs: Some(2), ..SamplingParams::default() }
}

fn quantise(bytes: &[u8], tensor: &TensorInfo, dtype: GgmlDType) -> Vec<u8> {
    let values: Vec<f32> =
        bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
    let rows: u64 = tensor.shape[1..].iter().product();
    let shape = (rows as usize, tensor.shape[0] as usize);
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu).expect("as many numbers as the shape has");
    QTensor::quantize(&tensor, dtype).and_then(|q| Ok(q.data()?.into_owned())).expect("quantised")
}
