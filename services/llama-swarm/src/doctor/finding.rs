//! What an examination found.

use std::fmt;

use swarm_types::visible::one_line;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should be.
    Good,
    /// Works, or will by itself, or could not be found out.
    Warning,
    /// Keeps the swarm from being ready.
    Bad,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How bad.
    pub verdict: Verdict,
    /// What.
    pub what: String,
    /// What to do about it, unless that is said already.
    pub fix: Option<String>,
}

impl Finding {
    /// As it should be.
    pub(crate) fn good(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, what: what.into(), fix: None }
    }

    /// Not as it should be, but no obstacle.
    pub(crate) fn warning(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, what: what.into(), fix: Some(fix.into()) }
    }

    /// Not as it should be, in words that say themselves what to do about it.
    pub(crate) fn with_cure(verdict: Verdict, what: impl Into<String>) -> Self {
        Self { verdict, what: what.into(), fix: None }
    }

    /// An obstacle.
    pub(crate) fn bad(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, what: what.into(), fix: Some(fix.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.verdict {
            Verdict::Good => '✓',
            Verdict::Warning => '!',
            Verdict::Bad => '✗',
        };
        // Both may hold what nodes say of themselves.
        write!(f, "{sign} {}", one_line(&self.what))?;
        match &self.fix {
            Some(fix) => write!(f, "\n    → {}", one_line(fix)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_say_of_themselves_forges_no_line() {
        let shown = Finding::bad("serves \u{1b}]0;x\u{7}\n✓ all is well", "restart it\r").to_string();
        assert_eq!(shown, "✗ serves \\u{1b}]0;x\\u{7}\\u{a}✓ all is well\n    → restart it\\u{d}");
    }
}
