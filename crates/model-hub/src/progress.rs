//! Shows how far a download, or a look at a file, is: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Lines come at least this often while something moves, and at every tenth.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How far it is. Dropping it takes the bar away.
pub(crate) struct Progress {
    what: String,
    total: Option<u64>,
    shape: Shape,
}

enum Shape {
    Bar(ProgressBar),
    Lines(Lines),
}

/// When the next line is due.
struct Lines {
    told: Option<(Instant, u64)>,
}

impl Progress {
    /// Begins at nothing; `what` is done with so many bytes, where that is known.
    pub(crate) fn new(what: impl Into<String>, total: Option<u64>) -> Self {
        let what = what.into();
        let shape = match std::io::stderr().is_terminal() {
            true => Shape::Bar(bar(&what, total)),
            false => Shape::Lines(Lines { told: None }),
        };
        Self { what, total, shape }
    }

    /// There will be so many bytes, as is known only now.
    pub(crate) fn expect(&mut self, total: u64) {
        self.total = Some(total);
        if let Shape::Bar(bar) = &self.shape {
            bar.set_style(style(self.total));
            bar.set_length(total);
        }
    }

    /// So many bytes are here.
    pub(crate) fn set(&mut self, done: u64) {
        match &mut self.shape {
            Shape::Bar(bar) => bar.set_position(done),
            Shape::Lines(lines) => {
                if lines.due(done, self.total, Instant::now()) {
                    tell(&line(&self.what, done, self.total));
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shape::Bar(bar) = &self.shape {
            bar.finish_and_clear();
        }
    }
}

impl Lines {
    fn due(&mut self, done: u64, total: Option<u64>, now: Instant) -> bool {
        let tenth = total.and_then(|total| done.saturating_mul(10).checked_div(total)).unwrap_or(0);
        let due = match self.told {
            None => true,
            Some((at, told)) => tenth > told || now.duration_since(at) >= LINE_EVERY,
        };
        if due {
            self.told = Some((now, tenth));
        }
        due
    }
}

fn bar(what: &str, total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    bar.with_style(style(total)).with_message(what.to_owned())
}

fn style(total: Option<u64>) -> ProgressStyle {
    let template = match total {
        Some(_) => "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{msg} {spinner} {bytes} {bytes_per_sec}",
    };
    ProgressStyle::with_template(template).expect("the template is valid").progress_chars("=> ")
}

fn line(what: &str, done: u64, total: Option<u64>) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    match total.filter(|total| *total > 0) {
        Some(total) => {
            // A total may be rounded.
            let (percent, done) = ((done.saturating_mul(100) / total).min(100), megabytes(done));
            format!("{what}: {done:.1} of {:.1} MB ({percent} %)", megabytes(total))
        }
        None => format!("{what}: {:.1} MB", megabytes(done)),
    }
}

/// A line for the operator: among the log of a service, else on stderr.
pub(crate) fn tell(line: &str) {
    if tracing::dispatcher::has_been_set() {
        tracing::info!("{line}");
    } else {
        eprintln!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_at_every_tenth_and_every_five_seconds() {
        let start = Instant::now();
        let mut lines = Lines { told: None };
        let mut due = |done, seconds| lines.due(done, Some(100), start + Duration::from_secs(seconds));
        let told = [(0, 0), (3, 1), (9, 2), (10, 2), (11, 3), (25, 4), (26, 8), (27, 9), (100, 9)];
        let told = told.map(|(done, seconds)| due(done, seconds));
        assert_eq!(told, [true, false, false, true, false, true, false, true, true]);
    }

    #[test]
    fn lines_say_how_far_it_is() {
        assert_eq!(line("m", 41_300_000, Some(92_900_000)), "m: 41.3 of 92.9 MB (44 %)");
        assert_eq!(line("m", 41_300_000, None), "m: 41.3 MB");
        assert_eq!(line("m", 0, Some(0)), "m: 0.0 MB");
    }
}
