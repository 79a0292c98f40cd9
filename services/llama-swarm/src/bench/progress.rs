//! How a measurement under way is shown.

use indicatif::ProgressStyle;

/// A bar with the step it is at.
pub(super) fn progress_style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30.green} {pos}/{len} {msg} ({elapsed})")
        .expect("the template is a constant that parses")
}
