//! The engine: holds layers and slots, runs batches.

use std::{collections::HashMap, ops::Range};

use swarm_types::{Cut, LayerRange, Precision, ShardRange, Step, StepOutput, TokenId};

use crate::{
    EngineConfig, EngineError,
    backend::{Backend, Hidden, Rows},
    cpu::chosen_isa,
    cut::cut_of,
    devices,
    guide::Guide,
    hyper::HyperParameters,
    part::Part,
    parts,
    slot::{Slot, SlotOptions, SlotState},
    source::TensorSource,
};

/// Some layers of a model in memory, and the slots that run through them.
#[derive(Debug)]
pub struct Engine {
    info: ModelInfo,
    cut: Cut,
    kv_bytes: u64,
    kv_used: u64,
    hyper: HyperParameters,
    backend: Box<dyn Backend>,
    slots: HashMap<Slot, SlotState>,
    /// The key of the next slot; none is given twice.
    next_slot: u64,
}

/// What an engine holds.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// The model's own name.
    pub name: String,
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
    /// Bytes of the weights as they are held.
    pub weight_bytes: u64,
    /// Bytes of the weights that one token reads on its way: of the embedding it reads a single row, which does not
    /// count.
    pub bytes_per_token: u64,
    /// Bytes of tensors that were read from the file.
    pub bytes_read: u64,
    /// For example `cpu`.
    pub device: String,
    /// The instruction set of our own kernels, by the name that `LLAMA_SWARM_ISA` knows it by.
    pub instructions: &'static str,
}

/// What comes out of a step.
#[derive(Clone, PartialEq, Debug)]
pub enum StepResult {
    /// f32 `[tokens, hidden]` for the next hop.
    Activations(Vec<f32>),
    /// From the last shard. Its `timings` are empty: they are the caller's.
    Output(StepOutput),
}

/// A slot taken out of the table for the time of a pass.
struct Member<'a> {
    /// Where its result goes.
    place: usize,
    slot: Slot,
    state: SlotState,
    step: &'a Step,
}

/// A group's rows behind the last layer of the pass.
struct Passed {
    hidden: Hidden,
    /// Each member's rows, counted over the whole group.
    runs: Vec<Range<usize>>,
    /// Of each member, whether its rows may leave.
    sound: Vec<Result<(), EngineError>>,
}

impl Engine {
    /// Loads the layers of `config.shards`, and nothing else of the file. `on_progress` hears percents.
    ///
    /// # Errors
    /// When the file is not a model that is supported, or the device is not there.
    pub fn load(config: EngineConfig, mut on_progress: impl FnMut(u8)) -> Result<Self, EngineError> {
        let config = EngineConfig { device: config.device.resolved(), ..config };
        let mut source = TensorSource::open(&config.model)?;
        let hyper = HyperParameters::read(source.header()).map_err(|error| source.failed(error))?;
        let cut = cut_of(source.header(), config.total_shards, config.shard_weights.as_ref())
            .map_err(|error| source.failed(error))?;
        let part = part_of(config.shards, &cut)?;
        parts::check(source.header(), part.layers, &hyper).map_err(|error| source.failed(error))?;
        let backend = devices::load(&mut source, &hyper, part, &config, &mut on_progress)?;
        let info = ModelInfo {
            name: source.header().name("unnamed").to_owned(),
            precision: config.precision,
            total_layers: hyper.layers,
            shards: config.shards,
            layers: part.layers,
            hidden: hyper.hidden,
            vocabulary: hyper.vocabulary,
            context_length: hyper.context,
            weight_bytes: backend.weight_bytes(),
            bytes_per_token: backend.bytes_per_token(),
            bytes_read: source.bytes_read(),
            device: config.device.to_string(),
            instructions: chosen_isa()?.name(),
        };
        Ok(Self {
            info,
            cut,
            kv_bytes: config.kv_bytes,
            kv_used: 0,
            hyper,
            backend,
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

    /// Bytes of cache that such a slot sets aside.
    ///
    /// # Errors
    /// When the engine does not hold the shards, or the session is too long for the model or for all of the cache.
    pub fn cache_bytes(&self, options: &SlotOptions) -> Result<u64, EngineError> {
        let SlotOptions { shards, max_positions, .. } = *options;
        if !self.info.shards.contains(shards) {
            let reason = format!("{shards} asked for, {} held", self.info.shards);
            return Err(EngineError::invalid("shards", reason));
        }
        if max_positions > self.info.context_length {
            let reason = format!("{max_positions} is over the context of {}", self.info.context_length);
            return Err(EngineError::invalid("max_positions", reason));
        }
        let part = self.part(shards)?;
        let needed = self.backend.cache_bytes(part.layers, max_positions);
        if needed > self.kv_bytes {
            // Another time would be no better.
            let reason = format!(
                "{max_positions} positions need {needed} bytes of cache, more than --kv-memory holds: {}",
                self.kv_bytes
            );
            return Err(EngineError::invalid("max_positions", reason));
        }
        Ok(needed)
    }

    fn part(&self, shards: ShardRange) -> Result<Part, EngineError> {
        part_of(shards, &self.cut)
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

    /// Tells a slot that ends with the last shard the session's tokens, from position 0 on: as many as there are when
    /// an attempt begins. Penalties and scores need them; what is sampled from then on it knows by itself.
    ///
    /// # Errors
    /// When the slot is not open, or there cannot be such tokens.
    pub fn tell(&mut self, slot: Slot, tokens: Vec<TokenId>) -> Result<(), EngineError> {
        let state = self.slots.get_mut(&slot).ok_or(EngineError::UnknownSlot)?;
        state.tell(tokens, &self.hyper)
    }

    /// Frees a slot's cache. A slot that is not open is none to close.
    pub fn close(&mut self, slot: Slot) {
        if let Some(state) = self.slots.remove(&slot) {
            self.kv_used -= state.reserved;
        }
        self.check_room();
    }

    fn hold(&mut self, state: SlotState) -> Slot {
        let slot = Slot(self.next_slot);
        self.next_slot += 1;
        self.slots.insert(slot, state);
        self.check_room();
        slot
    }

    fn check_room(&self) {
        debug_assert_eq!(self.kv_used, self.slots.values().map(|state| state.reserved).sum::<u64>());
        debug_assert!(self.kv_used <= self.kv_bytes);
    }

    fn new_state(&self, options: SlotOptions) -> Result<SlotState, EngineError> {
        let reserved = self.cache_bytes(&options)?;
        let free = self.kv_bytes - self.kv_used;
        if reserved > free {
            return Err(EngineError::Full { needed: reserved, free, total: self.kv_bytes });
        }
        let part = self.part(options.shards)?;
        Ok(SlotState {
            cache: self.backend.new_cache(part.layers, options.max_positions),
            guide: options.grammar.as_ref().map(|grammar| Guide::new(grammar, options.prompt_tokens)),
            options,
            part,
            position: 0,
            known: Default::default(),
            history: Default::default(),
            reserved,
        })
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
        state.truncate(step.position, self.backend.as_ref());
        Ok(Member { place, slot, state, step })
    }

    fn run_group(&mut self, mut group: Vec<Member<'_>>) -> Vec<(usize, Result<StepResult, EngineError>)> {
        let outcomes = self.compute(&mut group).unwrap_or_else(|error| {
            let failed = |_: &Member<'_>| Err(error.clone());
            group.iter().map(failed).collect()
        });
        let mut results = Vec::with_capacity(group.len());
        for (mut member, outcome) in group.into_iter().zip(outcomes) {
            match &outcome {
                Ok(_) => member.state.advance(member.step),
                // What a failed step left behind goes.
                Err(_) => member.state.truncate(member.step.position, self.backend.as_ref()),
            }
            self.slots.insert(member.slot, member.state);
            results.push((member.place, outcome));
        }
        results
    }

    /// One outcome for each member; no slot has advanced yet.
    fn compute(&self, group: &mut [Member<'_>]) -> Result<Vec<Outcome>, EngineError> {
        let part = group[0].state.part;
        let mut rows: Vec<Rows<'_>> = group.iter_mut().map(|member| member.state.rows(member.step)).collect();
        let hidden = self.backend.forward(part.layers, &mut rows)?;
        let runs = runs(group);
        let finite = self.backend.finite(&hidden, &runs)?;
        let sound = finite.into_iter().map(|finite| check_finite("activations", finite)).collect();
        let passed = Passed { hidden, runs, sound };
        if part.samples { self.outputs(group, passed) } else { self.activations(passed) }
    }

    fn activations(&self, passed: Passed) -> Result<Vec<Outcome>, EngineError> {
        let (x, width) = (self.backend.activations(passed.hidden)?, self.hyper.hidden);
        let own = |rows: Range<usize>| x[rows.start * width..rows.end * width].to_vec();
        let outcome = |(rows, sound): (_, Result<(), _>)| sound.map(|()| StepResult::Activations(own(rows)));
        Ok(passed.runs.into_iter().zip(passed.sound).map(outcome).collect())
    }

    fn outputs(&self, group: &mut [Member<'_>], passed: Passed) -> Result<Vec<Outcome>, EngineError> {
        let Passed { hidden, runs, sound } = passed;
        let begun = |(member, sound): (&Member<'_>, Result<(), _>)| sound.map(|()| empty_output(member.step));
        let mut outputs: Vec<Result<StepOutput, _>> = group.iter().zip(sound).map(begun).collect();
        let (mut rows, mut owners) = (vec![], vec![]);
        for (number, (member, run)) in group.iter().zip(&runs).enumerate() {
            for row in SlotState::rows_of_interest(member.step) {
                rows.push(run.start + row);
                owners.push((number, row));
            }
        }
        self.backend.logits(&hidden, &rows, &mut |place, logits| {
            let (number, row) = owners[place];
            let Member { state, step, .. } = &mut group[number];
            if let Ok(output) = &mut outputs[number] {
                let read = match check_finite("logits", logits.iter().all(|logit| logit.is_finite())) {
                    Ok(()) => state.read_logits(step, row, logits, output),
                    Err(error) => Err(error),
                };
                if let Err(error) = read {
                    outputs[number] = Err(error);
                }
            }
        })?;
        self.pool(group, &hidden, &runs, &mut outputs);
        Ok(outputs.into_iter().map(|output| output.map(StepResult::Output)).collect())
    }
}

impl Engine {
    /// Sums up the rows of the steps that want it, row after row. What fails does so alone.
    fn pool(
        &self,
        group: &[Member<'_>],
        hidden: &Hidden,
        runs: &[Range<usize>],
        outputs: &mut [Result<StepOutput, EngineError>],
    ) {
        for ((member, run), pooling) in group.iter().zip(runs).zip(outputs) {
            let (true, Ok(output)) = (member.step.pools, &mut *pooling) else { continue };
            let mut sum = vec![0.0; self.hyper.hidden];
            let read = self.backend.normed(hidden, run.clone(), &mut |row| {
                sum.iter_mut().zip(row).for_each(|(sum, number)| *sum += f64::from(*number));
            });
            let finite = || check_finite("hidden states", sum.iter().all(|number| number.is_finite()));
            match read.and_then(|()| finite()) {
                Ok(()) => output.pooled = sum,
                Err(error) => *pooling = Err(error),
            }
        }
    }
}

impl Member<'_> {
    fn shards(&self) -> ShardRange {
        self.state.options.shards
    }
}

fn part_of(shards: ShardRange, cut: &Cut) -> Result<Part, EngineError> {
    Part::of(shards, cut).map_err(|error| EngineError::invalid("shards", error.to_string()))
}

/// What became of one step.
type Outcome = Result<StepResult, EngineError>;

/// Each member's rows, counted over the whole group.
fn runs(group: &[Member<'_>]) -> Vec<Range<usize>> {
    let mut end = 0;
    let mut next = |member: &Member<'_>| {
        let start = end;
        end += member.step.rows();
        start..end
    };
    group.iter().map(&mut next).collect()
}

/// What leaves the engine must mean something: otherwise the next hop is blamed, or a token is made of nothing.
fn check_finite(what: &'static str, finite: bool) -> Result<(), EngineError> {
    if finite { Ok(()) } else { Err(EngineError::NotFinite(what)) }
}

fn empty_output(step: &Step) -> StepOutput {
    StepOutput { position: step.end(), tokens: vec![], scores: vec![], pooled: vec![], timings: vec![] }
}
