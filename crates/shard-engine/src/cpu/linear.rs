//! A weight matrix as the chosen precision and device hold it.

use candle_core::{Device, Module, Tensor, quantized::QMatMul};
use swarm_types::Precision;

use crate::{
    EngineError,
    kernels::{f32::Packed, isa::Isa, threads::Threads},
    source::{MatrixShape, RawMatrix, TensorSource},
};

/// Rows that are dequantised at a time, so that loading needs little more memory than what is kept.
const ROWS_AT_ONCE: usize = 512;

/// Numbers of rows that are tried together: below, at and above the sizes of kernels' tiles, with and without a rest.
const PROBED: [usize; 8] = [2, 3, 4, 5, 8, 17, 33, 64];

/// How and where matrices are multiplied.
#[derive(Debug)]
pub(crate) struct Arithmetic {
    pub precision: Precision,
    pub device: Device,
    pub threads: Threads,
}

impl Arithmetic {
    /// What our own kernels run on.
    pub(crate) fn isa(&self) -> Isa {
        Isa::detect()
    }
}

/// `y = x · wᵀ (+ bias)`.
#[derive(Debug)]
pub(crate) struct Linear {
    weights: Weights,
    bias: Option<Vec<f32>>,
    shape: MatrixShape,
    bytes: usize,
}

#[derive(Debug)]
enum Weights {
    /// f32, our own products: exact on a CPU.
    Packed(Packed),
    /// candle's products: quantised, or f32 on another device.
    Foreign { product: QMatMul, together: bool },
}

impl Linear {
    /// Loads `name.weight`, and `name.bias` when there is one.
    pub(crate) fn load(
        source: &mut TensorSource,
        name: &str,
        shape: MatrixShape,
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        let weight = format!("{name}.weight");
        source.check(&weight, shape)?;
        let bias = source.opt_vector(&format!("{name}.bias"), shape.rows)?;
        let (weights, bytes) = match arithmetic.precision {
            Precision::Fast if source.is_quantized(&weight) => {
                let raw = source.raw(&weight, shape)?;
                let bytes = raw.byte_count();
                (quantized(raw, &arithmetic.device)?, bytes)
            }
            _ if arithmetic.device.is_cpu() => {
                let packed = pack(source, &weight, shape)?;
                let bytes = packed.byte_count();
                (Weights::Packed(packed), bytes)
            }
            _ => {
                let values = source.rows(&weight, shape, 0..shape.rows)?;
                let bytes = size_of_val(values.as_slice());
                let tensor = Tensor::from_vec(values, (shape.rows, shape.columns), &arithmetic.device)?;
                let product = QMatMul::Tensor(tensor);
                let together = keeps_bits(&product, shape, &arithmetic.device)?;
                (Weights::Foreign { product, together }, bytes)
            }
        };
        Ok(Self { weights, bias, shape, bytes })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        self.bytes
    }

    pub(crate) fn outputs(&self) -> usize {
        self.shape.rows
    }

    /// `x` is `[rows][inputs]`, the result `[rows][outputs]`.
    pub(crate) fn forward(&self, x: &[f32], arithmetic: &Arithmetic) -> candle_core::Result<Vec<f32>> {
        let inputs = self.shape.columns;
        let mut y = match &self.weights {
            Weights::Packed(packed) => packed.multiply(x, arithmetic.isa(), &arithmetic.threads),
            Weights::Foreign { product, together: true } => {
                product_of(product, x, inputs, &arithmetic.device)?
            }
            Weights::Foreign { product, together: false } => {
                let row = |row| product_of(product, row, inputs, &arithmetic.device);
                x.chunks_exact(inputs).map(row).collect::<candle_core::Result<Vec<_>>>()?.concat()
            }
        };
        if let Some(bias) = &self.bias {
            y.chunks_exact_mut(bias.len())
                .for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
        Ok(y)
    }
}

fn product_of(product: &QMatMul, x: &[f32], inputs: usize, device: &Device) -> candle_core::Result<Vec<f32>> {
    let x = Tensor::from_slice(x, (x.len() / inputs, inputs), device)?;
    product.forward(&x)?.flatten_all()?.to_vec1()
}

/// The matrix must be known to have this shape: room for all of it is made first.
fn pack(source: &mut TensorSource, name: &str, shape: MatrixShape) -> Result<Packed, EngineError> {
    let mut packed = Packed::zeros(shape.rows, shape.columns);
    for first in (0..shape.rows).step_by(ROWS_AT_ONCE) {
        let rows = source.rows(name, shape, first..(first + ROWS_AT_ONCE).min(shape.rows))?;
        packed.put(first, &rows);
    }
    Ok(packed)
}

/// A quantised matrix on its device.
fn quantized(raw: RawMatrix, device: &Device) -> candle_core::Result<Weights> {
    let shape = raw.shape();
    if !device.is_cpu() {
        let product = product(raw, device)?;
        let together = keeps_bits(&product, shape, device)?;
        return Ok(Weights::Foreign { product, together });
    }
    // On a CPU candle picks its kernels by the number of outputs modulo at most 16. So a few rows tell as much as all of
    // them, and the copies that it keeps of whatever was multiplied go with those rows.
    let probe = raw.first_rows(16 + shape.rows % 16);
    let shape = probe.shape();
    let together = keeps_bits(&product(probe, device)?, shape, device)?;
    Ok(Weights::Foreign { product: product(raw, device)?, together })
}

fn product(raw: RawMatrix, device: &Device) -> candle_core::Result<QMatMul> {
    // Not `from_qtensor`, which an environment variable turns into something else.
    Ok(QMatMul::QTensor(std::sync::Arc::new(raw.into_tensor(device)?)))
}

/// Whether a row gives the same bits when other rows are computed with it: candle and the libraries below it pick
/// another kernel for more rows with some types on some processors. Where it does not, rows are computed one at a time.
fn keeps_bits(product: &QMatMul, shape: MatrixShape, device: &Device) -> candle_core::Result<bool> {
    let row = |i: usize| (i % shape.columns * 37 % 101) as f32 / 50.0 - 1.0;
    let multiply = |rows: usize| {
        let x: Vec<f32> = (0..rows * shape.columns).map(row).collect();
        product_of(product, &x, shape.columns, device)
    };
    let alone = multiply(1)?;
    for rows in PROBED {
        if !multiply(rows)?.chunks_exact(shape.rows).all(|row| row == alone) {
            return Ok(false);
        }
    }
    Ok(true)
}
