//! What the fuzz targets share.

pub mod checks;

use std::{env, fs, path::PathBuf};

use checks::TARGETS;

/// Puts a target's seeds into the folder that `FUZZ_SEEDS` names, for the fuzzer to begin with.
pub fn write_seeds(name: &str) {
    let Some(folder) = env::var_os("FUZZ_SEEDS").map(PathBuf::from) else { return };
    let target = TARGETS.into_iter().find(|target| target.name == name).expect("it is one of the targets");
    for (number, seed) in (target.seeds)().into_iter().enumerate() {
        fs::write(folder.join(format!("seed-{number}")), seed).expect("the folder can be written to");
    }
}
