//! What users call a kept model: by where it came from, or by the first digits of its info-hash.

use std::path::Path;

use model_hub::ModelRef;
use swarm_types::ModelDigest;

use crate::cache::{CachedFrom, CachedModel};

/// Fewer digits are more often a slip than a name.
const LEAST_DIGITS: usize = 6;
const DIGITS: usize = 64;

/// Why no model is meant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Nothing is called so.
    #[error("nothing in the cache is called {0:?}: `llama-swarm list` shows what there is")]
    Unknown(String),
    /// It could be several.
    #[error("{called:?} can be {}: name one", .models.join(" or "))]
    Several {
        /// As it was called.
        called: String,
        /// As they are to be called.
        models: Vec<String>,
    },
    /// Too few digits.
    #[error("{0:?} is too short: give {LEAST_DIGITS} digits of the info-hash at least")]
    Short(String),
    /// A file that was not fetched.
    #[error("{0:?} is a file of your own, which the cache does not keep: remove it as any other")]
    Own(String),
}

/// The models of a list that are called so: one, or all copies of one from other nodes. `pypi:…` and `hf:…` are as for
/// `--model`; else it is the info-hash, or its first digits, with `swarm:` where only what came from other nodes is
/// meant, and with `.N` behind it where one copy is.
///
/// # Errors
/// When there is none, or it is not clear which.
pub fn called<'a>(models: &'a [CachedModel], name: &str) -> Result<Vec<&'a CachedModel>, NameError> {
    let found = match name.parse() {
        Ok(ModelRef::Pypi(package)) => by_source(models, |model| match model {
            ModelRef::Pypi(kept) => kept.file_name() == package.file_name(),
            _ => false,
        }),
        Ok(model @ ModelRef::Hub(_)) => by_source(models, |kept| *kept == model),
        Ok(ModelRef::File(_)) | Ok(ModelRef::Swarm(_)) | Err(_) => return by_hash(models, name),
    };
    if found.is_empty() { Err(NameError::Unknown(name.into())) } else { Ok(found) }
}

fn by_source(models: &[CachedModel], is: impl Fn(&ModelRef) -> bool) -> Vec<&CachedModel> {
    let named = |model: &&CachedModel| matches!(&model.source, CachedFrom::Named(kept) if is(kept));
    models.iter().filter(named).collect()
}

fn by_hash<'a>(models: &'a [CachedModel], name: &str) -> Result<Vec<&'a CachedModel>, NameError> {
    let (digits, only_swarm) = name.strip_prefix("swarm:").map_or((name, false), |digits| (digits, true));
    let (digits, copy) = match digits.split_once('.') {
        Some((digits, copy)) => (digits, Some(copy.parse::<u32>().map_err(|_| unknown(name))?)),
        None => (digits, None),
    };
    if digits.len() > DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(unknown(name));
    }
    if digits.len() < LEAST_DIGITS {
        return Err(NameError::Short(name.into()));
    }
    let digits = digits.to_ascii_lowercase();
    let begins = |hash: ModelDigest| hash.to_string().starts_with(&digits);
    let is_meant = |model: &&CachedModel| {
        let is_place = match model.source {
            CachedFrom::Swarm { copy: number } => copy.is_none_or(|copy| copy == number),
            CachedFrom::Named(_) => !only_swarm && copy.is_none(),
        };
        is_place && model.info_hash.is_some_and(begins)
    };
    let found: Vec<_> = models.iter().filter(is_meant).collect();
    let Some(first) = found.first() else { return Err(NameError::Unknown(name.into())) };
    let is_one = |model: &&CachedModel| {
        let copies = [first, model].iter().all(|model| matches!(model.source, CachedFrom::Swarm { .. }));
        model.info_hash == first.info_hash && copies
    };
    if found.len() > 1 && !found.iter().all(is_one) {
        let mut models: Vec<String> = found.iter().map(|model| distinct(model)).collect();
        models.dedup();
        return Err(NameError::Several { called: name.into(), models });
    }
    Ok(found)
}

fn unknown(name: &str) -> NameError {
    if Path::new(name).is_file() { NameError::Own(name.into()) } else { NameError::Unknown(name.into()) }
}

/// What no other model is called.
fn distinct(model: &CachedModel) -> String {
    match (&model.source, model.info_hash) {
        (CachedFrom::Swarm { .. }, Some(hash)) => format!("swarm:{hash}"),
        (source, _) => source.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cache::Kept;

    fn model(source: CachedFrom, hash: Option<u8>) -> CachedModel {
        CachedModel {
            name: "tiny".into(),
            source,
            info_hash: hash.map(|byte| ModelDigest([byte; 32])),
            path: PathBuf::new(),
            bytes_on_disk: 1,
            bytes: 1,
            pieces: None,
            used: None,
            in_use: false,
            kept: Kept::Folder(PathBuf::new()),
        }
    }

    fn named(name: &str, hash: Option<u8>) -> CachedModel {
        model(CachedFrom::Named(name.parse().expect(name)), hash)
    }

    #[test]
    fn a_model_is_called_by_its_source_or_by_the_first_digits_of_its_info_hash() {
        let models = [
            named("pypi:a_b==1.0", Some(0xaa)),
            named("hf:o/r/m.gguf", None),
            model(CachedFrom::Swarm { copy: 0 }, Some(0xaa)),
            model(CachedFrom::Swarm { copy: 2 }, Some(0xaa)),
            model(CachedFrom::Swarm { copy: 0 }, Some(0xab)),
            model(CachedFrom::Swarm { copy: 0 }, Some(0xcc)),
        ];
        let places = |name: &str| {
            let found = called(&models, name)?;
            let place = |found: &CachedModel| models.iter().position(|model| std::ptr::eq(model, found));
            Ok::<_, NameError>(found.into_iter().filter_map(place).collect::<Vec<_>>())
        };
        for (name, expected) in [
            ("pypi:A-B==1.0", &[0][..]),
            ("hf:o/r/m.gguf", &[1]),
            ("hf:o/r/m.gguf@main", &[1]),
            ("cccccc", &[5]),
            ("CCCCCC", &[5]),
            ("swarm:aaaaaa", &[2, 3]),
            ("aaaaaaaa.2", &[3]),
            (&format!("swarm:{}.0", "aa".repeat(32)), &[2]),
            (&format!("swarm:{}", "ab".repeat(32)), &[4]),
        ] {
            assert_eq!(places(name).as_deref(), Ok(expected), "{name}");
        }
        for (name, told) in [
            ("pypi:a_b==2.0", "`llama-swarm list`"),
            ("hf:o/r/m.gguf@v1", "`llama-swarm list`"),
            ("dddddd", "`llama-swarm list`"),
            ("aaaaaa.7", "`llama-swarm list`"),
            ("cccccc.x", "`llama-swarm list`"),
            ("tiny", "`llama-swarm list`"),
            ("", "6 digits"),
            ("ccccc", "6 digits"),
            ("swarm:", "6 digits"),
            ("aaaaaa", "pypi:a_b==1.0 or swarm:aaaa"),
        ] {
            let error = places(name).expect_err(name).to_string();
            assert!(error.contains(told), "{name}: {error}");
        }
        assert!(matches!(places("Cargo.toml"), Err(NameError::Own(_))));
    }
}
