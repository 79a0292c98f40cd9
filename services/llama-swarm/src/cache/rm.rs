//! `llama-swarm rm`: takes a model away from this machine.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use model_files::{cached_models, called};
use swarm_types::visible;

use super::{Cache, spoken};

/// What to remove.
#[derive(Args, Clone, Debug)]
pub(crate) struct Config {
    /// pypi:NAME==VERSION, hf:owner/repo/file.gguf, or an info-hash or its first digits, six at least; all copies of
    /// it, or with .N behind it that copy alone. `list` shows them.
    #[arg(value_name = "MODEL|INFO_HASH")]
    model: String,

    #[command(flatten)]
    cache: Cache,
}

/// Removes it, and prints how many bytes that frees.
///
/// # Errors
/// When there is no such model, it is not clear which, or a process uses it.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let hub = config.cache.hub();
    let models = cached_models(&hub).await?;
    let found = called(&models, &config.model)?;
    if let Some(used) = found.iter().find(|model| model.in_use) {
        bail!("a process uses {}: end it, then the model can be removed", used.path.display());
    }
    for model in found {
        let freed = model.remove(&hub).await?;
        let (name, path) = (visible::one_line(&model.name), model.path.display());
        println!("removed {name}, {path}: {} freed", spoken(freed));
        if model.is_shared() {
            println!("it was in the cache of Hugging Face's own tools too, which have to fetch it again");
        }
    }
    Ok(ExitCode::SUCCESS)
}
