//! Writes the torrent of a model's file.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use model_hub::{HubConfig, ModelRef};

/// Of which model, and where to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Config {
    /// A path, pypi:NAME==VERSION or hf:owner/repo/file.gguf.
    model: ModelRef,

    /// Where to write the torrent [default: the model's name, with .torrent, in this folder].
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Where model files are kept.
    #[command(flatten)]
    hub: HubConfig,
}

/// Writes it, and prints what it is.
///
/// # Errors
/// When the model cannot be had, or the file not be written.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let path = model_hub::resolve(&config.model, &config.hub).await?;
    let metainfo = model_hub::identify(&path, &config.hub).await?;
    let name = path.file_stem().map(PathBuf::from).unwrap_or_default();
    let out = config.out.unwrap_or_else(|| name.with_extension("torrent"));
    fs::write(&out, metainfo.to_bytes()).with_context(|| format!("cannot write {}", out.display()))?;
    let layout = metainfo.layout();
    println!("info-hash  {}", metainfo.info_hash());
    println!("bytes      {} in {} pieces of {}", layout.total(), layout.pieces(), layout.piece_length());
    println!("torrent    {} (its file is called {})", out.display(), layout.path(0).display());
    Ok(ExitCode::SUCCESS)
}
