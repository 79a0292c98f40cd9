//! The header as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use crate::{Array, Dtype, GgufError, Value, reader::Reader};

/// Metadata entries of real files: some dozens.
const MAX_METADATA: u64 = 4096;
/// Tensors of real files: some thousands.
const MAX_TENSORS: u64 = 1 << 16;
/// Dimensions of a ggml tensor.
const MAX_DIMENSIONS: u32 = 4;
/// The key that says where tensors are aligned to.
const ALIGNMENT: &str = "general.alignment";
/// Where tensors are aligned to when the file does not say.
const DEFAULT_ALIGNMENT: u64 = 32;

/// What a GGUF file says before its tensors' bytes.
#[derive(Clone, Debug)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// All metadata; without its arrays after [`Header::read_without_arrays`].
    pub metadata: BTreeMap<String, Value>,
    /// Where each tensor lies.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Where the tensors' bytes begin in the file.
    pub data_offset: u64,
    /// Bytes of the whole file.
    pub file_len: u64,
    /// Keys of the arrays that were read over, so that none of them passes for a key that is not there.
    forgotten: BTreeSet<String>,
}

/// A tensor's form and place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// How it is stored.
    pub dtype: Dtype,
    /// Innermost dimension first, as in the file.
    pub shape: Vec<u64>,
    /// From [`Header::data_offset`].
    pub offset: u64,
    /// How many bytes it takes.
    pub bytes: u64,
}

impl Header {
    /// Reads and checks a file's header.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, GgufError> {
        Self::open(path, true)
    }

    /// Reads and checks a file's header, forgetting metadata arrays: vocabularies are large, and of use only to
    /// who turns text into tokens. Asking for one of them is an error.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn read_without_arrays(path: &Path) -> Result<Self, GgufError> {
        Self::open(path, false)
    }

    /// Reads and checks the header of a whole file that lies in memory.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn from_bytes(file: &[u8]) -> Result<Self, GgufError> {
        Self::parse(Reader::new(file, "memory".into(), file.len() as u64), file.len() as u64, true)
    }

    /// As [`Self::read_without_arrays`], of a whole file that lies in memory.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn from_bytes_without_arrays(file: &[u8]) -> Result<Self, GgufError> {
        Self::parse(Reader::new(file, "memory".into(), file.len() as u64), file.len() as u64, false)
    }

    fn open(path: &Path, keep_arrays: bool) -> Result<Self, GgufError> {
        let failed = |source| GgufError::Io { path: path.display().to_string(), source };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let reader = Reader::new(BufReader::with_capacity(1 << 16, file), path.display().to_string(), length);
        Self::parse(reader, length, keep_arrays)
    }

    fn parse<R: Read>(mut reader: Reader<R>, file_len: u64, keep_arrays: bool) -> Result<Self, GgufError> {
        if reader.bytes::<4>("the magic number")? != *b"GGUF" {
            return Err(GgufError::Magic);
        }
        let version = reader.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version(version));
        }
        let tensor_count = reader.count("the number of tensors", MAX_TENSORS)?;
        let metadata_count = reader.count("the number of metadata entries", MAX_METADATA)?;
        let (metadata, forgotten) = read_metadata(&mut reader, metadata_count, keep_arrays)?;
        let alignment = match metadata.get(ALIGNMENT) {
            // A list is no alignment, also when it was left out.
            None if !forgotten.contains(ALIGNMENT) => DEFAULT_ALIGNMENT,
            value => {
                let number = value.and_then(Value::as_u64);
                number.filter(|a| a.is_power_of_two() && *a <= 1 << 20).ok_or_else(|| {
                    let expected = "a power of two up to 1048576";
                    GgufError::Type { key: ALIGNMENT.into(), expected }
                })?
            }
        };
        let tensors = read_tensors(&mut reader, tensor_count)?;
        let data_offset = reader.position().next_multiple_of(alignment);
        check_places(&tensors, data_offset, file_len, alignment)?;
        Ok(Self { version, metadata, tensors, data_offset, file_len, forgotten })
    }

    /// `general.architecture`.
    ///
    /// # Errors
    /// When it is missing or not a text.
    pub fn architecture(&self) -> Result<&str, GgufError> {
        self.str("general.architecture")
    }

    /// `general.name`, or the fallback.
    #[must_use]
    pub fn name<'a>(&'a self, fallback: &'a str) -> &'a str {
        match self.metadata.get("general.name") {
            Some(Value::String(name)) if !name.is_empty() => name,
            _ => fallback,
        }
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        take: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let wrong = || GgufError::Type { key: key.into(), expected };
        match self.metadata.get(key) {
            None if self.forgotten.contains(key) => Err(wrong()),
            None => Ok(None),
            Some(value) => take(value).map(Some).ok_or_else(wrong),
        }
    }

    /// A text, if the key is there.
    ///
    /// # Errors
    /// When it is there with another type.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a text", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A non-negative integer of any width, if the key is there.
    ///
    /// # Errors
    /// When it is there with another type, or larger than 32 bits.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(key, "a whole number of 32 bits, not negative", |value| value.as_u64()?.try_into().ok())
    }

    /// A finite number, if the key is there.
    ///
    /// # Errors
    /// When it is there with another type.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a finite number", |value| Some(value.as_f64()? as f32).filter(|n| n.is_finite()))
    }

    /// A truth value, if the key is there.
    ///
    /// # Errors
    /// When it is there with another type.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a truth value", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A list of texts, if the key is there.
    ///
    /// # Errors
    /// When it is there with another type.
    pub fn opt_strings(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.typed(key, "a list of texts", |value| match value {
            Value::Array(Array::Strings(list)) => Some(list.as_slice()),
            _ => None,
        })
    }

    /// A list of floating-point numbers, if the key is there.
    ///
    /// # Errors
    /// When it is there with another type.
    pub fn opt_floats(&self, key: &str) -> Result<Option<&[f64]>, GgufError> {
        self.typed(key, "a list of numbers", |value| match value {
            Value::Array(Array::Floats(list)) => Some(list.as_slice()),
            _ => None,
        })
    }

    /// A list of integers of any width, if the key is there.
    ///
    /// # Errors
    /// When it is there with another type, or one does not fit into 64 bits with a sign.
    pub fn opt_integers(&self, key: &str) -> Result<Option<Vec<i64>>, GgufError> {
        self.typed(key, "a list of whole numbers", |value| match value {
            Value::Array(Array::Signed(list)) => Some(list.clone()),
            Value::Array(Array::Unsigned(list)) => list.iter().map(|n| i64::try_from(*n).ok()).collect(),
            _ => None,
        })
    }

    /// A text.
    ///
    /// # Errors
    /// When it is missing or has another type.
    pub fn str(&self, key: &str) -> Result<&str, GgufError> {
        self.opt_str(key)?.ok_or_else(|| GgufError::Missing(key.into()))
    }

    /// A non-negative integer of any width.
    ///
    /// # Errors
    /// When it is missing, has another type or is larger than 32 bits.
    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        self.opt_u32(key)?.ok_or_else(|| GgufError::Missing(key.into()))
    }

    /// A finite number.
    ///
    /// # Errors
    /// When it is missing or has another type.
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        self.opt_f32(key)?.ok_or_else(|| GgufError::Missing(key.into()))
    }

    /// A list of texts.
    ///
    /// # Errors
    /// When it is missing or has another type.
    pub fn strings(&self, key: &str) -> Result<&[String], GgufError> {
        self.opt_strings(key)?.ok_or_else(|| GgufError::Missing(key.into()))
    }
}

fn read_metadata<R: Read>(
    reader: &mut Reader<R>,
    count: u64,
    keep_arrays: bool,
) -> Result<(BTreeMap<String, Value>, BTreeSet<String>), GgufError> {
    let (mut metadata, mut forgotten) = (BTreeMap::new(), BTreeSet::new());
    for _ in 0..count {
        let key = reader.string("a metadata key")?;
        if metadata.contains_key(&key) || forgotten.contains(&key) {
            return Err(GgufError::Damaged(format!("metadata key {key} is there twice")));
        }
        let kind = reader.u32(&key)?;
        match reader.value(&key, kind, keep_arrays)? {
            Some(value) => _ = metadata.insert(key, value),
            None => _ = forgotten.insert(key),
        }
    }
    Ok((metadata, forgotten))
}

fn read_tensors<R: Read>(
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
    let dtype =
        Dtype::from_number(number).ok_or_else(|| damaged(format!("has unsupported type {number}")))?;
    let offset = reader.u64(name)?;
    let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let elements = elements.filter(|n| *n > 0).ok_or_else(|| damaged(format!("has shape {shape:?}")))?;
    let (block, block_bytes) = dtype.block();
    if shape[0] % block != 0 {
        return Err(damaged(format!("has rows of {} numbers, not whole blocks of {block}", shape[0])));
    }
    let bytes = (elements / block).checked_mul(block_bytes).ok_or_else(|| damaged("is too large".into()))?;
    Ok(TensorInfo { dtype, shape, offset, bytes })
}

/// Every tensor lies aligned inside the file and over no other.
fn check_places(
    tensors: &BTreeMap<String, TensorInfo>,
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
    Ok(())
}
