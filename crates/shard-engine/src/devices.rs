//! Which backend computes on which device. The only place that names one.

use crate::{
    DeviceChoice, EngineConfig, EngineError, backend::Backend, cpu::CpuBackend, hyper::HyperParameters,
    part::Part, source::TensorSource,
};

/// Loads a part of a model for the configured device.
pub(crate) fn load(
    source: &mut TensorSource,
    hyper: &HyperParameters,
    part: Part,
    config: &EngineConfig,
    on_progress: &mut dyn FnMut(u8),
) -> Result<Box<dyn Backend>, EngineError> {
    match config.device {
        // Off the processor only products are computed on the device.
        DeviceChoice::Cpu | DeviceChoice::Cuda(_) | DeviceChoice::Metal(_) => {
            Ok(Box::new(CpuBackend::load(source, hyper, part, config, on_progress)?))
        }
    }
}
