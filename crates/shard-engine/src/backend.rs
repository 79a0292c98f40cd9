//! The seam between what the engine decides (slots, room, batches, sampling) and how layers are computed.
//!
//! A [`Backend`] holds a part of a model and computes a range of its layers at a time. Rows enter [`Backend::forward`]
//! once and leave it once; between the layers they are where the backend wants them. What it keeps for a slot
//! ([`Cache`]) and what comes out of a pass ([`Hidden`]) is its own as well: the engine only carries them back to it.
//!
//! A row's result must not depend on the other rows of a pass, nor on how its slot's rows were cut into passes.
//!
//! There are two: `cpu.rs` with all in memory and kernels of our own, `device.rs` with all on a device and candle's.

use std::{any::Any, fmt, ops::Range};

use swarm_types::{LayerRange, TokenId};

use crate::{EngineConfig, EngineError, hyper::HyperParameters, part::Part, source::TensorSource};

/// Computes layers of one part of a model.
pub(crate) trait Backend: fmt::Debug + Send {
    /// Loads the part's weights and nothing else of the file. `on_progress` hears percents.
    ///
    /// # Errors
    /// When a tensor is missing or not supported, or the device cannot be used.
    fn load(
        source: &mut TensorSource,
        hyper: &HyperParameters,
        part: Part,
        config: &EngineConfig,
        on_progress: &mut dyn FnMut(u8),
    ) -> Result<Self, EngineError>
    where
        Self: Sized;

    /// Bytes of the weights as they are held.
    fn weight_bytes(&self) -> u64;

    /// Bytes of the weights that every token reads: layers and head. Of an embedding it reads one row, which does not
    /// count.
    fn bytes_per_token(&self) -> u64;

    /// Bytes that a cache of these layers takes at most when it holds so many positions.
    fn cache_bytes(&self, layers: LayerRange, positions: u32) -> u64;

    /// An empty cache of these layers, which will never hold more than so many positions.
    fn new_cache(&self, layers: LayerRange, positions: u32) -> Cache;

    /// Passes rows of different slots through these layers, all of them held, and adds to the caches, which are of
    /// these layers too.
    ///
    /// # Errors
    /// When the computation fails; what the caches hold above the rows' positions is then worth nothing.
    fn forward(&self, layers: LayerRange, rows: &mut [Rows<'_>]) -> Result<Hidden, EngineError>;

    /// For each of some runs of rows, counted over the whole pass, whether all its numbers are finite.
    ///
    /// # Errors
    /// When the computation fails.
    fn finite(&self, hidden: &Hidden, runs: &[Range<usize>]) -> Result<Vec<bool>, EngineError>;

    /// f32 `[rows][hidden]` for the next hop.
    ///
    /// # Errors
    /// When they cannot be brought to the host.
    fn activations(&self, hidden: Hidden) -> Result<Vec<f32>, EngineError>;

    /// Calls `each` for every one of these rows, in their order, with its place in `rows` and its logits
    /// `[vocabulary]`. Only for a part that ends with the head.
    ///
    /// # Errors
    /// When the computation fails.
    fn logits(
        &self,
        hidden: &Hidden,
        rows: &[usize],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError>;

    /// Calls `each` for every one of these rows, in their order, with its numbers `[hidden]` behind the final norm.
    /// Only for a part that ends with the head.
    ///
    /// # Errors
    /// When the computation fails.
    fn normed(
        &self,
        hidden: &Hidden,
        rows: Range<usize>,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<(), EngineError>;

    /// Forgets what lies in a cache from this position on.
    fn truncate(&self, cache: &mut Cache, position: u32);
}

/// The rows of one slot in a pass.
pub(crate) struct Rows<'a> {
    /// Of the first row; the cache holds all positions below it and none above.
    pub position: u32,
    /// At least one.
    pub count: usize,
    pub input: Input<'a>,
    pub cache: &'a mut Cache,
}

/// What rows enter a part as.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input<'a> {
    /// At the model's beginning: tokens of the vocabulary, one a row.
    Tokens(&'a [TokenId]),
    /// From the hop before: `[rows][hidden]`.
    Activations(&'a [f32]),
}

/// A slot's keys and values.
#[derive(Debug)]
pub(crate) struct Cache(Box<dyn Any + Send>);

/// The rows of a pass behind its last layer, slot after slot.
#[derive(Debug)]
pub(crate) struct Hidden(Box<dyn Any>);

/// Why a backend can look into what it is given.
const ITS_OWN: &str = "an engine has one backend, and gives it nothing but what it made";

impl Cache {
    pub(crate) fn new(inner: impl Any + Send) -> Self {
        Self(Box::new(inner))
    }

    /// What the backend made it of.
    pub(crate) fn get<T: Any>(&mut self) -> &mut T {
        self.0.downcast_mut().expect(ITS_OWN)
    }
}

impl Hidden {
    pub(crate) fn new(inner: impl Any) -> Self {
        Self(Box::new(inner))
    }

    /// What the backend made it of.
    pub(crate) fn get<T: Any>(&self) -> &T {
        self.0.downcast_ref().expect(ITS_OWN)
    }

    /// The same, given back.
    pub(crate) fn into<T: Any>(self) -> T {
        *self.0.downcast().expect(ITS_OWN)
    }
}
