//! Writes GGUF files of version 3. Behind the feature `test-support`.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use crate::{Array, Dtype, GgufError, Header, Split, Value, files_of};

const ALIGNMENT: usize = 32;

/// A file in the making: metadata and tensors in the order they were added.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, Dtype, Vec<u64>, Vec<u8>)>,
}

impl Writer {
    /// Adds a metadata entry.
    pub fn metadata(&mut self, key: impl Into<String>, value: Value) {
        self.metadata.push((key.into(), value));
    }

    /// Adds a tensor; `shape` is innermost first, `bytes` as the type stores them.
    pub fn tensor(&mut self, name: impl Into<String>, dtype: Dtype, shape: &[u64], bytes: Vec<u8>) {
        self.tensors.push((name.into(), dtype, shape.into(), bytes));
    }

    /// Adds an f32 tensor.
    pub fn tensor_f32(&mut self, name: impl Into<String>, shape: &[u64], values: &[f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, Dtype::F32, shape, bytes);
    }

    /// Says that it is one of several files, in the types that `gguf-split` has.
    pub fn split(&mut self, split: Split) {
        self.metadata("split.no", Value::U16(split.number as u16));
        self.metadata("split.count", Value::U16(split.count as u16));
        self.metadata("split.tensors.count", Value::I32(split.tensors as i32));
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        let header = self.header();
        out.write_all(&header)?;
        out.write_all(&vec![0; header.len().next_multiple_of(ALIGNMENT) - header.len()])?;
        for (_, _, _, bytes) in &self.tensors {
            out.write_all(bytes)?;
            out.write_all(&vec![0; bytes.len().next_multiple_of(ALIGNMENT) - bytes.len()])?;
        }
        out.flush()
    }

    fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_string(&mut out, key);
            put_value(&mut out, value);
        }
        let mut offset = 0u64;
        for (name, dtype, shape, bytes) in &self.tensors {
            put_string(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(dtype.number().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += bytes.len().next_multiple_of(ALIGNMENT) as u64;
        }
        out
    }
}

/// Splits a model into several files, as `gguf-split` does: the first one has the metadata. `first` is where it goes,
/// `NAME-00001-of-0000N.gguf`; `tensors` is how many each file gets in the order of the model's file, and the last one
/// gets the rest as well. Gives the paths of all files.
///
/// # Errors
/// When the model cannot be read, or is in several files, or one cannot be written.
pub fn split(model: &Path, first: &Path, tensors: &[usize]) -> Result<Vec<PathBuf>, GgufError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        |source| GgufError::Io { path, source }
    };
    let (header, file) = (Header::read(model)?, fs::read(model).map_err(failed(model))?);
    let mut rest: Vec<_> = header.tensors.iter().collect();
    rest.sort_by_key(|(_, tensor)| tensor.offset);
    let mut rest = rest.into_iter();
    let split = Split { number: 0, count: tensors.len() as u32, tensors: rest.len() as u32 };
    for (number, (path, count)) in (0..).zip(split.paths(first)?.iter().zip(tensors)) {
        let mut part = Writer::default();
        if number == 0 {
            let own = header.metadata.iter().filter(|(key, _)| !key.starts_with("split."));
            own.for_each(|(key, value)| part.metadata(key, value.clone()));
        }
        part.split(Split { number, ..split });
        let count = if number + 1 == split.count { rest.len() } else { *count };
        for (name, tensor) in rest.by_ref().take(count) {
            let bytes = &file[tensor.offset as usize..(tensor.offset + tensor.bytes) as usize];
            part.tensor(name, tensor.dtype, &tensor.shape, bytes.to_vec());
        }
        part.write(path).map_err(failed(path))?;
    }
    files_of(first)
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The type's number, then the value.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::U8(n) => put(0, &n.to_le_bytes()),
        Value::I8(n) => put(1, &n.to_le_bytes()),
        Value::U16(n) => put(2, &n.to_le_bytes()),
        Value::I16(n) => put(3, &n.to_le_bytes()),
        Value::U32(n) => put(4, &n.to_le_bytes()),
        Value::I32(n) => put(5, &n.to_le_bytes()),
        Value::F32(n) => put(6, &n.to_le_bytes()),
        Value::Bool(flag) => put(7, &[u8::from(*flag)]),
        Value::U64(n) => put(10, &n.to_le_bytes()),
        Value::I64(n) => put(11, &n.to_le_bytes()),
        Value::F64(n) => put(12, &n.to_le_bytes()),
        Value::String(text) => {
            put(8, &[]);
            put_string(out, text);
        }
        Value::Array(array) => {
            put(9, &[]);
            put_array(out, array);
        }
    }
}

/// Integers and floats go out in the widest type, but token types and scores as readers expect them: 32 bits.
fn put_array(out: &mut Vec<u8>, array: &Array) {
    let mut head = |kind: u32, count: usize| {
        out.extend(kind.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    };
    match array {
        Array::Strings(list) => {
            head(8, list.len());
            list.iter().for_each(|text| put_string(out, text));
        }
        Array::Signed(list) => {
            head(5, list.len());
            list.iter().for_each(|n| out.extend((*n as i32).to_le_bytes()));
        }
        Array::Unsigned(list) => {
            head(4, list.len());
            list.iter().for_each(|n| out.extend((*n as u32).to_le_bytes()));
        }
        Array::Floats(list) => {
            head(6, list.len());
            list.iter().for_each(|n| out.extend((*n as f32).to_le_bytes()));
        }
        Array::Bools(list) => {
            head(7, list.len());
            out.extend(list.iter().map(|flag| u8::from(*flag)));
        }
    }
}
