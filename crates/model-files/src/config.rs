//! How much giving files to others may take.

use std::num::NonZeroU64;

use swarm_types::ByteSize;
use torrent_exchange::SeedLimits;

/// How model files are given to other nodes.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct SharingConfig {
    /// Bytes of model files that are sent to other nodes in a second, all together: 50MiB [default: as many as the
    /// network takes].
    #[arg(long, env = "LLAMA_SWARM_UPLOAD_LIMIT", value_name = "BYTES", value_parser = rate)]
    pub upload_limit: Option<NonZeroU64>,
}

impl SharingConfig {
    pub(crate) fn limits(&self) -> SeedLimits {
        SeedLimits { bytes_per_second: self.upload_limit, ..SeedLimits::default() }
    }
}

fn rate(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(text.parse::<ByteSize>()?.0).ok_or_else(|| "must be above 0".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_of_bytes_above_none() {
        assert_eq!(rate("50MiB").map(NonZeroU64::get), Ok(50 << 20));
        for wrong in ["", "0", "0GiB", "1MB"] {
            assert!(rate(wrong).is_err(), "{wrong:?}");
        }
    }
}
