//! How weights are held. Nothing but this page goes from backend and device to it.
//!
//! The precision is a word that all hops of a route agree on: it says which arithmetic gives the answers. How a worker
//! holds its weights for that arithmetic is its own business.

use gguf::{Dtype, TensorInfo};
use swarm_types::Precision;

use crate::{BackendChoice, DeviceChoice, kernels::packed::Packed};

/// How a matrix is held, and so what multiplies it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Storage {
    /// In panels as this type: our own products.
    Packed(Dtype),
    /// f32 on the device: candle's products.
    Tensor,
    /// As in the file, on the device: candle's quantised products.
    Quantised,
}

impl Storage {
    /// For a matrix that the file stores as `dtype`.
    pub(crate) fn of(
        precision: Precision,
        dtype: Dtype,
        backend: BackendChoice,
        device: DeviceChoice,
    ) -> Self {
        let plain = matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
        match (backend, device, precision) {
            (BackendChoice::Native, DeviceChoice::Cpu, _) => Self::Packed(packed_as(dtype)),
            (_, _, Precision::Standard) if !plain => Self::Quantised,
            _ => Self::Tensor,
        }
    }

    /// Bytes that a matrix takes.
    fn bytes(self, tensor: &TensorInfo) -> u64 {
        let elements: u64 = tensor.shape.iter().product();
        match self {
            Self::Packed(dtype) => {
                // Behind the second dimension, a number of matrices that are held each by itself.
                let size = |dimension: usize| tensor.shape.get(dimension).copied().unwrap_or(1);
                let one = Packed::bytes_of(dtype, size(1), size(0)).unwrap_or(tensor.bytes);
                one.saturating_mul(tensor.shape.iter().skip(2).product())
            }
            Self::Tensor => elements * size_of::<f32>() as u64,
            Self::Quantised => tensor.bytes,
        }
    }
}

/// Types that no model's weights are stored as have no panels of their own.
pub(crate) fn packed_as(dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::Q8_1 | Dtype::Q8K => Dtype::F32,
        dtype => dtype,
    }
}

/// Bytes that a tensor's weights will take on a processor, by the header alone.
pub(crate) fn tensor_weight_bytes(tensor: &TensorInfo, precision: Precision) -> u64 {
    match tensor.shape.len() {
        // Vectors are kept as f32.
        1 => tensor.shape[0] * size_of::<f32>() as u64,
        _ => Storage::of(precision, tensor.dtype, BackendChoice::Native, DeviceChoice::Cpu).bytes(tensor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_candle_multiplies_is_held_in_another_way_than_the_file_has_it() {
        let native =
            |precision, dtype| Storage::of(precision, dtype, BackendChoice::Native, DeviceChoice::Cpu);
        for dtype in [Dtype::Q4_1, Dtype::Q6K, Dtype::F32, Dtype::BF16] {
            assert_eq!(native(Precision::Exact, dtype), Storage::Packed(dtype));
            assert_eq!(native(Precision::Standard, dtype), Storage::Packed(dtype));
        }
        assert_eq!(native(Precision::Standard, Dtype::Q8K), Storage::Packed(Dtype::F32));
        for (backend, device) in
            [(BackendChoice::Candle, DeviceChoice::Cpu), (BackendChoice::Native, DeviceChoice::Cuda(0))]
        {
            let candle = |precision, dtype| Storage::of(precision, dtype, backend, device);
            assert_eq!(candle(Precision::Standard, Dtype::Q4_1), Storage::Quantised);
            assert_eq!(candle(Precision::Standard, Dtype::F16), Storage::Tensor);
            assert_eq!(candle(Precision::Exact, Dtype::Q4_1), Storage::Tensor);
        }
    }
}
