//! Products that are not ours: candle's, quantised on any device or f32 on one that is no processor.

use std::sync::Arc;

use candle_core::{Device, Module, Result, Tensor, quantized::QMatMul};

use crate::source::{MatrixShape, RawMatrix};

/// Numbers of rows that are tried together: below, at and above the sizes of kernels' tiles, with and without a rest.
const PROBED: [usize; 8] = [2, 3, 4, 5, 8, 17, 33, 64];

/// A matrix that candle multiplies by, on its device.
#[derive(Debug)]
pub(crate) struct Foreign {
    product: QMatMul,
    device: Device,
    inputs: usize,
    /// A row gives the same bits when other rows are computed with it.
    together: bool,
}

impl Foreign {
    /// As it is stored.
    pub(crate) fn quantised(raw: RawMatrix, device: &Device) -> Result<Self> {
        let shape = raw.shape();
        if !device.is_cpu() {
            return Self::probed(product(raw, device)?, shape, device);
        }
        // On a CPU candle picks its kernels by the number of outputs modulo at most 16. So a few rows tell as much as
        // all of them, and the copies that it keeps of whatever was multiplied go with those rows.
        let probe = raw.first_rows(16 + shape.rows % 16);
        let probe_shape = probe.shape();
        let Self { together, .. } = Self::probed(product(probe, device)?, probe_shape, device)?;
        Ok(Self { product: product(raw, device)?, device: device.clone(), inputs: shape.columns, together })
    }

    /// In f32; `values` is `[rows][columns]`.
    pub(crate) fn plain(values: Vec<f32>, shape: MatrixShape, device: &Device) -> Result<Self> {
        let tensor = Tensor::from_vec(values, (shape.rows, shape.columns), device)?;
        Self::probed(QMatMul::Tensor(tensor), shape, device)
    }

    /// `x` is `[rows][inputs]`, the result `[rows][outputs]`.
    pub(crate) fn multiply(&self, x: &[f32]) -> Result<Vec<f32>> {
        if self.together {
            return self.product_of(x);
        }
        let rows = x.chunks_exact(self.inputs).map(|row| self.product_of(row));
        Ok(rows.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Tries out whether rows may be computed together: candle and the libraries below it pick another kernel for more
    /// rows with some types on some processors. Where bits differ, rows are computed one at a time.
    fn probed(product: QMatMul, shape: MatrixShape, device: &Device) -> Result<Self> {
        let mut tried = Self { product, device: device.clone(), inputs: shape.columns, together: true };
        let row = |i: usize| (i % shape.columns * 37 % 101) as f32 / 50.0 - 1.0;
        let multiply = |rows: usize| {
            let x: Vec<f32> = (0..rows * shape.columns).map(row).collect();
            tried.product_of(&x)
        };
        let alone = multiply(1)?;
        let mut together = true;
        for rows in PROBED {
            together = together && multiply(rows)?.chunks_exact(shape.rows).all(|row| row == alone);
        }
        tried.together = together;
        Ok(tried)
    }

    fn product_of(&self, x: &[f32]) -> Result<Vec<f32>> {
        let x = Tensor::from_slice(x, (x.len() / self.inputs, self.inputs), &self.device)?;
        self.product.forward(&x)?.flatten_all()?.to_vec1()
    }
}

fn product(raw: RawMatrix, device: &Device) -> Result<QMatMul> {
    // Not `from_qtensor`, which an environment variable turns into something else.
    Ok(QMatMul::QTensor(Arc::new(raw.into_tensor(device)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_product_is_the_sum_it_should_be_for_any_number_of_rows() {
        let shape = MatrixShape { rows: 3, columns: 2 };
        let weights = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let foreign = Foreign::plain(weights, shape, &Device::Cpu).expect("loaded");
        assert_eq!(foreign.multiply(&[1.0, 10.0]).expect("computed"), [21.0, 43.0, 65.0]);
        let two = foreign.multiply(&[1.0, 10.0, -1.0, 0.5]).expect("computed");
        assert_eq!(two, [21.0, 43.0, 65.0, 0.0, -1.0, -2.0]);
    }
}
