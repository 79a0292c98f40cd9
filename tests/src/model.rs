//! The models that scenarios run on.

use std::path::PathBuf;

use gguf::tiny::TinyModel;
use tempfile::TempDir;

/// A model's file that goes with this.
#[derive(Debug)]
pub struct ModelFile {
    dir: TempDir,
}

impl ModelFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("tiny.gguf")
    }
}

/// A random model of so many layers: what it says has no sense, but is always the same.
///
/// # Errors
/// When its file cannot be written.
pub fn tiny_model(layers: u32) -> anyhow::Result<ModelFile> {
    let file = ModelFile { dir: TempDir::with_prefix("model-")? };
    TinyModel { layers, ..TinyModel::default() }.write(&file.path())?;
    Ok(file)
}

/// A random model whose file has about a hundred pieces, as nodes give them to each other.
///
/// # Errors
/// When its file cannot be written.
pub fn model_of_many_pieces() -> anyhow::Result<ModelFile> {
    let file = ModelFile { dir: TempDir::with_prefix("model-")? };
    let model = TinyModel { layers: 12, hidden: 256, feed_forward: 512, ..TinyModel::default() };
    model.write(&file.path())?;
    Ok(file)
}

/// The real model's file, fetched and checked as the product does it.
///
/// # Errors
/// When it cannot be had.
pub async fn real_model() -> anyhow::Result<PathBuf> {
    let config = model_hub::HubConfig::default();
    Ok(model_hub::resolve(&model_hub::ModelRef::default(), &config).await?)
}
