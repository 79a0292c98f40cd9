//! The models that are kept on this machine, for people: `list` and `rm`.

pub(crate) mod list;
pub(crate) mod rm;

use std::path::PathBuf;

use clap::Args;
use model_hub::HubConfig;

/// Which cache.
#[derive(Args, Clone, Debug)]
pub(crate) struct Cache {
    /// Directory for fetched models [default: llama-swarm in the user's cache directory]. Files of hf: are where
    /// Hugging Face's own tools keep them (`HF_HOME`).
    #[arg(long, env = "LLAMA_SWARM_CACHE_DIR", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

impl Cache {
    fn hub(&self) -> HubConfig {
        HubConfig { cache_dir: self.cache_dir.clone(), ..HubConfig::default() }
    }
}

/// A number of bytes as people say it.
fn spoken(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes >= 1e9 => format!("{:.1} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.1} kB", bytes / 1e3),
    }
}
