//! Which of the models that are kept in part on this machine come from a hub: a note beside each.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use model_hub::{HubFile, ModelRef};
use model_torrent::Store;
use swarm_types::{MAX_SOURCE, ModelDigest, Source};

/// The note.
const NOTE: &str = "source";

/// A model of which parts were fetched before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    pub(crate) info_hash: ModelDigest,
    pub(crate) file: HubFile,
}

/// Notes in a folder where the model in it comes from.
pub(crate) fn note(folder: &Path, source: &HubFile) {
    // Without it only more is asked of others at the next start.
    if let Err(error) = fs::write(folder.join(NOTE), source.to_string()) {
        tracing::warn!(%error, folder = %folder.display(), "where the model comes from is not kept");
    }
}

/// Of the models in these folders the one that was fetched last and is this file.
pub(crate) fn find(below: &Path, file: &HubFile) -> Option<Kept> {
    let folders = fs::read_dir(below).ok()?.flatten().map(|entry| entry.path());
    let mut found: Vec<(SystemTime, PathBuf, HubFile)> = folders
        .filter_map(|folder| {
            let note = folder.join(NOTE);
            let state = note.metadata().ok().filter(|state| state.len() <= MAX_SOURCE as u64)?;
            let source = hub_file(&fs::read_to_string(&note).ok()?.parse().ok()?)?;
            file.is_met_by(&source).then_some((state.modified().ok()?, folder, source))
        })
        .collect();
    found.sort_by_key(|(modified, ..)| std::cmp::Reverse(*modified));
    found.into_iter().find_map(|(_, folder, file)| {
        let info_hash = Store::torrent_in(&folder)?.info_hash();
        Some(Kept { info_hash, file })
    })
}

/// The file of a hub that a source names.
pub(crate) fn hub_file(source: &Source) -> Option<HubFile> {
    match source.as_str().parse() {
        Ok(ModelRef::Hub(file)) => Some(file),
        _ => None,
    }
}
