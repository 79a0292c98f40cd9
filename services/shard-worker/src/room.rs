//! Whether a worker's shards fit into the memory that is there, told before they are loaded.

use shard_engine::{DeviceChoice, Footprint};
use swarm_process::machine::available_memory;

use crate::{Config, WorkerError};

/// Refuses to begin what cannot end well, and warns where caches may not get what they may take.
///
/// # Errors
/// When weights and buffers are more than the memory that is available.
pub(crate) fn check(footprint: &Footprint, config: &Config) -> Result<(), WorkerError> {
    // A device has a memory of its own, which is not known here.
    match available_memory().filter(|_| config.device == DeviceChoice::Cpu) {
        Some(available) => check_against(available, footprint, config),
        None => Ok(()),
    }
}

fn check_against(available: u64, footprint: &Footprint, config: &Config) -> Result<(), WorkerError> {
    let needed = footprint.least_bytes();
    let [needed_mib, available_mib] = [needed, available].map(mib);
    if needed > available {
        if !config.ignore_memory {
            let (weights_mib, buffers_mib) = (mib(footprint.weight_bytes), mib(footprint.buffer_bytes));
            return Err(WorkerError::Memory { needed_mib, weights_mib, buffers_mib, available_mib });
        }
        tracing::warn!(
            needed_mib,
            available_mib,
            "the shards do not fit into memory and are loaded all the same"
        );
        return Ok(());
    }
    // Shards without layers keep no caches.
    let caches = if footprint.layers.count() > 0 { config.kv_memory.0 } else { 0 };
    if needed.saturating_add(caches) > available {
        tracing::warn!(
            needed_mib,
            available_mib,
            kv_memory = %config.kv_memory,
            "caches may not get all of --kv-memory, there is too little memory: lower it"
        );
    }
    Ok(())
}

/// Rounded up.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use gguf::{Header, tiny::TinyModel};
    use shard_engine::{BackendChoice, KvType, Usage, cut_of};
    use swarm_types::{Precision, ShardId, ShardRange};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn shards_that_do_not_fit_are_refused_with_what_they_need_unless_it_is_to_be_ignored() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let model = folder.path().join("tiny.gguf");
        TinyModel::default().write(&model).expect("written");
        let header = Header::read_without_arrays(&model).expect("valid");
        let cut = cut_of(&header, 1, None).expect("a cut");
        let (precision, kv_type) = (Precision::Standard, KvType::F16);
        // Buffers of some hundred MiB.
        let usage = Usage { precision, kv_type, batch_rows: 100_000, backend: BackendChoice::Native };
        let footprint =
            Footprint::of(&header, &cut, ShardRange::one(ShardId(0)), usage).expect("a footprint");
        let least = footprint.least_bytes();
        let check = |available: u64, flags: &str| {
            let words = format!("worker --shard-id 0 {flags}");
            let config = Cli::parse_from(words.split_whitespace()).config;
            check_against(available, &footprint, &config)
        };
        let error = check(least - 1, "").expect_err("a byte is missing").to_string();
        let needed = format!("need {} MiB", mib(least));
        for named in [needed.as_str(), "of memory are available", "--ignore-memory"] {
            assert!(error.contains(named), "{named} is not in: {error}");
        }
        assert!(check(least - 1, "--ignore-memory").is_ok());
        assert!(check(least, "").is_ok());
    }
}
