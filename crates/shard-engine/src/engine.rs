//! The engine: holds layers and slots, runs batches.

use std::collections::HashMap;

use swarm_types::{LayerRange, ModelDigest, Precision, ShardRange, Step, StepOutput};

use crate::{
    EngineConfig, EngineError,
    block::Block,
    head::{Embedding, Head},
    hyper::HyperParameters,
    linear::Arithmetic,
    matmul::Threads,
    pass::{Pass, Rows},
    rope::Rope,
    slot::{Slot, SlotOptions, SlotState},
    source::TensorSource,
};

/// Some layers of a model in memory, and the slots that run through them.
#[derive(Debug)]
pub struct Engine {
    info: ModelInfo,
    total_shards: u32,
    kv_bytes: u64,
    kv_used: u64,
    hyper: HyperParameters,
    arithmetic: Arithmetic,
    rope: Rope,
    weights: Weights,
    slots: HashMap<Slot, SlotState>,
    /// The key of the next slot; none is given twice.
    next_slot: u64,
}

/// What an engine holds.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// The model's own name.
    pub name: String,
    /// Which file.
    pub digest: ModelDigest,
    /// How it is computed.
    pub precision: Precision,
    /// Layers of the whole model.
    pub total_layers: u32,
    /// The shards held.
    pub shards: ShardRange,
    /// The layers held.
    pub layers: LayerRange,
    /// Numbers in one activation.
    pub hidden: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Positions of the longest session.
    pub context_length: u32,
    /// Bytes of the weights as we hold them. In precision `fast` candle adds copies of its own with some types on some
    /// processors, which are not in here (see `docs/decisions/0003-memory-of-fast.md`).
    pub weight_bytes: u64,
    /// Bytes of tensors that were read from the file.
    pub bytes_read: u64,
    /// For example `cpu`.
    pub device: String,
}

/// What comes out of a step.
#[derive(Clone, PartialEq, Debug)]
pub enum StepResult {
    /// f32 `[tokens, hidden]` for the next hop.
    Activations(Vec<f32>),
    /// From the last shard. Its `timings` are empty: they are the caller's.
    Output(StepOutput),
}

/// What of a model some shards are.
#[derive(Clone, Copy, Debug)]
struct Part {
    layers: LayerRange,
    /// It begins with the embedding.
    embeds: bool,
    /// It ends with the head.
    samples: bool,
}

/// The weights of a part.
#[derive(Debug)]
struct Weights {
    embedding: Option<Embedding>,
    blocks: Vec<Block>,
    head: Option<Head>,
}

/// A slot taken out of the table for the time of a pass.
struct Member<'a> {
    /// Where its result goes.
    place: usize,
    slot: Slot,
    state: SlotState,
    step: &'a Step,
}

impl Part {
    fn of(shards: ShardRange, total_shards: u32, total_layers: u32) -> Result<Self, EngineError> {
        let layers = LayerRange::for_shards(shards, total_shards, total_layers)
            .map_err(|error| EngineError::invalid("shards", error.to_string()))?;
        // Told by the shards: with fewer layers than shards, several of them end with the last layer.
        Ok(Self { layers, embeds: shards.start() == 0, samples: shards.end() == total_shards })
    }

    /// Bytes of the file that it will read.
    fn file_bytes(self, source: &TensorSource, hyper: &HyperParameters) -> u64 {
        let of = |name: &str| source.header().tensors.get(name).map_or(0, |tensor| tensor.bytes);
        let mine = |name: &str| {
            let layer = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
            layer.is_some_and(|layer: u32| self.layers.iter().contains(&layer))
        };
        let tensors = source.header().tensors.iter();
        let blocks: u64 = tensors.filter(|(name, _)| mine(name)).map(|(_, tensor)| tensor.bytes).sum();
        let embedding = if self.embeds { of("token_embd.weight") } else { 0 };
        let head = match self.samples {
            true if hyper.tied => of("token_embd.weight"),
            true => of("output.weight"),
            false => 0,
        };
        blocks + embedding + head
    }
}

impl Weights {
    fn load(
        source: &mut TensorSource,
        part: Part,
        hyper: &HyperParameters,
        arithmetic: &Arithmetic,
        mut on_progress: impl FnMut(u8),
    ) -> Result<Self, EngineError> {
        let total = part.file_bytes(source, hyper).max(1);
        let mut progress =
            |source: &TensorSource| on_progress((source.bytes_read() * 100 / total).min(100) as u8);
        let embedding = if part.embeds { Some(Embedding::load(source, hyper)?) } else { None };
        // Grows with what is there: the number of layers is only what the header says.
        let mut blocks = Vec::new();
        for layer in part.layers.iter() {
            progress(source);
            blocks.push(Block::load(source, layer, hyper, arithmetic)?);
        }
        progress(source);
        let head = if part.samples { Some(Head::load(source, hyper, arithmetic)?) } else { None };
        progress(source);
        Ok(Self { embedding, blocks, head })
    }

    fn byte_count(&self) -> usize {
        self.blocks.iter().map(Block::byte_count).sum::<usize>()
            + self.embedding.as_ref().map_or(0, Embedding::byte_count)
            + self.head.as_ref().map_or(0, Head::byte_count)
    }
}

impl Engine {
    /// Loads the layers of `config.shards`, and nothing else of the file. `on_progress` hears percents.
    ///
    /// # Errors
    /// When the file is not a model that is supported, or the device is not there.
    pub fn load(config: EngineConfig, on_progress: impl FnMut(u8)) -> Result<Self, EngineError> {
        let mut source = TensorSource::open(&config.model)?;
        let hyper = HyperParameters::read(source.header()).map_err(|error| source.failed(error))?;
        let part = Part::of(config.shards, config.total_shards, hyper.layers)?;
        let threads = Threads::new(config.threads)
            .map_err(|error| EngineError::invalid("threads", error.to_string()))?;
        let arithmetic = Arithmetic { precision: config.precision, device: config.device.open()?, threads };
        let rope = Rope::load(&mut source, &hyper)?;
        let weights = Weights::load(&mut source, part, &hyper, &arithmetic, on_progress)?;
        let info = ModelInfo {
            name: source.header().name("unnamed").to_owned(),
            digest: ModelDigest(source.header().digest),
            precision: config.precision,
            total_layers: hyper.layers,
            shards: config.shards,
            layers: part.layers,
            hidden: hyper.hidden,
            vocabulary: hyper.vocabulary,
            context_length: hyper.context,
            weight_bytes: weights.byte_count() as u64,
            bytes_read: source.bytes_read(),
            device: config.device.to_string(),
        };
        Ok(Self {
            info,
            total_shards: config.total_shards,
            kv_bytes: config.kv_bytes,
            kv_used: 0,
            hyper,
            arithmetic,
            rope,
            weights,
            slots: HashMap::new(),
            next_slot: 0,
        })
    }

    /// What is held.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Slots open now.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of cache set aside for them.
    #[must_use]
    pub fn kv_bytes_used(&self) -> u64 {
        self.kv_used
    }

    /// Rows that a slot has passed: where its next step begins at the latest.
    #[must_use]
    pub fn position(&self, slot: Slot) -> Option<u32> {
        self.slots.get(&slot).map(|state| state.position)
    }

    /// Opens a slot and sets its cache aside.
    ///
    /// # Errors
    /// When the engine does not hold the shards, the session is too long, or the cache is full.
    pub fn open(&mut self, options: SlotOptions) -> Result<Slot, EngineError> {
        let state = self.new_state(options)?;
        self.kv_used += state.reserved;
        Ok(self.hold(state))
    }

    /// The same cache under a new key, and the position it stands at. Whoever has the old key can do nothing any more,
    /// not even with a step that waits already.
    ///
    /// # Errors
    /// When the slot is not open.
    pub fn take_over(&mut self, slot: Slot) -> Result<(Slot, u32), EngineError> {
        let state = self.slots.remove(&slot).ok_or(EngineError::UnknownSlot)?;
        let position = state.position;
        Ok((self.hold(state), position))
    }

    /// Frees a slot's cache. A slot that is not open is none to close.
    pub fn close(&mut self, slot: Slot) {
        if let Some(state) = self.slots.remove(&slot) {
            self.kv_used -= state.reserved;
        }
    }

    fn hold(&mut self, state: SlotState) -> Slot {
        let slot = Slot(self.next_slot);
        self.next_slot += 1;
        self.slots.insert(slot, state);
        slot
    }

    fn new_state(&self, options: SlotOptions) -> Result<SlotState, EngineError> {
        let SlotOptions { shards, max_positions, .. } = options;
        if !self.info.shards.contains(shards) {
            let reason = format!("{shards} asked for, {} held", self.info.shards);
            return Err(EngineError::invalid("shards", reason));
        }
        if max_positions > self.info.context_length {
            let reason = format!("{max_positions} is over the context of {}", self.info.context_length);
            return Err(EngineError::invalid("max_positions", reason));
        }
        let Part { layers, embeds, samples } = Part::of(shards, self.total_shards, self.info.total_layers)?;
        let held = self.info.layers.start();
        Ok(SlotState {
            options,
            blocks: (layers.start() - held) as usize..(layers.end() - held) as usize,
            embeds,
            samples,
            caches: layers.iter().map(|_| Default::default()).collect(),
            position: 0,
            history: Default::default(),
            reserved: self.room_for(max_positions, layers)?,
        })
    }

    /// Bytes of cache for so many positions, if they are free.
    fn room_for(&self, max_positions: u32, layers: LayerRange) -> Result<u64, EngineError> {
        let needed = self.hyper.kv_bytes_per_position(layers).saturating_mul(max_positions.into());
        if needed > self.kv_bytes {
            // Another time would be no better.
            let reason = format!(
                "{max_positions} positions need {needed} bytes of cache, more than --kv-memory holds: {}",
                self.kv_bytes
            );
            return Err(EngineError::invalid("max_positions", reason));
        }
        let free = self.kv_bytes - self.kv_used;
        if needed > free {
            return Err(EngineError::Full { needed, free, total: self.kv_bytes });
        }
        Ok(needed)
    }

    /// Runs steps of different slots as one batch; the results come in the same order. What is wrong with one step
    /// does not touch the others. A step that begins below its slot's position first takes the slot back there.
    pub fn run(&mut self, batch: &[(Slot, Step)]) -> Vec<Result<StepResult, EngineError>> {
        let mut results: Vec<Option<Result<StepResult, EngineError>>> = Vec::with_capacity(batch.len());
        let mut groups: Vec<Vec<Member<'_>>> = vec![];
        for (place, (slot, step)) in batch.iter().enumerate() {
            match self.take(place, *slot, step) {
                Ok(member) => {
                    results.push(None);
                    match groups.iter_mut().find(|group| group[0].shards() == member.shards()) {
                        Some(group) => group.push(member),
                        None => groups.push(vec![member]),
                    }
                }
                Err(error) => results.push(Some(Err(error))),
            }
        }
        for group in groups {
            for (place, result) in self.run_group(group) {
                results[place] = Some(result);
            }
        }
        results.into_iter().map(|result| result.expect("every step was refused or in a group")).collect()
    }

    /// Takes a slot out of the table, if its step can be computed. So a slot's second step in one batch finds no slot
    /// and is refused.
    fn take<'a>(&mut self, place: usize, slot: Slot, step: &'a Step) -> Result<Member<'a>, EngineError> {
        let state = self.slots.get(&slot).ok_or(EngineError::UnknownSlot)?;
        state.check(step, &self.hyper)?;
        let mut state = self.slots.remove(&slot).ok_or(EngineError::UnknownSlot)?;
        state.truncate(step.position, self.hyper.kv_width());
        Ok(Member { place, slot, state, step })
    }

    fn run_group(&mut self, mut group: Vec<Member<'_>>) -> Vec<(usize, Result<StepResult, EngineError>)> {
        let outcomes = self.compute(&mut group).unwrap_or_else(|error| {
            let reason = error.to_string();
            let failed = |_: &Member<'_>| Err(candle_core::Error::msg(&reason).into());
            group.iter().map(failed).collect()
        });
        let mut results = Vec::with_capacity(group.len());
        for (mut member, outcome) in group.into_iter().zip(outcomes) {
            match &outcome {
                Ok(_) => member.state.advance(member.step),
                // What a failed step left behind goes.
                Err(_) => member.state.truncate(member.step.position, self.hyper.kv_width()),
            }
            self.slots.insert(member.slot, member.state);
            results.push((member.place, outcome));
        }
        results
    }

    /// One outcome for each member; no slot has advanced yet.
    fn compute(&self, group: &mut [Member<'_>]) -> Result<Vec<Outcome>, candle_core::Error> {
        let positions: Vec<u32> = group.iter().flat_map(|m| m.step.position..m.step.end()).collect();
        let rotation = self.rope.at(&positions);
        let pass =
            Pass { hyper: &self.hyper, arithmetic: &self.arithmetic, rope: &self.rope, rotation: &rotation };
        let mut x = self.first_rows(group)?;
        let blocks = group[0].state.blocks.clone();
        for (layer, block) in self.weights.blocks[blocks].iter().enumerate() {
            let rows = |member| rows_of(member, layer, self.hyper.kv_width());
            let mut sessions: Vec<Rows<'_>> = group.iter_mut().map(rows).collect();
            block.forward(&mut x, &mut sessions, &pass)?;
        }
        match &self.weights.head {
            Some(head) if group[0].state.samples => self.outputs(head, group, &x),
            _ => Ok(self.activations(group, &x)),
        }
    }

    /// `[rows][hidden]` of all members: embedded tokens, or the activations that came.
    fn first_rows(&self, group: &[Member<'_>]) -> Result<Vec<f32>, candle_core::Error> {
        let mut x = vec![];
        for member in group {
            match &self.weights.embedding {
                Some(embedding) if member.state.embeds => x.extend(embedding.rows(&member.step.tokens)?),
                _ => x.extend_from_slice(&member.step.activations),
            }
        }
        Ok(x)
    }

    /// Each member with its own rows of `x`.
    fn split<'a>(
        &self,
        group: &'a [Member<'a>],
        mut x: &'a [f32],
    ) -> impl Iterator<Item = (&'a Member<'a>, &'a [f32])> {
        let hidden = self.hyper.hidden;
        group.iter().map(move |member| {
            let (own, rest) = x.split_at(member.step.rows() * hidden);
            x = rest;
            (member, own)
        })
    }

    fn activations(&self, group: &[Member<'_>], x: &[f32]) -> Vec<Outcome> {
        let outcome = |(_, own): (_, &[f32])| {
            check_finite("activations", own).map(|()| StepResult::Activations(own.to_vec()))
        };
        self.split(group, x).map(outcome).collect()
    }

    fn outputs(
        &self,
        head: &Head,
        group: &mut [Member<'_>],
        x: &[f32],
    ) -> Result<Vec<Outcome>, candle_core::Error> {
        let hidden = self.hyper.hidden;
        let (mut rows, mut owners, mut outputs) = (vec![], vec![], vec![]);
        for (number, (member, own)) in self.split(group, x).enumerate() {
            for row in SlotState::rows_of_interest(member.step) {
                rows.extend_from_slice(&own[row * hidden..(row + 1) * hidden]);
                owners.push((number, row));
            }
            outputs.push(check_finite("activations", own).map(|()| empty_output(member.step)));
        }
        head.logits(&rows, &self.arithmetic, |place, logits| {
            let (number, row) = owners[place];
            let Member { state, step, .. } = &mut group[number];
            if let Ok(output) = &mut outputs[number] {
                match check_finite("logits", logits) {
                    Ok(()) => state.read_logits(step, row, logits, output),
                    Err(error) => outputs[number] = Err(error),
                }
            }
        })?;
        Ok(outputs.into_iter().map(|output| output.map(StepResult::Output)).collect())
    }
}

impl Member<'_> {
    fn shards(&self) -> ShardRange {
        self.state.options.shards
    }
}

/// What became of one step.
type Outcome = Result<StepResult, EngineError>;

/// A member's rows in a layer of its slot, counted from the slot's first.
fn rows_of<'a>(member: &'a mut Member<'_>, layer: usize, kv_width: usize) -> Rows<'a> {
    let limit = member.state.options.max_positions as usize * kv_width;
    Rows { count: member.step.rows(), cache: &mut member.state.caches[layer], limit }
}

/// What leaves the engine must mean something: otherwise the next hop is blamed, or a token is made of nothing.
fn check_finite(what: &'static str, numbers: &[f32]) -> Result<(), EngineError> {
    if numbers.iter().all(|number| number.is_finite()) { Ok(()) } else { Err(EngineError::NotFinite(what)) }
}

fn empty_output(step: &Step) -> StepOutput {
    StepOutput { position: step.end(), tokens: vec![], scores: vec![], timings: vec![] }
}
