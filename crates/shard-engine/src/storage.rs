//! How weights are held. Nothing but this page goes from precision and backend to it.
//!
//! The precision is a word that all hops of a route agree on: it says which arithmetic gives the answers. How a worker
//! holds its weights for that arithmetic is its own business. A device computes by one rule in both: products of f32.

use gguf::{Dtype, TensorInfo};
use swarm_types::Precision;

use crate::{BackendChoice, kernels::packed::Packed};

/// How a device holds a matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnDevice {
    /// As f32.
    Single,
    /// As the f16 or bf16 that the file has.
    Half,
    /// In the file's blocks.
    Quantised,
}

impl OnDevice {
    /// For a matrix that the file stores as `dtype`. Exact products do not make their numbers again each time.
    pub(crate) fn of(precision: Precision, dtype: Dtype) -> Self {
        match (precision, dtype) {
            (Precision::Exact, _) => Self::Single,
            (Precision::Standard, Dtype::F16 | Dtype::BF16) => Self::Half,
            (Precision::Standard, dtype) if is_known_to_devices(dtype) => Self::Quantised,
            (Precision::Standard, _) => Self::Single,
        }
    }

    /// Bytes that a matrix takes.
    fn bytes(self, tensor: &TensorInfo) -> u64 {
        match self {
            Self::Single => elements(tensor) * size_of::<f32>() as u64,
            Self::Half | Self::Quantised => tensor.bytes,
        }
    }
}

/// candle has a kernel that makes numbers of such blocks on a device.
fn is_known_to_devices(dtype: Dtype) -> bool {
    use Dtype::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    matches!(dtype, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q2K | Q3K | Q4K | Q5K | Q6K)
}

fn elements(tensor: &TensorInfo) -> u64 {
    tensor.shape.iter().product()
}

/// Types that no model's weights are stored as have no panels of their own.
pub(crate) fn packed_as(dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::Q8_1 | Dtype::Q8K => Dtype::F32,
        dtype => dtype,
    }
}

/// Bytes that a tensor's weights will take, by the header alone.
pub(crate) fn tensor_weight_bytes(tensor: &TensorInfo, precision: Precision, backend: BackendChoice) -> u64 {
    match (tensor.shape.len(), backend) {
        // Vectors are kept as f32.
        (1, _) => tensor.shape[0] * size_of::<f32>() as u64,
        (_, BackendChoice::Native) => packed_bytes(tensor),
        (_, BackendChoice::Candle) => OnDevice::of(precision, tensor.dtype).bytes(tensor),
    }
}

/// Bytes that a matrix takes in panels.
pub(crate) fn packed_bytes(tensor: &TensorInfo) -> u64 {
    // Behind the second dimension, a number of matrices that are held each by itself.
    let size = |dimension: usize| tensor.shape.get(dimension).copied().unwrap_or(1);
    let one = Packed::bytes_of(packed_as(tensor.dtype), size(1), size(0)).unwrap_or(tensor.bytes);
    one.saturating_mul(tensor.shape.iter().skip(2).product())
}

/// Bytes of the numbers that are made of a matrix's blocks for one product.
pub(crate) fn unpacked_bytes(tensor: &TensorInfo, precision: Precision) -> u64 {
    match OnDevice::of(precision, tensor.dtype) {
        OnDevice::Single => 0,
        // Of a number of matrices one at a time.
        OnDevice::Half | OnDevice::Quantised => {
            OnDevice::Single.bytes(tensor) / tensor.shape.iter().skip(2).product::<u64>().max(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_holds_what_the_file_has_unless_products_are_exact_or_it_does_not_know_the_type() {
        let held = |dtype| OnDevice::of(Precision::Standard, dtype);
        assert_eq!(held(Dtype::Q4_1), OnDevice::Quantised);
        assert_eq!(held(Dtype::BF16), OnDevice::Half);
        for dtype in [Dtype::F32, Dtype::Q8_1, Dtype::Iq4Nl, Dtype::Mxfp4] {
            assert_eq!(held(dtype), OnDevice::Single, "{dtype:?}");
        }
        for dtype in [Dtype::Q4_1, Dtype::F16, Dtype::F32] {
            assert_eq!(OnDevice::of(Precision::Exact, dtype), OnDevice::Single, "{dtype:?}");
        }
    }

    #[test]
    fn bytes_are_those_of_what_is_held_and_numbers_are_made_of_one_matrix_at_a_time() {
        let tensor = |shape: &[u64], dtype, bytes| TensorInfo {
            shape: shape.to_vec(),
            dtype,
            bytes,
            offset: 0,
            file: 0,
        };
        let experts = tensor(&[64, 32, 6], Dtype::Q8_0, 64 * 32 * 6 / 32 * 34);
        let bytes = |precision| tensor_weight_bytes(&experts, precision, BackendChoice::Candle);
        assert_eq!((bytes(Precision::Standard), bytes(Precision::Exact)), (experts.bytes, 64 * 32 * 6 * 4));
        assert_eq!(unpacked_bytes(&experts, Precision::Standard), 64 * 32 * 4);
        assert_eq!(unpacked_bytes(&experts, Precision::Exact), 0);
    }
}
