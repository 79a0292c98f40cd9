//! How flags are read that several services have.

use std::{path::PathBuf, time::Duration};

use clap::builder::{OsStringValueParser, TypedValueParser};
use swarm_types::{IdError, Precision};

/// A day: longer than anybody waits on purpose.
const MAX_SECONDS: f64 = 86_400.0;

/// Reads seconds, also parts of them.
///
/// # Errors
/// When they are not a thousandth to a day.
pub fn seconds(text: &str) -> Result<Duration, String> {
    at_least(0.001, text)
}

/// Reads seconds, also parts of them, where not to wait at all makes sense.
///
/// # Errors
/// When they are not 0 to a day.
pub fn seconds_or_none(text: &str) -> Result<Duration, String> {
    at_least(0.0, text)
}

/// Reads a precision, by its old name as well, and then says so: logs have not begun when flags are read.
///
/// # Errors
/// When it is no precision.
#[allow(clippy::print_stderr)]
pub fn precision(text: &str) -> Result<Precision, IdError> {
    let precision = Precision::from_option(text)?;
    if text == Precision::OLD_NAME {
        eprintln!("warning: precision {} is called {precision} now", Precision::OLD_NAME);
    }
    Ok(precision)
}

/// Reads a path, also an empty one: an environment variable that is set to nothing names no file.
pub fn path_or_none() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

fn at_least(least: f64, text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (least..=MAX_SECONDS).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("must be {least} to {MAX_SECONDS} seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_with_their_parts_and_within_their_bounds() {
        for (text, millis) in [("30", 30_000), ("0.5", 500), ("1e2", 100_000), ("86400", 86_400_000)] {
            assert_eq!(seconds(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(seconds_or_none(text), seconds(text));
        }
        assert_eq!(seconds_or_none("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("0"), Err("must be 0.001 to 86400 seconds".into()));
        for wrong in ["", "x", "-1", "NaN", "inf", "86401", "5s"] {
            assert_eq!(seconds_or_none(wrong), Err("must be 0 to 86400 seconds".into()), "{wrong}");
        }
    }
}
