//! Reads primitive values, and never past the file's end.

use std::io::Read;

use crate::{Array, GgufError, Value};

/// Longest metadata text: chat templates are the longest in real files, some 10 KiB.
const MAX_STRING: u64 = 1 << 20;
/// Elements of all arrays together: the largest vocabularies have some 300 000 tokens with a type and a score each,
/// and twice as many merges. What is kept of an element can be larger than its bytes in the file, so the header's size
/// alone would not bound it.
const MAX_ELEMENTS: u64 = 4 << 20;
/// Bytes of a whole header, of all files of a model together. Large vocabularies take some 20 MiB.
pub(crate) const MAX_HEADER: u64 = 256 << 20;

pub(crate) struct Reader<R> {
    input: R,
    path: String,
    position: u64,
    length: u64,
    elements: u64,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(input: R, path: String, length: u64) -> Self {
        Self { input, path, position: 0, length, elements: 0 }
    }

    /// Bytes of the whole file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Fails unless so many bytes more are there, so that nothing is allocated for bytes that are not.
    fn claim(&self, bytes: u64, what: &str) -> Result<(), GgufError> {
        let end = self.position.saturating_add(bytes);
        if end > self.length {
            return Err(GgufError::Truncated { what: what.into(), missing: end - self.length });
        }
        if end > MAX_HEADER {
            return Err(GgufError::TooMuch { what: "the header's size", got: end, limit: MAX_HEADER });
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8], what: &str) -> Result<(), GgufError> {
        self.claim(bytes.len() as u64, what)?;
        let read = self.input.read_exact(bytes);
        read.map_err(|source| GgufError::Io { path: self.path.clone(), source })?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.bytes(what)?))
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.bytes(what)?))
    }

    pub(crate) fn count(&mut self, what: &'static str, limit: u64) -> Result<u64, GgufError> {
        let got = self.u64(what)?;
        if got > limit { Err(GgufError::TooMuch { what, got, limit }) } else { Ok(got) }
    }

    fn text(&mut self, what: &str) -> Result<Vec<u8>, GgufError> {
        let length = self.count("a text's length", MAX_STRING)?;
        self.claim(length, what)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    pub(crate) fn string(&mut self, what: &str) -> Result<String, GgufError> {
        let bytes = self.text(what)?;
        String::from_utf8(bytes).map_err(|_| GgufError::Damaged(format!("{what} is not UTF-8")))
    }

    /// A text of a list. Vocabularies have tokens that are parts of characters; no text is read as one of them, so what
    /// is no character may become another.
    fn listed_string(&mut self, what: &str) -> Result<String, GgufError> {
        let bytes = self.text(what)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|wrong| String::from_utf8_lossy(wrong.as_bytes()).into_owned()))
    }

    /// A value of type `kind`; an array is read but not kept when `keep_arrays` is not set.
    pub(crate) fn value(
        &mut self,
        key: &str,
        kind: u32,
        keep_arrays: bool,
    ) -> Result<Option<Value>, GgufError> {
        Ok(Some(match kind {
            0 => Value::U8(self.bytes::<1>(key)?[0]),
            1 => Value::I8(i8::from_le_bytes(self.bytes(key)?)),
            2 => Value::U16(u16::from_le_bytes(self.bytes(key)?)),
            3 => Value::I16(i16::from_le_bytes(self.bytes(key)?)),
            4 => Value::U32(self.u32(key)?),
            5 => Value::I32(i32::from_le_bytes(self.bytes(key)?)),
            6 => Value::F32(f32::from_le_bytes(self.bytes(key)?)),
            7 => Value::Bool(self.bool(key)?),
            8 => Value::String(self.string(key)?),
            9 => return Ok(self.array(key, keep_arrays)?.map(Value::Array)),
            10 => Value::U64(self.u64(key)?),
            11 => Value::I64(i64::from_le_bytes(self.bytes(key)?)),
            12 => Value::F64(f64::from_le_bytes(self.bytes(key)?)),
            _ => return Err(GgufError::Damaged(format!("metadata key {key} has unknown type {kind}"))),
        }))
    }

    fn bool(&mut self, key: &str) -> Result<bool, GgufError> {
        match self.bytes::<1>(key)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(GgufError::Damaged(format!("metadata key {key} has truth value {other}"))),
        }
    }

    fn array(&mut self, key: &str, keep: bool) -> Result<Option<Array>, GgufError> {
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        self.elements = self.elements.saturating_add(count);
        if self.elements > MAX_ELEMENTS {
            let what = "the number of array elements";
            return Err(GgufError::TooMuch { what, got: self.elements, limit: MAX_ELEMENTS });
        }
        let width = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            _ => return Err(GgufError::Damaged(format!("metadata key {key} is an array of type {kind}"))),
        };
        self.claim(count * width, key)?;
        let mut array = match kind {
            8 => Array::Strings(vec![]),
            0 | 2 | 4 | 10 => Array::Unsigned(vec![]),
            1 | 3 | 5 | 11 => Array::Signed(vec![]),
            7 => Array::Bools(vec![]),
            _ => Array::Floats(vec![]),
        };
        for _ in 0..count {
            let element = match kind {
                8 => Some(Value::String(self.listed_string(key)?)),
                _ => self.value(key, kind, false)?,
            };
            if let (true, Some(element)) = (keep, element) {
                array.push(element);
            }
        }
        Ok(keep.then_some(array))
    }
}

impl Array {
    /// Adds an element of the array's own type; the caller reads all elements as one type.
    fn push(&mut self, element: Value) {
        match (self, element) {
            (Self::Strings(list), Value::String(text)) => list.push(text),
            (Self::Bools(list), Value::Bool(flag)) => list.push(flag),
            (Self::Signed(list), Value::I8(n)) => list.push(n.into()),
            (Self::Signed(list), Value::I16(n)) => list.push(n.into()),
            (Self::Signed(list), Value::I32(n)) => list.push(n.into()),
            (Self::Signed(list), Value::I64(n)) => list.push(n),
            (Self::Unsigned(list), number) => list.extend(number.as_u64()),
            (Self::Floats(list), number) => list.extend(number.as_f64()),
            (list, element) => unreachable!("an array of one type got {element:?} into {list:?}"),
        }
    }
}
