//! What a process says at its end.

use std::process::{ExitCode, Termination};

use swarm_types::visible;

/// The exit code. An error is told on standard error without a backtrace, whatever RUST_BACKTRACE says: people read
/// it, and `llama-swarm up` shows the last lines of a process that cannot start.
#[must_use]
pub fn code(ended: Result<impl Termination, impl Into<anyhow::Error>>) -> ExitCode {
    match ended {
        Ok(ended) => ended.report(),
        Err(error) => {
            // Some of it may be the words of another machine.
            eprintln!("error: {}", visible::lines(&told(&error.into())));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, each once: some messages hold that of their cause.
fn told(error: &anyhow::Error) -> String {
    let mut told = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_is_told_with_each_cause_once() {
        let error = anyhow!("no such file").context("model a.gguf: no such file").context("started in vain");
        assert_eq!(told(&error), "started in vain: model a.gguf: no such file");
        assert_eq!(told(&anyhow!("inner").context("outer")), "outer: inner");
    }
}
