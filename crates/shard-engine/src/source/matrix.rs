//! Weight matrices by where they lie: a tensor of their own, or some rows of a larger one.

use std::borrow::Cow;

use candle_core::{
    DType, Device, Tensor,
    quantized::{GgmlDType, QStorage, QTensor},
};

/// Rows (outputs) and columns (inputs) of a weight matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MatrixShape {
    pub rows: usize,
    pub columns: usize,
}

/// A matrix in the model's files.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    /// Of its tensor, without `.weight`.
    name: String,
    shape: MatrixShape,
    /// Which row of the tensor is its first, where all that lies in it counts as rows.
    first: usize,
    /// Shape of the tensor, innermost dimension first.
    tensor: Vec<usize>,
}

impl Matrix {
    /// All of a tensor. `name` is without `.weight`.
    pub(crate) fn whole(name: String, shape: MatrixShape) -> Self {
        Self { name, shape, first: 0, tensor: vec![shape.columns, shape.rows] }
    }

    /// Rows from `first` on of a tensor that has `all` of them.
    pub(crate) fn rows_of(name: String, shape: MatrixShape, first: usize, all: usize) -> Self {
        Self { name, shape, first, tensor: vec![shape.columns, all] }
    }

    /// Of that number in a tensor of `count` matrices, `[columns, rows, count]`.
    pub(crate) fn expert(name: String, shape: MatrixShape, number: usize, count: usize) -> Self {
        Self { name, shape, first: number * shape.rows, tensor: vec![shape.columns, shape.rows, count] }
    }

    /// The tensor's name.
    pub(crate) fn weight(&self) -> String {
        format!("{}.weight", self.name)
    }

    /// The bias, which what is only some rows of a matrix cannot have.
    pub(crate) fn bias(&self) -> Option<Bias> {
        let whole = self.tensor[1] == self.shape.rows;
        whole.then(|| Bias {
            name: format!("{}.bias", self.name),
            number: self.first / self.shape.rows,
            tensor: self.tensor[1..].to_vec(),
        })
    }

    pub(crate) fn shape(&self) -> MatrixShape {
        self.shape
    }

    pub(crate) fn first(&self) -> usize {
        self.first
    }

    pub(crate) fn tensor(&self) -> &[usize] {
        &self.tensor
    }
}

/// A matrix's bias in the model's files.
#[derive(Clone, Debug)]
pub(crate) struct Bias {
    /// Of its tensor.
    pub name: String,
    /// Which of those in the tensor it is.
    pub number: usize,
    /// Shape of the tensor, innermost dimension first: one bias, or one of each expert.
    pub tensor: Vec<usize>,
}

/// A matrix as the file stores it.
#[derive(Debug)]
pub(crate) struct RawMatrix {
    dtype: GgmlDType,
    shape: MatrixShape,
    bytes: Vec<u8>,
}

impl RawMatrix {
    pub(super) fn new(dtype: GgmlDType, shape: MatrixShape, bytes: Vec<u8>) -> Self {
        Self { dtype, shape, bytes }
    }

    /// `[rows, columns]` of the numbers that the file has, if it has numbers.
    pub(crate) fn into_numbers(self, device: &Device) -> candle_core::Result<Tensor> {
        let dtype = match self.dtype {
            GgmlDType::F32 => DType::F32,
            GgmlDType::F16 => DType::F16,
            GgmlDType::BF16 => DType::BF16,
            other => candle_core::bail!("{other:?} is no type of single numbers"),
        };
        Tensor::from_raw_buffer(&self.bytes, dtype, &[self.shape.rows, self.shape.columns], device)
    }

    /// `[rows, columns]` in the file's blocks.
    pub(crate) fn into_blocks(self, device: &Device) -> candle_core::Result<QTensor> {
        let storage = QStorage::from_data(Cow::Owned(self.bytes), device, self.dtype)?;
        QTensor::new(storage, (self.shape.rows, self.shape.columns))
    }
}
