//! Computes a range of a model's layers: tokens or activations in, activations or sampled tokens out.
//!
//! Synchronous, and the only crate that names candle. It knows weights, tensors, positions and sampling; peers, text
//! and gRPC are none of its business.
//!
//! On a CPU a row's result does not depend on what else is in the batch, on the chunking, on the number of shards or on
//! the kind of processor, bit for bit: every sum runs in one fixed order that only the row itself decides. Kernels that
//! are not ours (candle's, and so all on GPUs) pick that order by the shape of what they compute: they get one shape,
//! however many rows there are.

mod arch;
mod backend;
#[doc(hidden)]
pub mod bench;
mod chosen;
mod config;
mod cpu;
mod cut;
mod device;
mod devices;
mod engine;
mod error;
mod footprint;
mod guide;
mod hyper;
mod kernels;
mod known;
mod matrices;
mod part;
mod parts;
mod places;
mod sampler;
mod slot;
mod source;
mod storage;

pub use config::{BackendChoice, CANDLE_THREADS_VARIABLE, DeviceChoice, EngineConfig, KvType, usual_threads};
pub use cut::{CutError, cut_of};
pub use engine::{Engine, ModelInfo, StepResult};
pub use error::EngineError;
pub use footprint::{Footprint, Usage};
pub use places::places;
pub use slot::{Slot, SlotOptions};
