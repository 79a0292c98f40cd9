//! A weight matrix on a device.

use candle_core::{DType, Device, Result, Tensor, quantized::QTensor};

use super::place::{Loading, Place};
use crate::{
    EngineError,
    source::{Matrix, TensorSource},
    storage::OnDevice,
};

/// `y = x · wᵀ (+ bias)`, with activations of f32 whatever the weights are.
#[derive(Debug)]
pub(crate) struct Linear {
    weights: Weights,
    /// `[outputs]`.
    bias: Option<Tensor>,
    inputs: usize,
    device: Device,
    /// Rows that are multiplied together.
    tile: usize,
}

/// `[outputs, inputs]`.
#[derive(Debug)]
enum Weights {
    /// f32, f16 or bf16.
    Numbers(Tensor),
    /// As the file has them.
    Quantised(QTensor),
}

impl Linear {
    /// Loads a matrix, and its bias when there is one.
    pub(crate) fn load(
        source: &mut TensorSource,
        matrix: &Matrix,
        loading: &Loading,
    ) -> std::result::Result<Self, EngineError> {
        let (dtype, shape) = (source.dtype(matrix)?, matrix.shape());
        let Place { device, tile, .. } = &loading.place;
        let bias = source.bias(matrix)?.map(|bias| Tensor::new(bias, device)).transpose()?;
        let weights = match OnDevice::of(loading.precision, dtype) {
            OnDevice::Single => {
                let numbers = source.numbers(matrix, &loading.threads, loading.isa)?;
                Weights::Numbers(Tensor::from_vec(numbers, (shape.rows, shape.columns), device)?)
            }
            OnDevice::Half => Weights::Numbers(source.raw(matrix)?.into_numbers(device)?),
            OnDevice::Quantised => Weights::Quantised(source.raw(matrix)?.into_blocks(device)?),
        };
        Ok(Self::new(weights, bias, shape.columns, device, *tile)?)
    }

    fn new(
        weights: Weights,
        bias: Option<Tensor>,
        inputs: usize,
        device: &Device,
        tile: usize,
    ) -> Result<Self> {
        let mut linear = Self { weights, bias, inputs, device: device.clone(), tile };
        if !linear.treats_rows_alike()? {
            linear.tile = 1;
        }
        Ok(linear)
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        match &self.weights {
            Weights::Numbers(numbers) => numbers.elem_count() * numbers.dtype().size_in_bytes(),
            Weights::Quantised(blocks) => blocks.storage_size_in_bytes(),
        }
    }

    /// `x` is `[rows, inputs]`, the result `[rows, outputs]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.alone(x)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// The product without the bias.
    fn alone(&self, x: &Tensor) -> Result<Tensor> {
        let rows = x.dim(0)?;
        let x = x.pad_with_zeros(0, 0, rows.next_multiple_of(self.tile) - rows)?;
        let weights = self.multiplier()?;
        let tile = |first| {
            let x = x.narrow(0, first, self.tile)?;
            match &weights {
                Multiplier::Numbers(weights) => x.matmul(weights),
                Multiplier::Quantised(blocks) => x.apply_op1_no_bwd(*blocks),
            }
        };
        let tiles = (0..rows).step_by(self.tile).map(tile).collect::<Result<Vec<_>>>()?;
        let y = if let [y] = tiles.as_slice() { y.clone() } else { Tensor::cat(&tiles, 0)? };
        y.narrow(0, 0, rows)?.contiguous()
    }

    /// Made for one product. Blocks become f32, because where candle multiplies by them it rounds activations to eight
    /// bits, which changes answers; on Metal alone it does not, and has no other way to make them numbers there.
    fn multiplier(&self) -> Result<Multiplier<'_>> {
        let numbers = match &self.weights {
            Weights::Numbers(numbers) => numbers.to_dtype(DType::F32)?,
            Weights::Quantised(blocks) if self.device.is_metal() => {
                return Ok(Multiplier::Quantised(blocks));
            }
            Weights::Quantised(blocks) => blocks.dequantize(&self.device)?,
        };
        Ok(Multiplier::Numbers(numbers.t()?))
    }

    /// Tries out whether a row's result depends on its place in a tile.
    fn treats_rows_alike(&self) -> Result<bool> {
        let row: Vec<f32> = (0..self.inputs).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let rows = Tensor::from_vec(row.repeat(self.tile), (self.tile, self.inputs), &self.device)?;
        let y = self.alone(&rows)?;
        let largest = y.broadcast_sub(&y.narrow(0, 0, 1)?)?.abs()?.max_all()?;
        Ok(largest.to_scalar::<f32>()? == 0.0)
    }
}

/// Weights as one product needs them.
enum Multiplier<'a> {
    /// f32 `[inputs, outputs]`.
    Numbers(Tensor),
    Quantised(&'a QTensor),
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::GgmlDType;

    use super::*;
    use crate::bench::numbers;

    const INPUTS: usize = 64;
    const OUTPUTS: usize = 35;

    fn linear(weights: Weights, tile: usize) -> Linear {
        Linear::new(weights, None, INPUTS, &Device::Cpu, tile).expect("loaded")
    }

    fn tensor(rows: usize, columns: usize) -> Tensor {
        Tensor::from_vec(numbers(rows * columns), (rows, columns), &Device::Cpu).expect("as many numbers")
    }

    fn bits(y: &Tensor) -> Vec<u32> {
        let y: Vec<f32> = y.flatten_all().and_then(|y| y.to_vec1()).expect("on the host");
        y.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn a_product_is_the_sum_it_should_be_for_any_number_of_rows_with_a_bias_and_without() {
        let two = Device::Cpu;
        let weights = Tensor::new(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]], &two).expect("a tensor");
        let bias = Tensor::new(&[0.5f32, 0.0, -1.0], &two).expect("a tensor");
        for tile in [1, 2, 4] {
            let new =
                |bias| Linear::new(Weights::Numbers(weights.clone()), bias, 2, &two, tile).expect("new");
            let x = Tensor::new(&[[1f32, 10.0], [-1.0, 0.5], [0.0, 1.0]], &two).expect("a tensor");
            let plain = new(None).forward(&x).and_then(|y| y.to_vec2::<f32>()).expect("computed");
            assert_eq!(plain, [[21.0, 43.0, 65.0], [0.0, -1.0, -2.0], [2.0, 4.0, 6.0]]);
            let y = new(Some(bias.clone())).forward(&x).and_then(|y| y.to_vec2::<f32>()).expect("computed");
            assert_eq!(y[0], [21.5, 43.0, 64.0]);
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_in_any_company_and_quantised_weights_those_of_their_numbers() {
        let (weights, x) = (tensor(OUTPUTS, INPUTS), tensor(11, INPUTS));
        let blocks = || QTensor::quantize(&weights, GgmlDType::Q4_1).expect("quantised");
        let dequantised = blocks().dequantize(&Device::Cpu).expect("numbers");
        for tile in [1, 4, 16] {
            let linear_of_blocks = linear(Weights::Quantised(blocks()), tile);
            let all = bits(&linear_of_blocks.forward(&x).expect("computed"));
            let of_numbers = linear(Weights::Numbers(dequantised.clone()), tile);
            assert_eq!(bits(&of_numbers.forward(&x).expect("computed")), all);
            for rows in [1, 2, 5] {
                let some = x.narrow(0, 3, rows).and_then(|x| linear_of_blocks.forward(&x)).expect("computed");
                assert_eq!(bits(&some), all[3 * OUTPUTS..(3 + rows) * OUTPUTS], "{rows} rows by {tile}");
            }
        }
    }

    #[test]
    fn weights_take_the_memory_of_what_they_are_held_as() {
        let weights = tensor(OUTPUTS, INPUTS);
        let half = weights.to_dtype(DType::F16).expect("rounded");
        let blocks = QTensor::quantize(&weights, GgmlDType::Q8_0).expect("quantised");
        let bytes = |weights| linear(weights, 4).byte_count();
        assert_eq!(bytes(Weights::Numbers(half)), OUTPUTS * INPUTS * 2);
        assert_eq!(bytes(Weights::Numbers(weights)), OUTPUTS * INPUTS * 4);
        assert_eq!(bytes(Weights::Quantised(blocks)), OUTPUTS * INPUTS / 32 * 34);
    }
}
