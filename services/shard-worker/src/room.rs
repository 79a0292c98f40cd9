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
    let caches = if footprint.position_bytes > 0 { config.kv_memory.0 } else { 0 };
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
    use swarm_types::LayerRange;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn shards_that_do_not_fit_are_refused_with_what_they_need_unless_it_is_to_be_ignored() {
        let footprint = Footprint {
            layers: LayerRange::new(0, 4).expect("valid"),
            weight_bytes: 100 << 20,
            position_bytes: 1 << 10,
            buffer_bytes: (20 << 20) + 1,
            context_length: 512,
        };
        let check = |available_mib: u64, flags: &str| {
            let words = format!("worker --shard-id 0 {flags}");
            let config = Cli::parse_from(words.split_whitespace()).config;
            check_against(available_mib << 20, &footprint, &config)
        };
        let error = check(120, "").expect_err("a byte is missing").to_string();
        for named in ["need 121 MiB", "weights 100", "buffers 21", "120 MiB of memory", "--ignore-memory"] {
            assert!(error.contains(named), "{named} is not in: {error}");
        }
        assert!(check(120, "--ignore-memory").is_ok());
        assert!(check(121, "").is_ok());
    }
}
