//! A model that is split into several files: which they are, and that they belong together.
//!
//! As llama.cpp's `gguf-split` writes them: each file is a GGUF file of its own with some of the tensors. The first one
//! has the metadata of the model, and often no tensor; all of them say which file they are, of how many. So do their
//! names: `NAME-00001-of-00003.gguf`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{GgufError, Header, TensorInfo, reader::MAX_HEADER, tensors};

/// The largest models have some hundred files.
const MAX_FILES: u32 = 1024;
/// Which file it is, from 0.
const NUMBER: &str = "split.no";
/// Of how many.
const COUNT: &str = "split.count";
/// How many tensors all of them have.
const TENSORS: &str = "split.tensors.count";
/// Digits of a number in a file's name.
const DIGITS: usize = 5;

/// What a file says of the others that a model is split into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Split {
    /// Which file it is, from 0.
    pub number: u32,
    /// Of how many, at least 2.
    pub count: u32,
    /// How many tensors all of them have.
    pub tensors: u32,
}

impl Split {
    /// The names of all files, by the name of this one.
    ///
    /// # Errors
    /// When it does not have the name of such a file.
    pub fn names(self, name: &str) -> Result<Vec<String>, GgufError> {
        let own = ending(self.number + 1, self.count);
        let prefix = name.strip_suffix(&own).filter(|prefix| !prefix.is_empty());
        let (file, count) = (self.number + 1, self.count);
        let prefix = prefix.ok_or_else(|| GgufError::Name { name: name.into(), file, count, ending: own })?;
        Ok((1..=self.count).map(|number| format!("{prefix}{}", ending(number, self.count))).collect())
    }

    /// Where all files lie: beside this one, in order.
    ///
    /// # Errors
    /// As [`Self::names`].
    pub fn paths(self, path: &Path) -> Result<Vec<PathBuf>, GgufError> {
        let names = self.names(&path.file_name().unwrap_or_default().to_string_lossy())?;
        Ok(names.into_iter().map(|name| path.with_file_name(name)).collect())
    }

    fn must_be(self, expected: Self) -> Result<(), GgufError> {
        let fields = [
            (COUNT, self.count, expected.count),
            (NUMBER, self.number, expected.number),
            (TENSORS, self.tensors, expected.tensors),
        ];
        match fields.into_iter().find(|(_, got, expected)| got != expected) {
            Some((key, got, expected)) => Err(GgufError::Mixed(format!(
                "{key} is {got}, and by name and first file it must be {expected}"
            ))),
            None => Ok(()),
        }
    }
}

/// What people call a model that does not say it: the file's name without ending, and without the numbers of a split
/// model.
#[must_use]
pub fn name_of_file(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    before_numbers(&stem).unwrap_or(&stem).to_owned()
}

/// The files of a model, in order, by the path of any of them. Only that one is looked at, and only if its name is that
/// of one of several: no other can be.
///
/// # Errors
/// When it is no model, or its name is not as it says.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>, GgufError> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let split = match before_numbers(&stem) {
        Some(_) => Header::read_one_file(path)?.split()?,
        None => None,
    };
    split.map_or_else(|| Ok(vec![path.to_owned()]), |split| split.paths(path))
}

/// The names of all files of a model in so many, by the name of one of them. Nothing for a name that is none.
#[must_use]
pub fn names_of_several(name: &str, count: u32) -> Option<Vec<String>> {
    let prefix = before_numbers(name.strip_suffix(".gguf")?)?;
    Some((1..=count).map(|number| format!("{prefix}{}", ending(number, count))).collect())
}

/// How the name of a file ends; numbers are from 1.
fn ending(number: u32, count: u32) -> String {
    format!("-{number:0DIGITS$}-of-{count:0DIGITS$}.gguf")
}

/// What stands before the numbers in the name of a split model's file.
fn before_numbers(stem: &str) -> Option<&str> {
    let is_number = |text: &str| text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    let (rest, _) = stem.rsplit_once("-of-").filter(|(_, count)| is_number(count))?;
    let (prefix, _) = rest.rsplit_once('-').filter(|(_, number)| is_number(number))?;
    Some(prefix).filter(|prefix| !prefix.is_empty())
}

impl Header {
    /// What the first file says of the others. Nothing for a model in one file.
    ///
    /// # Errors
    /// When it says what cannot be.
    pub fn split(&self) -> Result<Option<Split>, GgufError> {
        // What was joined again says 0.
        let Some(count) = self.opt_u32(COUNT)?.filter(|count| *count > 1) else { return Ok(None) };
        let (number, tensors) = (self.u32(NUMBER)?, self.u32(TENSORS)?);
        let bounds = [
            (COUNT, count, MAX_FILES),
            (NUMBER, number, count - 1),
            (TENSORS, tensors, tensors::MOST as u32),
        ];
        match bounds.into_iter().find(|(_, got, limit)| got > limit) {
            Some((what, got, limit)) => {
                Err(GgufError::TooMuch { what, got: got.into(), limit: limit.into() })
            }
            None => Ok(Some(Split { number, count, tensors })),
        }
    }

    /// Opens a model by one of its files.
    pub(crate) fn open(path: &Path, keep_arrays: bool) -> Result<Self, GgufError> {
        let given = Self::open_one(path, keep_arrays)?;
        let Some(split) = given.split()? else { return Ok(given) };
        let (paths, mut given) = (split.paths(path)?, Some(given));
        let open = |(number, path): (u32, &PathBuf)| match given.take_if(|_| number == split.number) {
            Some(given) => Ok(given),
            None => open_other(path, keep_arrays && number == 0, split.count),
        };
        Self::join((0..).zip(&paths).map(open))
    }

    /// Files in order as one model. Of each but the first, only where its tensors lie stays in memory.
    pub(crate) fn join(files: impl IntoIterator<Item = Result<Self, GgufError>>) -> Result<Self, GgufError> {
        let mut files = files.into_iter();
        let none = || Err(GgufError::Damaged("there is no file".into()));
        let mut whole = files.next().unwrap_or_else(none)?;
        let Some(first) = whole.split()? else {
            return if files.next().is_none() { Ok(whole) } else { Err(GgufError::Missing(COUNT.into())) };
        };
        first.must_be(Split { number: 0, ..first })?;
        let mut count = 1;
        for file in files {
            let file = file?;
            let path = file.files[0].path.clone();
            let added = whole.add(file, Split { number: count, ..first });
            added.map_err(|source| GgufError::in_file(&path, source))?;
            count += 1;
        }
        for (key, said, there) in
            [(COUNT, first.count, count), (TENSORS, first.tensors, whole.tensors.len() as u32)]
        {
            if said != there {
                return Err(GgufError::Mixed(format!("{key} is {said}, the files have {there}")));
            }
        }
        Ok(whole)
    }

    /// Adds the next file.
    fn add(&mut self, other: Self, expected: Split) -> Result<(), GgufError> {
        let alone = || GgufError::Mixed(format!("{COUNT} is missing"));
        other.split()?.ok_or_else(alone)?.must_be(expected)?;
        let headers = self.files.iter().chain(&other.files).map(|file| file.data_offset);
        let headers = headers.fold(0, u64::saturating_add);
        if headers > MAX_HEADER {
            return Err(GgufError::TooMuch { what: "the headers' size", got: headers, limit: MAX_HEADER });
        }
        let there = self.tensors.len() + other.tensors.len();
        if there > expected.tensors as usize {
            let (said, number) = (expected.tensors, expected.number + 1);
            return Err(GgufError::Mixed(format!(
                "{TENSORS} is {said}, the first {number} files have {there}"
            )));
        }
        let (number, mut start) = (self.files.len(), self.bytes());
        for (name, tensor) in other.tensors {
            if self.tensors.contains_key(&name) {
                return Err(GgufError::Mixed(format!("tensor {name} is in two files")));
            }
            self.tensors.insert(name, TensorInfo { file: number, ..tensor });
        }
        for mut file in other.files {
            file.start = start;
            let end = start.checked_add(file.bytes);
            start =
                end.ok_or_else(|| GgufError::Damaged("there are more bytes than any model has".into()))?;
            self.files.push(file);
        }
        Ok(())
    }
}

/// A file whose name follows from another's. A pipe in its place would be waited for without end.
fn open_other(path: &Path, keep_arrays: bool, count: u32) -> Result<Header, GgufError> {
    let shown = path.display().to_string();
    match fs::metadata(path) {
        Ok(file) if file.is_file() => {
            Header::open_one(path, keep_arrays).map_err(|source| GgufError::in_file(path, source))
        }
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(GgufError::Io { path: shown, source }),
        _ => Err(GgufError::NoFile { path: shown, count }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_all_files_follow_from_one() {
        let split = Split { number: 1, count: 3, tensors: 9 };
        let expected = ["a/m-00001-of-00003.gguf", "a/m-00002-of-00003.gguf", "a/m-00003-of-00003.gguf"];
        let paths = split.paths(Path::new("a/m-00002-of-00003.gguf")).unwrap();
        assert_eq!(paths, expected.map(PathBuf::from));
        for wrong in [
            "m.gguf",
            "m-00001-of-00003.gguf",
            "m-00002-of-00004.gguf",
            "-00002-of-00003.gguf",
            "m-2-of-3.gguf",
        ] {
            let error = split.names(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("-00002-of-00003.gguf"), "{error}");
        }
    }

    #[test]
    fn a_model_is_called_by_its_file_without_the_numbers() {
        for (path, name) in [
            ("a/tiny.gguf", "tiny"),
            ("a/tiny-00001-of-00003.gguf", "tiny"),
            ("tiny-1-of-3.gguf", "tiny-1-of-3"),
            ("part-of-00003.gguf", "part-of-00003"),
            ("-00001-of-00003.gguf", "-00001-of-00003"),
        ] {
            assert_eq!(name_of_file(Path::new(path)), name);
        }
    }
}
