//! Reads single tensors of a model's files, and not a byte of any other.

mod matrix;

use std::{
    borrow::Cow,
    fs::File,
    io,
    ops::Range,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use candle_core::{
    Device,
    quantized::{GgmlDType, QStorage, QTensor},
};
use gguf::{Dtype, GgufError, Header, ModelFile, TensorInfo};

use self::matrix::Bias;
pub(crate) use self::matrix::{Matrix, MatrixShape, RawMatrix};
use crate::{
    EngineError,
    kernels::{arena::Arena, isa::Isa, packed::Packed, threads::Threads},
};

/// A model's files and their header.
pub(crate) struct TensorSource {
    header: Header,
    files: Vec<File>,
    path: String,
    /// Bytes of tensors read so far.
    read: u64,
    /// What pieces were read into, for the next: to get new memory from the system takes as long as to read into it.
    spare: Mutex<Vec<Vec<u8>>>,
    /// Where matrices are packed to.
    arena: Arena,
}

impl TensorSource {
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let name = path.display().to_string();
        let failed = |reason: String| EngineError::Model { path: name.clone(), reason };
        let header = Header::read_without_arrays(path).map_err(|error| failed(error.to_string()))?;
        let open = |file: &ModelFile| File::open(&file.path);
        let files = header.files.iter().map(open).collect::<Result<_, _>>();
        let files = files.map_err(|error| failed(error.to_string()))?;
        Ok(Self { header, files, path: name, read: 0, spare: Mutex::default(), arena: Arena::default() })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of tensors read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.read
    }

    /// An error about this file.
    pub(crate) fn failed(&self, reason: impl ToString) -> EngineError {
        EngineError::Model { path: self.path.clone(), reason: reason.to_string() }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }

    /// How a matrix is stored. Fails unless it is there in this shape, so that nothing is set aside for one that is
    /// not.
    pub(crate) fn dtype(&self, matrix: &Matrix) -> Result<Dtype, EngineError> {
        self.part(matrix).map(|info| info.dtype)
    }

    /// Where a matrix lies, with its own bytes alone.
    fn part(&self, matrix: &Matrix) -> Result<TensorInfo, EngineError> {
        let info = self.info(&matrix.weight(), matrix.tensor())?;
        let all: usize = matrix.tensor()[1..].iter().product();
        let row = info.bytes / all as u64;
        let (offset, bytes) = (info.offset + row * matrix.first() as u64, row * matrix.shape().rows as u64);
        Ok(TensorInfo { offset, bytes, ..info })
    }

    /// A tensor's place, if it has this shape, innermost dimension first.
    fn info(&self, name: &str, shape: &[usize]) -> Result<TensorInfo, EngineError> {
        let missing = || self.failed(GgufError::NoTensor(name.into()));
        let info = self.header.tensors.get(name).ok_or_else(missing)?;
        if !info.has_shape(shape) {
            return Err(self.failed(format!("tensor {name} has shape {:?}, expected {shape:?}", info.shape)));
        }
        Ok(info.clone())
    }

    /// The bytes of a tensor, or of a part of one.
    fn bytes(&mut self, name: &str, of: &TensorInfo) -> Result<Vec<u8>, EngineError> {
        let mut bytes = vec![0; of.bytes as usize];
        read_at(&self.files[of.file], &mut bytes, of.offset)
            .map_err(|error| self.failed(format!("reading tensor {name}: {error}")))?;
        self.read += bytes.len() as u64;
        Ok(bytes)
    }

    /// A matrix as f32, `[rows][columns]`.
    pub(crate) fn numbers(
        &mut self,
        matrix: &Matrix,
        threads: &Threads,
        isa: Isa,
    ) -> Result<Vec<f32>, EngineError> {
        let (name, info) = (matrix.weight(), self.part(matrix)?);
        let MatrixShape { rows, columns } = matrix.shape();
        if ggml_type(info.dtype).is_some() {
            let bytes = self.bytes(&name, &info)?;
            return self.dequantize(bytes, &name, info.dtype, rows * columns);
        }
        // What candle does not read, our panels do.
        let packed = self.packed(matrix, info.dtype, threads)?;
        let mut numbers = vec![0.0; rows * columns];
        let each = numbers.chunks_exact_mut(columns).enumerate();
        each.for_each(|(row, numbers)| packed.row(row, isa, numbers));
        Ok(numbers)
    }

    /// A vector as f32; its numbers must be finite.
    pub(crate) fn vector(&mut self, name: &str, size: usize) -> Result<Vec<f32>, EngineError> {
        self.vectors(name, &[size])
    }

    /// All vectors of a tensor of this shape, one behind the other; their numbers must be finite.
    pub(crate) fn vectors(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EngineError> {
        let info = self.info(name, shape)?;
        self.finite(name, &info, shape.iter().product())
    }

    /// A matrix's bias, if it has one.
    pub(crate) fn bias(&mut self, matrix: &Matrix) -> Result<Option<Vec<f32>>, EngineError> {
        let Some(Bias { name, number, tensor }) = matrix.bias().filter(|bias| self.has(&bias.name)) else {
            return Ok(None);
        };
        let info = self.info(&name, &tensor)?;
        let (size, all) = (tensor[0], tensor.iter().product::<usize>());
        let bytes = info.bytes / (all / size) as u64;
        let own = TensorInfo { offset: info.offset + bytes * number as u64, bytes, ..info };
        self.finite(&name, &own, size).map(Some)
    }

    /// The numbers of a tensor, or of a part of one; they must be finite.
    fn finite(&mut self, name: &str, of: &TensorInfo, size: usize) -> Result<Vec<f32>, EngineError> {
        let bytes = self.bytes(name, of)?;
        let numbers = self.dequantize(bytes, name, of.dtype, size)?;
        match numbers.iter().position(|number| !number.is_finite()) {
            Some(place) => Err(self.failed(format!("number {place} of tensor {name} is not finite"))),
            None => Ok(numbers),
        }
    }

    /// A vector that not every model has.
    pub(crate) fn opt_vector(&mut self, name: &str, size: usize) -> Result<Option<Vec<f32>>, EngineError> {
        if self.has(name) { self.vector(name, size).map(Some) } else { Ok(None) }
    }

    /// A matrix as it is stored.
    pub(crate) fn raw(&mut self, matrix: &Matrix) -> Result<RawMatrix, EngineError> {
        let (name, info) = (matrix.weight(), self.part(matrix)?);
        let bytes = self.bytes(&name, &info)?;
        Ok(RawMatrix::new(self.ggml_type(&name, info.dtype)?, matrix.shape(), bytes))
    }

    /// A matrix in panels, as this type: that of the file, or f32. Its panels are read and packed on all threads, in
    /// pieces that stay in the caches.
    pub(crate) fn packed(
        &mut self,
        matrix: &Matrix,
        dtype: Dtype,
        threads: &Threads,
    ) -> Result<Packed, EngineError> {
        let (name, shape, info) = (&matrix.weight(), matrix.shape(), self.part(matrix)?);
        let no_layout = || self.failed(format!("tensor {name} has no layout in memory"));
        let room = Packed::zeros(dtype, shape.rows, shape.columns, &self.arena);
        let mut packed = room
            .map_err(|error| self.failed(format!("room for tensor {name}: {error}")))?
            .ok_or_else(no_layout)?;
        let row_bytes = info.bytes / shape.rows as u64;
        let (file, start) = (&self.files[info.file], info.offset);
        let read = |rows: Range<usize>, pack: &mut dyn FnMut(&[u8])| -> Result<(), EngineError> {
            let mut bytes = self.spare().pop().unwrap_or_default();
            bytes.resize(rows.len() * row_bytes as usize, 0);
            read_at(file, &mut bytes, start + rows.start as u64 * row_bytes)
                .map_err(|error| self.failed(format!("reading tensor {name}: {error}")))?;
            if dtype == info.dtype {
                pack(&bytes);
                self.spare().push(bytes);
                return Ok(());
            }
            let numbers = self.dequantize(bytes, name, info.dtype, rows.len() * shape.columns)?;
            pack(&numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>());
            Ok(())
        };
        packed.fill(threads, read)?;
        self.read += info.bytes;
        Ok(packed)
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dequantize(
        &self,
        bytes: Vec<u8>,
        name: &str,
        dtype: Dtype,
        numbers: usize,
    ) -> Result<Vec<f32>, EngineError> {
        Ok(dequantize(bytes, self.ggml_type(name, dtype)?, numbers)?)
    }

    fn ggml_type(&self, name: &str, dtype: Dtype) -> Result<GgmlDType, EngineError> {
        ggml_type(dtype).ok_or_else(|| self.failed(format!("tensor {name}: candle does not know {dtype:?}")))
    }
}

fn dequantize(bytes: Vec<u8>, dtype: GgmlDType, numbers: usize) -> candle_core::Result<Vec<f32>> {
    let storage = QStorage::from_data(Cow::Owned(bytes), &Device::Cpu, dtype)?;
    QTensor::new(storage, numbers)?.dequantize(&Device::Cpu)?.to_vec1()
}

/// Fills `bytes` from this place of the file on.
fn read_at(file: &File, bytes: &mut [u8], place: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, bytes, place);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            let place = place + done as u64;
            match std::os::windows::fs::FileExt::seek_read(file, &mut bytes[done..], place)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }
}

/// candle's name of a type, if it has one.
fn ggml_type(dtype: Dtype) -> Option<GgmlDType> {
    Some(match dtype {
        Dtype::F32 => GgmlDType::F32,
        Dtype::F16 => GgmlDType::F16,
        Dtype::BF16 => GgmlDType::BF16,
        Dtype::Q4_0 => GgmlDType::Q4_0,
        Dtype::Q4_1 => GgmlDType::Q4_1,
        Dtype::Q5_0 => GgmlDType::Q5_0,
        Dtype::Q5_1 => GgmlDType::Q5_1,
        Dtype::Q8_0 => GgmlDType::Q8_0,
        Dtype::Q8_1 => GgmlDType::Q8_1,
        Dtype::Q2K => GgmlDType::Q2K,
        Dtype::Q3K => GgmlDType::Q3K,
        Dtype::Q4K => GgmlDType::Q4K,
        Dtype::Q5K => GgmlDType::Q5K,
        Dtype::Q6K => GgmlDType::Q6K,
        Dtype::Q8K => GgmlDType::Q8K,
        Dtype::Iq4Nl | Dtype::Iq4Xs | Dtype::Mxfp4 => return None,
    })
}
