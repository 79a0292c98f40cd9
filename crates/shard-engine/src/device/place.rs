//! Where tensors lie, how many rows are computed in one shape, and what is needed to bring tensors there.

use candle_core::Device;
use swarm_types::Precision;

use crate::{
    EngineConfig, EngineError,
    cpu::{chosen_isa, threads},
    kernels::{isa::Isa, threads::Threads},
};

/// Rows of one product on a processor: a few, so that tests there see what happens between tiles.
const PROCESSOR_ROWS: usize = 4;

/// The same on any other device. So few rows cost there what one costs: to read the weights takes as long.
const DEVICE_ROWS: usize = 16;

/// A device.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub device: Device,
    /// Libraries pick another kernel, and so another order of sums, for another number of rows. So all products are of
    /// this many rows, filled up with zeros: what becomes of a row then depends on nothing but the row.
    pub tile: usize,
}

impl Place {
    fn new(device: Device) -> Self {
        let tile = if device.is_cpu() { PROCESSOR_ROWS } else { DEVICE_ROWS };
        Self { device, tile }
    }
}

/// What tensors are loaded by.
#[derive(Debug)]
pub(crate) struct Loading {
    pub place: Place,
    pub precision: Precision,
    /// Of what is unpacked on the host.
    pub threads: Threads,
    pub isa: Isa,
}

impl Loading {
    /// Opens the device.
    pub(crate) fn new(config: &EngineConfig) -> Result<Self, EngineError> {
        Ok(Self {
            place: Place::new(config.device.open()?),
            precision: config.precision,
            threads: threads(config)?,
            isa: chosen_isa()?,
        })
    }
}
