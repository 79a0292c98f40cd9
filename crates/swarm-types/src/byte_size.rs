//! Numbers of bytes.

use std::{fmt, str::FromStr};

/// A number of bytes, as people write it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    /// `1048576`, `1024KiB`, `256MiB`, `2GiB`.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "" | "B" => 1u64,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err("must be bytes, or end in KiB, MiB or GiB".into()),
        };
        let bytes = digits.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        bytes.map(Self).ok_or_else(|| "must be a whole number of bytes, KiB, MiB or GiB".into())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.into_iter().find(|(shift, _)| self.0 > 0 && self.0.is_multiple_of(1 << shift)) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("0", 0), ("17", 17), ("2KiB", 2048), ("256MiB", 256 << 20), ("3GiB", 3 << 30)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        for wrong in ["", "MiB", "1MB", "-1", "1.5GiB", "99999999999GiB"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong:?}");
        }
    }
}
