//! How much giving files to others may take.

use std::num::NonZeroU64;

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
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1u64,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("must be bytes, or end in KiB, MiB or GiB".into()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .and_then(NonZeroU64::new)
        .ok_or_else(|| "must be a whole number of bytes, KiB, MiB or GiB, above 0".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, bytes) in [("17", 17), ("2KiB", 2048), ("50MiB", 50 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(rate(text).map(NonZeroU64::get), Ok(bytes));
        }
        for wrong in ["", "0", "MiB", "1MB", "-1", "99999999999GiB"] {
            assert!(rate(wrong).is_err(), "{wrong:?}");
        }
    }
}
