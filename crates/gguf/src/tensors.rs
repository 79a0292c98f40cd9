//! What a header says of tensors.

use std::{collections::BTreeMap, io::Read};

use crate::{Dtype, GgufError, reader::Reader};

/// Tensors of real models: some thousands.
pub(crate) const MOST: u64 = 1 << 16;
/// Dimensions of a ggml tensor.
const MAX_DIMENSIONS: u32 = 4;

/// A tensor's form and place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// How it is stored.
    pub dtype: Dtype,
    /// Innermost dimension first; ones that the file has behind the others are left off.
    pub shape: Vec<u64>,
    /// In which of the model's files, from 0.
    pub file: usize,
    /// Where in that file its bytes begin.
    pub offset: u64,
    /// How many bytes it takes.
    pub bytes: u64,
}

impl TensorInfo {
    /// Whether it has this shape, innermost dimension first. Ones behind the others do not count.
    #[must_use]
    pub fn has_shape(&self, shape: &[usize]) -> bool {
        self.shape.iter().copied().eq(without_last_ones(shape).iter().map(|size| *size as u64))
    }
}

/// A shape without ones behind the others; one dimension stays.
fn without_last_ones<T: PartialEq + From<u8>>(shape: &[T]) -> &[T] {
    let last = shape.iter().rposition(|size| *size != T::from(1)).unwrap_or(0);
    &shape[..shape.len().min(last + 1)]
}

/// Reads so many. Where they lie counts from where the tensors begin, until they are placed.
pub(crate) fn read<R: Read>(
    reader: &mut Reader<R>,
    count: u64,
) -> Result<BTreeMap<String, TensorInfo>, GgufError> {
    let mut tensors = BTreeMap::new();
    for _ in 0..count {
        let name = reader.string("a tensor's name")?;
        let tensor = read_tensor(reader, &name)?;
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(GgufError::Damaged(format!("tensor {name} is there twice")));
        }
    }
    Ok(tensors)
}

fn read_tensor<R: Read>(reader: &mut Reader<R>, name: &str) -> Result<TensorInfo, GgufError> {
    let damaged = |what: String| GgufError::Damaged(format!("tensor {name} {what}"));
    let dimensions = reader.u32(name)?;
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        return Err(damaged(format!("has {dimensions} dimensions")));
    }
    let shape = (0..dimensions).map(|_| reader.u64(name)).collect::<Result<Vec<_>, _>>()?;
    let number = reader.u32(name)?;
    let unknown = || GgufError::Stored { tensor: name.into(), dtype: Dtype::unknown(number) };
    let dtype = Dtype::from_number(number).ok_or_else(unknown)?;
    let offset = reader.u64(name)?;
    let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let elements = elements.filter(|n| *n > 0).ok_or_else(|| damaged(format!("has shape {shape:?}")))?;
    let (block, block_bytes) = dtype.block();
    if shape[0] % block != 0 {
        return Err(damaged(format!("has rows of {} numbers, not whole blocks of {block}", shape[0])));
    }
    let bytes = (elements / block).checked_mul(block_bytes).ok_or_else(|| damaged("is too large".into()))?;
    Ok(TensorInfo { dtype, shape: without_last_ones(&shape).to_vec(), file: 0, offset, bytes })
}

/// Says where in the file they lie. Every tensor must lie aligned inside it and over no other.
pub(crate) fn place(
    tensors: &mut BTreeMap<String, TensorInfo>,
    data_offset: u64,
    file_len: u64,
    alignment: u64,
) -> Result<(), GgufError> {
    let mut places: Vec<_> =
        tensors.iter().map(|(name, tensor)| (tensor.offset, tensor.bytes, name)).collect();
    places.sort_unstable();
    let mut free_from = 0;
    for (offset, bytes, name) in places {
        if offset % alignment != 0 {
            return Err(GgufError::Damaged(format!("tensor {name} is not aligned to {alignment} bytes")));
        }
        if offset < free_from {
            return Err(GgufError::Damaged(format!("tensor {name} lies over another")));
        }
        let past = || GgufError::Damaged(format!("tensor {name} ends past all files"));
        free_from = offset.checked_add(bytes).ok_or_else(past)?;
        let end = data_offset.checked_add(free_from).ok_or_else(past)?;
        if end > file_len {
            let what = format!("the bytes of tensor {name}");
            return Err(GgufError::Truncated { what, missing: end - file_len });
        }
    }
    // They end inside the file, so no sum is too large.
    tensors.values_mut().for_each(|tensor| tensor.offset += data_offset);
    Ok(())
}
