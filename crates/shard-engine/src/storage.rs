//! How weights are held. Nothing but this page goes from a precision to it.
//!
//! The precision is a word that all hops of a route agree on: it says which arithmetic gives the answers. How a worker
//! holds its weights for that arithmetic is its own business.

use candle_core::Device;
use gguf::{Dtype, Header};
use swarm_types::Precision;

/// How a matrix is held, and so what multiplies it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Storage {
    /// f32 in panels, in memory: our own products.
    Panels,
    /// f32 on the device: candle's products.
    Tensor,
    /// As in the file, on the device: candle's quantised products.
    Quantised,
}

impl Storage {
    /// For a matrix that the file stores as `dtype`.
    pub(crate) fn of(precision: Precision, dtype: Dtype, device: &Device) -> Self {
        let plain = matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
        match precision {
            Precision::Fast if !plain => Self::Quantised,
            Precision::Exact | Precision::Fast if device.is_cpu() => Self::Panels,
            Precision::Exact | Precision::Fast => Self::Tensor,
        }
    }

    /// Bytes that `elements` weights take when the file has them in `file_bytes`.
    fn bytes(self, elements: u64, file_bytes: u64) -> u64 {
        match self {
            Self::Panels | Self::Tensor => elements * size_of::<f32>() as u64,
            Self::Quantised => file_bytes,
        }
    }
}

/// About how many bytes a whole model's weights will take on a processor, by the header alone.
#[must_use]
pub fn estimated_weight_bytes(header: &Header, precision: Precision) -> u64 {
    let bytes = |tensor: &gguf::TensorInfo| {
        let elements = tensor.shape.iter().product();
        Storage::of(precision, tensor.dtype, &Device::Cpu).bytes(elements, tensor.bytes)
    };
    header.tensors.values().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_precision_fast_keeps_weights_quantised_and_only_if_the_file_has_them_so() {
        let of = |precision, dtype| Storage::of(precision, dtype, &Device::Cpu);
        assert_eq!(of(Precision::Exact, Dtype::Q4_1), Storage::Panels);
        assert_eq!(of(Precision::Fast, Dtype::Q4_1), Storage::Quantised);
        for plain in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            assert_eq!(of(Precision::Exact, plain), Storage::Panels);
            assert_eq!(of(Precision::Fast, plain), Storage::Panels);
        }
    }
}
