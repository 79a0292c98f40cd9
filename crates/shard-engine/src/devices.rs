//! Which backend computes on which device. The only place that names one.

use crate::{
    BackendChoice, EngineConfig, EngineError, backend::Backend, cpu::CpuBackend, device::DeviceBackend,
    hyper::HyperParameters, part::Part, source::TensorSource,
};

/// Loads a part of a model for the configured device.
pub(crate) fn load(
    source: &mut TensorSource,
    hyper: &HyperParameters,
    part: Part,
    config: &EngineConfig,
    on_progress: &mut dyn FnMut(u8),
) -> Result<Box<dyn Backend>, EngineError> {
    Ok(match config.device.backend(config.backend) {
        BackendChoice::Native => Box::new(CpuBackend::load(source, hyper, part, config, on_progress)?),
        BackendChoice::Candle => Box::new(DeviceBackend::load(source, hyper, part, config, on_progress)?),
    })
}
