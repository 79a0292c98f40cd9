//! Reads primitive values, and never past the file's end.

use std::io::{self, Read};

use crate::{Array, GgufError, Value};

/// Longest text that is kept, and longest key, name and text of a list: of what is used in real files, chat templates
/// are the longest, some 10 KiB.
const MAX_STRING: u64 = 1 << 20;
/// Elements of all arrays together: the largest vocabularies have some 300 000 tokens with a type and a score each,
/// and twice as many merges. What is kept of an element can be larger than its bytes in the file, so the header's size
/// alone would not bound it.
const MAX_ELEMENTS: u64 = 4 << 20;
/// Bytes of a whole header, of all files of a model together. Large vocabularies take some 20 MiB.
pub(crate) const MAX_HEADER: u64 = 256 << 20;

/// A metadata value, or what there was that was read over.
pub(crate) enum Entry {
    Kept(Value),
    LeftOut(LeftOut),
}

/// A value that was read over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LeftOut {
    /// A list of so many elements.
    List(u64),
    /// A text of so many bytes.
    Text(u64),
}

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

    /// The next bytes: so many, or as many as there are.
    pub(crate) fn up_to(&mut self, count: u64, what: &str) -> Result<Vec<u8>, GgufError> {
        let mut bytes = vec![0; count.min(self.length - self.position) as usize];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    /// Reads over so many bytes.
    fn skip(&mut self, bytes: u64, what: &str) -> Result<(), GgufError> {
        self.claim(bytes, what)?;
        let read = io::copy(&mut self.input.by_ref().take(bytes), &mut io::sink());
        let whole = read.and_then(|read| match read == bytes {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        });
        whole.map_err(|source| GgufError::Io { path: self.path.clone(), source })?;
        self.position += bytes;
        Ok(())
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
        self.text_of(length, what)
    }

    fn text_of(&mut self, length: u64, what: &str) -> Result<Vec<u8>, GgufError> {
        self.claim(length, what)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    pub(crate) fn string(&mut self, what: &str) -> Result<String, GgufError> {
        let bytes = self.text(what)?;
        String::from_utf8(bytes).map_err(|_| GgufError::Damaged(format!("{what} is not UTF-8")))
    }

    /// The value of a key, of type `kind`. A list is left out when `keep_arrays` is not set, and so is a text that is
    /// longer than any that is used.
    pub(crate) fn entry(&mut self, key: &str, kind: u32, keep_arrays: bool) -> Result<Entry, GgufError> {
        match kind {
            8 => self.entry_of_text(key),
            9 => self.array(key, keep_arrays),
            _ => self.scalar(key, kind).map(Entry::Kept),
        }
    }

    fn entry_of_text(&mut self, key: &str) -> Result<Entry, GgufError> {
        let length = self.u64(key)?;
        if length > MAX_STRING {
            self.skip(length, key)?;
            return Ok(Entry::LeftOut(LeftOut::Text(length)));
        }
        Ok(Entry::Kept(Value::String(characters(self.text_of(length, key)?))))
    }

    fn scalar(&mut self, key: &str, kind: u32) -> Result<Value, GgufError> {
        Ok(match kind {
            0 => Value::U8(self.bytes::<1>(key)?[0]),
            1 => Value::I8(i8::from_le_bytes(self.bytes(key)?)),
            2 => Value::U16(u16::from_le_bytes(self.bytes(key)?)),
            3 => Value::I16(i16::from_le_bytes(self.bytes(key)?)),
            4 => Value::U32(self.u32(key)?),
            5 => Value::I32(i32::from_le_bytes(self.bytes(key)?)),
            6 => Value::F32(f32::from_le_bytes(self.bytes(key)?)),
            7 => Value::Bool(self.bool(key)?),
            10 => Value::U64(self.u64(key)?),
            11 => Value::I64(i64::from_le_bytes(self.bytes(key)?)),
            12 => Value::F64(f64::from_le_bytes(self.bytes(key)?)),
            _ => return Err(GgufError::Damaged(format!("metadata key {key} has unknown type {kind}"))),
        })
    }

    fn bool(&mut self, key: &str) -> Result<bool, GgufError> {
        match self.bytes::<1>(key)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(GgufError::Damaged(format!("metadata key {key} has truth value {other}"))),
        }
    }

    fn array(&mut self, key: &str, keep: bool) -> Result<Entry, GgufError> {
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
                8 => Value::String(characters(self.text(key)?)),
                _ => self.scalar(key, kind)?,
            };
            if keep {
                array.push(element);
            }
        }
        Ok(if keep { Entry::Kept(Value::Array(array)) } else { Entry::LeftOut(LeftOut::List(count)) })
    }
}

/// A text as the file has it, but for what is no character. Vocabularies have tokens that are parts of characters, and
/// files texts in other encodings; nobody asks for one of these by its bytes.
fn characters(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|wrong| String::from_utf8_lossy(wrong.as_bytes()).into_owned())
}

impl Array {
    /// How many elements it has.
    pub(crate) fn count(&self) -> u64 {
        let count = match self {
            Self::Strings(list) => list.len(),
            Self::Signed(list) => list.len(),
            Self::Unsigned(list) => list.len(),
            Self::Floats(list) => list.len(),
            Self::Bools(list) => list.len(),
        };
        count as u64
    }

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
