//! The header as a whole.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{
    Array, GgufError, TensorInfo, Value, kinds,
    reader::{Entry, LeftOut, Reader},
    tensors,
};

/// What is read first, as errors call it.
const MAGIC: &str = "the magic number";
/// Metadata entries of real files: some dozens.
const MAX_METADATA: u64 = 4096;
/// What keys of the tokenizer begin with: its arrays are large.
const TOKENIZER: &str = "tokenizer.";
/// The key that names the architecture.
const ARCHITECTURE: &str = "general.architecture";
/// The key that says where tensors are aligned to.
const ALIGNMENT: &str = "general.alignment";
/// Where tensors are aligned to when the file does not say.
const DEFAULT_ALIGNMENT: u64 = 32;

/// What a model's files say before its tensors' bytes.
#[derive(Clone, Debug)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// All metadata that is of use; without the arrays of its tokenizer after [`Header::read_without_arrays`].
    pub metadata: BTreeMap<String, Value>,
    /// Where each tensor lies.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// The model's files, in order: one, or all of those that it is split into.
    pub files: Vec<ModelFile>,
    /// Keys of what was read over, so that none of them passes for a key that is not there.
    left_out: BTreeMap<String, LeftOut>,
}

/// One of the files that a model is in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelFile {
    /// Where it is.
    pub path: PathBuf,
    /// How many bytes it has.
    pub bytes: u64,
    /// Where its tensors' bytes begin.
    pub data_offset: u64,
    /// Bytes of all files before it.
    pub start: u64,
}

impl Header {
    /// Reads and checks a model's header. Of a model in several files any one is named, and the others lie beside it.
    ///
    /// # Errors
    /// Says what is wrong with the file, or which file is missing.
    pub fn read(path: &Path) -> Result<Self, GgufError> {
        Self::open(path, true)
    }

    /// Reads and checks a model's header, forgetting the arrays of its tokenizer: vocabularies are large, and of use
    /// only to who turns text into tokens. Asking for one of them is an error.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_without_arrays(path: &Path) -> Result<Self, GgufError> {
        Self::open(path, false)
    }

    /// Reads and checks what one file says, also when it is one of several: the others need not be there.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn read_one_file(path: &Path) -> Result<Self, GgufError> {
        Self::open_one(path, false)
    }

    /// Reads and checks the header of a model whose files lie in memory, whole and in order.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn from_bytes(files: &[&[u8]]) -> Result<Self, GgufError> {
        Self::in_memory(files, true)
    }

    /// As [`Self::read_without_arrays`], of a model whose files lie in memory.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn from_bytes_without_arrays(files: &[&[u8]]) -> Result<Self, GgufError> {
        Self::in_memory(files, false)
    }

    fn in_memory(files: &[&[u8]], keep_arrays: bool) -> Result<Self, GgufError> {
        let parse = |(number, file): (usize, &&[u8])| {
            let path = format!("memory-{number}");
            let reader = Reader::new(*file, path.clone(), file.len() as u64);
            Self::parse(reader, path.into(), keep_arrays && number == 0)
        };
        Self::join(files.iter().enumerate().map(parse))
    }

    pub(crate) fn open_one(path: &Path, keep_arrays: bool) -> Result<Self, GgufError> {
        let failed = |source| GgufError::Io { path: path.display().to_string(), source };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let reader = Reader::new(BufReader::with_capacity(1 << 16, file), path.display().to_string(), length);
        Self::parse(reader, path.to_owned(), keep_arrays).map_err(|error| match error {
            GgufError::Magic | GgufError::Truncated { .. } if kinds::is_piece(path) => GgufError::Piece,
            error => error,
        })
    }

    fn parse<R: Read>(mut reader: Reader<R>, path: PathBuf, keep_arrays: bool) -> Result<Self, GgufError> {
        let magic = reader.bytes::<4>(MAGIC)?;
        if magic != *b"GGUF" {
            let front = [&magic[..], &reader.up_to(kinds::TELLING, MAGIC)?].concat();
            return Err(kinds::foreign(&front, reader.length()));
        }
        let version = reader.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version(version));
        }
        let tensor_count = reader.count("the number of tensors", tensors::MOST)?;
        let metadata_count = reader.count("the number of metadata entries", MAX_METADATA)?;
        let (metadata, left_out) = read_metadata(&mut reader, metadata_count, keep_arrays)?;
        let alignment = match metadata.get(ALIGNMENT) {
            // A list is no alignment, also when it was left out.
            None if !left_out.contains_key(ALIGNMENT) => DEFAULT_ALIGNMENT,
            value => {
                let number = value.and_then(Value::as_u64);
                number.filter(|a| a.is_power_of_two() && *a <= 1 << 20).ok_or_else(|| {
                    let expected = "a power of two up to 1048576";
                    GgufError::Type { key: ALIGNMENT.into(), expected }
                })?
            }
        };
        let mut tensors = tensors::read(&mut reader, tensor_count)?;
        let data_offset = reader.position().next_multiple_of(alignment);
        tensors::place(&mut tensors, data_offset, reader.length(), alignment)?;
        let file = ModelFile { path, bytes: reader.length(), data_offset, start: 0 };
        Ok(Self { version, metadata, tensors, files: vec![file], left_out })
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.last().map_or(0, |last| last.start + last.bytes)
    }

    /// The bytes of a tensor of this header, counted over all files, one behind the other.
    #[must_use]
    pub fn range(&self, tensor: &TensorInfo) -> Range<u64> {
        let start = self.files.get(tensor.file).map_or(0, |file| file.start) + tensor.offset;
        start..start + tensor.bytes
    }

    /// `general.architecture` of a language model.
    ///
    /// # Errors
    /// When it is missing or not a text; and when the file is of something else, by that or by its `general.type`.
    pub fn architecture(&self) -> Result<&str, GgufError> {
        let says = |key: &str| match self.metadata.get(key) {
            Some(Value::String(text)) => text.as_str(),
            _ => "",
        };
        kinds::check(says("general.type"), says(ARCHITECTURE))?;
        self.str(ARCHITECTURE)
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
        match (self.metadata.get(key), self.left_out.get(key)) {
            (Some(value), _) => take(value).map(Some).ok_or_else(wrong),
            (None, Some(LeftOut::List(_))) => Err(wrong()),
            (None, Some(LeftOut::Text(bytes))) => {
                Err(GgufError::Unsupported(format!("metadata key {key} with a text of {bytes} bytes")))
            }
            (None, None) => Ok(None),
        }
    }

    /// How many elements a list has, if the key is there with one.
    pub(crate) fn count_of_list(&self, key: &str) -> Option<u64> {
        match (self.metadata.get(key), self.left_out.get(key)) {
            (Some(Value::Array(list)), _) => Some(list.count()),
            (_, Some(LeftOut::List(count))) => Some(*count),
            _ => None,
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

    /// The same of a number that may be written for each layer, where it is the same for all.
    ///
    /// # Errors
    /// As [`Self::opt_u32`]; and when layers differ.
    pub fn opt_u32_of_layers(&self, key: &str) -> Result<Option<u32>, GgufError> {
        let numbers: Option<Vec<u64>> = match self.metadata.get(key) {
            Some(Value::Array(Array::Unsigned(list))) => Some(list.clone()),
            Some(Value::Array(Array::Signed(list))) => list.iter().map(|n| u64::try_from(*n).ok()).collect(),
            _ => None,
        };
        let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) else { return self.opt_u32(key) };
        let first = numbers[0];
        if numbers.iter().any(|number| *number != first) {
            let shown: Vec<String> = numbers.iter().take(8).map(u64::to_string).collect();
            let more = if numbers.len() > shown.len() { ", …" } else { "" };
            let what = format!("{key} with other numbers for other layers ({}{more})", shown.join(", "));
            return Err(GgufError::Unsupported(what));
        }
        let expected = "a whole number of 32 bits, not negative";
        u32::try_from(first).map(Some).map_err(|_| GgufError::Type { key: key.into(), expected })
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

/// What was kept, and what was left out, by key.
type Entries = (BTreeMap<String, Value>, BTreeMap<String, LeftOut>);

fn read_metadata<R: Read>(
    reader: &mut Reader<R>,
    count: u64,
    keep_arrays: bool,
) -> Result<Entries, GgufError> {
    let (mut metadata, mut left_out) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..count {
        let key = reader.string("a metadata key")?;
        if metadata.contains_key(&key) || left_out.contains_key(&key) {
            return Err(GgufError::Damaged(format!("metadata key {key} is there twice")));
        }
        let kind = reader.u32(&key)?;
        match reader.entry(&key, kind, keep_arrays || !key.starts_with(TOKENIZER))? {
            Entry::Kept(value) => _ = metadata.insert(key, value),
            Entry::LeftOut(what) => _ = left_out.insert(key, what),
        }
    }
    Ok((metadata, left_out))
}
