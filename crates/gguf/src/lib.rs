//! Reads the header of a GGUF model: metadata and where the tensors lie, never the tensors' bytes. A model is in one
//! file, or split into several, which are read as one.
//!
//! A header comes from outside: nothing it declares is believed before the bytes are there, every size is checked
//! against the file, and what is wrong is named. The format is described in
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod dtype;
mod header;
mod kinds;
mod parts;
mod reader;
mod sessions;
mod several;
mod tensors;
#[cfg(feature = "test-support")]
pub mod tiny;
mod value;
mod vocabulary;
#[cfg(feature = "test-support")]
pub mod write;

use std::path::Path;

pub use dtype::Dtype;
pub use header::{Header, ModelFile};
pub use parts::Parts;
pub use sessions::MAX_CONTEXT;
pub use several::{Split, files_of, name_of_file, names_of_several};
pub use tensors::TensorInfo;
pub use value::{Array, Value};
pub use vocabulary::{SPACE, TokenKind, Vocabulary};

/// A file that is not a GGUF this software reads.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It does not begin with `GGUF`.
    #[error("not a GGUF file: it does not begin with \"GGUF\"")]
    Magic,
    /// It is a file of another kind, which is known.
    #[error("not a GGUF file but {what}: {cure}")]
    Foreign {
        /// Which kind.
        what: &'static str,
        /// What helps.
        cure: &'static str,
    },
    /// It is what Git LFS leaves in place of a file.
    #[error("not a GGUF file but a pointer of Git LFS, for which `git lfs pull` fetches the file itself")]
    Pointer,
    /// It is called like a piece of a file of which the bytes were cut, and it is not whole.
    #[error(
        "it is a piece of a file: join all pieces with cat, in their order, and name the file that it gives"
    )]
    Piece,
    /// A GGUF file of something else than a language model.
    #[error("it is {what}, not a language model: {cure}")]
    NoModel {
        /// What it is.
        what: &'static str,
        /// What helps.
        cure: &'static str,
    },
    /// A version other than 2 and 3, or the other byte order.
    #[error("GGUF version {0} is not supported: use a little-endian version 2 or 3 file")]
    Version(u32),
    /// The file ends too early.
    #[error("the file is truncated: {missing} bytes are missing ({what})")]
    Truncated {
        /// In the middle of what.
        what: String,
        /// How many bytes more there should be.
        missing: u64,
    },
    /// More of something than any real model has.
    #[error("{what} is {got}, more than the {limit} that is accepted")]
    TooMuch {
        /// What of.
        what: &'static str,
        /// How much.
        got: u64,
        /// How much at most.
        limit: u64,
    },
    /// Anything else that breaks the format.
    #[error("damaged header: {0}")]
    Damaged(String),
    /// The file is as it was made, and what it says cannot be.
    #[error("{0}")]
    Impossible(String),
    /// A tensor's numbers are stored in a way that this software does not compute with.
    #[error(
        "tensor {tensor} is stored as {dtype}, which is not supported: take a file of the same model in Q4_K_M, or in \
         another of F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS and MXFP4"
    )]
    Stored {
        /// Which tensor.
        tensor: String,
        /// In what way.
        dtype: String,
    },
    /// The file is sound, and of a kind that this software does not run.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The file is sound, and of an architecture that this software does not run.
    #[error("architecture {name} is not supported (supported: {supported})")]
    Architecture {
        /// Which one it is of.
        name: String,
        /// The names of those that are.
        supported: String,
    },
    /// A tensor that the model needs is not there.
    #[error("tensor {0} is missing")]
    NoTensor(String),
    /// A key that the model needs is not there.
    #[error("metadata key {0} is missing")]
    Missing(String),
    /// A key is there with another type or value than it must have.
    #[error("metadata key {key} must be {expected}")]
    Type {
        /// Which key.
        key: String,
        /// What it should be.
        expected: &'static str,
    },
    /// It is one of several, and its name does not lead to the others.
    #[error(
        "it says that it is file {file} of the {count} of a model, so its name must end in {ending}, and {name} does \
         not: give all files the names that they were written with"
    )]
    Name {
        /// How it is called.
        name: String,
        /// Which file it says it is, from 1.
        file: u32,
        /// Of how many.
        count: u32,
        /// How its name must end.
        ending: String,
    },
    /// Another file of the model is not beside it.
    #[error("the model is in {count} files, and {path} is not there: put all of them into one folder")]
    NoFile {
        /// Where it should be.
        path: String,
        /// How many there are.
        count: u32,
    },
    /// One file of the model is of another model, or of the same one split otherwise.
    #[error(
        "the model's files do not belong together: {0}; put all files of one model into one folder, under the names \
         that they were written with"
    )]
    Mixed(String),
    /// Something is wrong with another file of the model than the one that was named.
    #[error("{path}: {source}")]
    InFile {
        /// Which one.
        path: String,
        /// What is wrong with it.
        source: Box<GgufError>,
    },
}

impl GgufError {
    /// Whether the file itself is not what it was when it was made. Of all else another copy would be refused as well.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::InFile { source, .. } => source.is_damage(),
            Self::Magic
            | Self::Pointer
            | Self::Truncated { .. }
            | Self::Damaged(_)
            | Self::TooMuch { .. } => true,
            _ => false,
        }
    }

    /// Whether the message itself says what helps.
    #[must_use]
    pub fn names_cure(&self) -> bool {
        match self {
            Self::InFile { source, .. } => source.names_cure(),
            Self::Foreign { .. }
            | Self::Piece
            | Self::NoModel { .. }
            | Self::Version(_)
            | Self::Stored { .. } => true,
            Self::Name { .. } | Self::NoFile { .. } | Self::Mixed(_) => true,
            _ => false,
        }
    }

    /// Which file of a model it is about, and what is wrong with that; `named` is the one that was asked for.
    #[must_use]
    pub fn of_file<'a>(&'a self, named: &'a Path) -> (&'a Path, &'a Self) {
        match self {
            Self::InFile { path, source } => source.of_file(Path::new(path)),
            error => (named, error),
        }
    }

    fn in_file(path: &Path, source: Self) -> Self {
        Self::InFile { path: path.display().to_string(), source: Box::new(source) }
    }
}
