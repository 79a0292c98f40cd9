//! All files of a model, where it is split into several: by one of them the others are known.

use std::path::{Path, PathBuf};

use super::{HubFile, cached_file, resolve_file};
use crate::{
    HubConfig, HubError,
    files::{blocking, check_file, first_of},
    identify::files_of,
};

/// The model's first file, with the others beside it. What is not in the hub's cache is fetched.
pub(crate) async fn resolve(file: &HubFile, config: &HubConfig) -> Result<PathBuf, HubError> {
    let given = resolve_file(file, config).await?;
    let others = others(file, &given).await?;
    if others.is_empty() {
        return Ok(given);
    }
    for (other, path) in others {
        // Found by its place, since Hugging Face's tools keep no note of a commit that is reached by a branch.
        let there = blocking(move || check_file(&path)).await;
        if there.is_err() {
            resolve_file(&other, config).await?;
        }
    }
    blocking(move || first_of(given)).await
}

/// The model's first file, if all of them are in the hub's cache.
pub(crate) async fn cached(file: &HubFile, config: &HubConfig) -> Result<Option<PathBuf>, HubError> {
    let Some(given) = cached_file(file, config).await? else { return Ok(None) };
    let others = others(file, &given).await?;
    match others.iter().all(|(_, path)| path.exists()) {
        true if others.is_empty() => Ok(Some(given)),
        true => blocking(move || first_of(given)).await.map(Some),
        false => Ok(None),
    }
}

/// The model's other files, and where they are kept. They are those of the same commit, also when the branch has moved
/// on since.
async fn others(file: &HubFile, given: &Path) -> Result<Vec<(HubFile, PathBuf)>, HubError> {
    let snapshot = given.ancestors().nth(file.path().split('/').count());
    let commit =
        snapshot.and_then(|folder| folder.file_name()?.to_str()).unwrap_or(file.revision()).to_owned();
    let beside = |path: PathBuf| {
        let name = path.file_name()?.to_str()?;
        let name =
            file.path().rsplit_once('/').map_or(name.to_owned(), |(folder, _)| format!("{folder}/{name}"));
        (path != given).then(|| (file.beside(name, commit.clone()), path))
    };
    Ok(files_of(given).await?.into_iter().filter_map(beside).collect())
}
